"""Encryption of what has to be stored and read back, such as providers' keys. ``ring`` derives a key for each purpose."""
