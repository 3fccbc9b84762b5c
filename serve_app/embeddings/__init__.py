"""Embeddings: texts as vectors, near each other where the texts are near in meaning."""
