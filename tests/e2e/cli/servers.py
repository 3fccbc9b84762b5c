"""What ``parley doctor`` and ``parley tools`` ask: a graph that says what it is told to, and the companions."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from serve_app.cli.background import BackgroundLoop
from serve_app.companions.server import CompanionServer, CompanionSettings

READY: dict[str, Any] = {
    "status": "degraded",
    "dependencies": {
        "store": {
            "state": "up",
            "critical": True,
            "duration_ms": 1.2,
            "error": None,
            "simulated": None,
            "servers": None,
        },
        "models": {"state": "up", "duration_ms": 0.1, "simulated": True},
        "tools": {
            "state": "degraded",
            "duration_ms": 1.0,
            "servers": [
                {"name": "crm", "state": "up", "tools": 4, "error": None},
                {"name": "hr", "state": "down", "tools": 0, "error": "connection refused"},
            ],
        },
    },
}
PAGES: dict[str, Any] = {
    "/health": {"status": "ok"},
    "/ready": READY,
    "/api/capabilities": {"tools": [{"name": "crm.find_account", "description": "Finds accounts."}]},
    "/api/authz": {"user_id": "ana", "roles": ["sales"]},
}


@contextmanager
def pages(
    port: int = 0, content: Mapping[str, Any] = PAGES, asked: list[dict[str, str]] | None = None
) -> Iterator[str]:
    """Serves JSON by path, 404 for anything else; ``asked`` collects the headers of requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if asked is not None:
                asked.append(dict(self.headers.items()))
            body = json.dumps(content.get(self.path, {"detail": "not found"})).encode()
            self.send_response(200 if self.path in content else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(10)


@contextmanager
def companions(settings: CompanionSettings) -> Iterator[CompanionServer]:
    with BackgroundLoop() as loop:
        server = CompanionServer(settings)
        loop.run(server.start())
        try:
            yield server
        finally:
            loop.run(server.stop())
