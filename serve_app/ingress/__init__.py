"""The edge: connections, identity, limits and encodings. It keeps nothing that a reconnect cannot rebuild."""
