"""Plain types of the program, free of vendors and of I/O.

Everything here is an immutable ``msgspec.Struct``: it pickles across handles, packs across channels and encodes to the
JSON that clients and the log see, by one codec and without a model object of a web framework.
"""
