"""The store on Azure: Cosmos DB for everything said, Blob Storage for what is too large for it.

``store`` is the port and ``client`` the connection; ``layout`` says what the database looks like, ``documents`` what lies in it.
``sessions`` reads, remembers and writes the documents of conversations, for ``conversations``, ``messages``, ``acceptance``,
``turns``, ``appends`` and ``removals``. ``inbox`` and ``usage`` are written behind them, and ``projection`` makes up for both.
"""

from serve_app.storage.cosmos.store import CosmosStore

__all__ = ["CosmosStore"]
