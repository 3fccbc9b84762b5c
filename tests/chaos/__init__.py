"""The chaos suite: real processes, killed, stopped and cut off while turns run, and a ledger that is compared with the store.

scenarios/ ── break things ──► graph.py (the processes), cutter.py (the sockets)
    │
    ├── send turns ──► socket_client.py, stream_client.py ──► transcript.py, ledger.py (what clients saw)
    └── judge.py: the ledger against the public API and against desk.py (what the tools did) ──► report.py

``python -m tests.chaos`` runs it whole; ``test_chaos_short.py`` a short form of the same scenarios.
"""
