"""Who wants to hear that a peer is gone."""

from __future__ import annotations

from serve_app.channel.port import Lost
from serve_app.telemetry import logger


class Watches:
    """The watches of one process, by the peer's endpoint."""

    def __init__(self) -> None:
        self._watches: dict[str, set[Lost]] = {}

    def __contains__(self, endpoint: str) -> bool:
        return endpoint in self._watches

    def add(self, endpoint: str, lost: Lost) -> Lost:
        """Returns what takes the watch away again; idempotent."""
        self._watches.setdefault(endpoint, set()).add(lost)

        def remove() -> None:
            watching = self._watches.get(endpoint)
            if watching is not None:
                watching.discard(lost)
                if not watching:
                    del self._watches[endpoint]

        return remove

    def lost(self, endpoint: str) -> None:
        """Tells everybody who watches ``endpoint``, once."""
        for lost in self._watches.pop(endpoint, ()):
            try:
                lost()
            except Exception:  # one watcher's fault must not keep it from the others
                _log.exception("a watch failed", endpoint=endpoint)


_log = logger("channel")
