"""What a target may answer when it is asked for the figures of its stages, and what is made of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from serve_app.cli import load_target
from serve_app.cli.load_target import Stages
from serve_app.errors import NotFound, NotPermitted, ParleyError, Unauthenticated, UpstreamFailed


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(10)


def test_figures_are_read() -> None:
    with answering(200, b'{"at": 5, "missing": ["Store"], "of_a_later_version": 1}') as url:
        state = Stages(url).read()
    assert (state.at, state.missing) == (5.0, ("Store",))


@pytest.mark.parametrize(
    ("status", "body", "failure", "said"),
    [
        (401, b'{"detail": "Who are you?"}', Unauthenticated, "Set PARLEY_ADMIN_TOKEN to the server's"),
        (403, b'{"detail": "You may not."}', NotPermitted, "Only an administrator of the platform may see them."),
        (404, b'{"detail": "Not Found"}', NotFound, "does not know /api/admin/stages"),
        (200, b'{"at": "noon"}', NotFound, "is of another version"),
        (503, b'{"detail": "Too busy."}', UpstreamFailed, "Too busy."),
        (200, b"<html>", UpstreamFailed, "did not answer"),
    ],
)
def test_anything_else_says_whether_asking_again_is_of_use(
    status: int, body: bytes, failure: type[ParleyError], said: str
) -> None:
    with answering(status, body) as url, pytest.raises(failure) as raised:
        Stages(url).read()
    assert said in raised.value.message


def test_a_target_that_takes_too_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_target, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(UpstreamFailed, match=r"did not answer within 0\.2 s\."):
            Stages(f"http://127.0.0.1:{port}").read()


def test_a_target_that_is_gone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(UpstreamFailed, match="did not answer at all"):
        Stages(f"http://127.0.0.1:{port}").read()
