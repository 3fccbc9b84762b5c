"""Azure Blob Storage: the one place that knows its SDK. Uploads, prompts and large bodies are kept by way of it."""
