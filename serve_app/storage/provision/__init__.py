"""Making an Azure account ready, and saying what keeps it from being: what ``parley store init`` and ``parley doctor`` ask.

``plan`` compares what is there with the layout, ``account`` reads and changes the account, ``diagnosis`` puts its refusals
into words for whoever has to set it right.
"""
