"""Tickets: a single-use secret in place of a token, for a browser's WebSocket, which can send no header."""
