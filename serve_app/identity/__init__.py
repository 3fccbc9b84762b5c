"""Who is asking: from a request's headers to a principal."""
