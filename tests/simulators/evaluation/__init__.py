"""Evaluation over real sockets."""
