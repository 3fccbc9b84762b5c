"""The command line. Importing it costs next to nothing: every command imports what it needs when it runs."""

from __future__ import annotations


def main() -> None:
    """The ``parley`` command."""
    from serve_app.cli.main import main as run

    run()
