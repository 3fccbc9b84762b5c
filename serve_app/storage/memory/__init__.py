"""The store in memory: for tests and for runs that keep nothing.

Written for being plainly right, so that the contract suite can hold the embedded store against it. ``store`` is the port;
``conversation`` is what it keeps of each: head, messages, turns and whose turn it is.
"""

from serve_app.storage.memory.store import MemoryStore

__all__ = ["MemoryStore"]
