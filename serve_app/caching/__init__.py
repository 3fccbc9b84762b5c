"""Caches: what may be forgotten at any moment, around what is read often.

    Store stage ─► CachedMessages ─► Store           access ─► AccessRecords ─► Store
                        │                                           │
                     Entries: leases and marks that keep them true  │
                        └────────────► Cache ◄──────────────────────┘
                                memory | redis | off

``port`` says what a cache promises, ``entries`` how readers and writers of several replicas share one without ever showing
what a write has changed, ``messages`` what is kept of conversations, ``connect`` which adapter the settings name.
"""
