"""Local accounts, for those without an identity provider: names, passwords, sessions, and the key that signs their tokens."""
