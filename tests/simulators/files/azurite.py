"""Azurite, Microsoft's emulator of Blob Storage from npm, in a process of its own on a free port of this machine.

    with running_azurite() as azurite:
        settings = azurite.settings()              # AzureSettings; the key is azurite.secret
        environment = azurite.environment()        # the same, as a whole graph is told

Everything is in its memory and ends with it. It does not model user delegation keys, batch deletion or Entra ID.
"""

from __future__ import annotations

import itertools
import queue
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from serve_app.settings import AzureSettings
from tests.peers import node_peer

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The emulator's own, the same everywhere."""
START_S = 60.0
STOP_S = 10.0

_ARGUMENTS = ("--inMemoryPersistence", "--disableTelemetry", "--silent", "--skipApiVersionCheck")
_LISTENS = re.compile(r"listens on http://127\.0\.0\.1:(\d+)")
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Azurite:
    port: int
    process: subprocess.Popen[str]
    key: str = KEY

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/{ACCOUNT}"

    @property
    def secret(self) -> SecretStr:
        return SecretStr(self.key)

    def settings(self, container: str | None = None, **changes: Any) -> AzureSettings:
        """Settings that name a container of their own, which is still to be made (``BlobContainer.create``)."""
        chosen = container or new_container()
        patient = {"request_timeout_s": 30.0, "retry_s": 60.0}
        return AzureSettings(blob_endpoint=self.endpoint, blob_container=chosen, **{**patient, **changes})

    def environment(self, container: str) -> dict[str, str]:
        """The variables that point a graph here."""
        return {
            "PARLEY_AZURE__BLOB_ENDPOINT": self.endpoint,
            "PARLEY_AZURE__BLOB_CONTAINER": container,
            "AZURE_STORAGE_KEY": self.key,
        }

    def stop(self) -> None:
        """Ends it, as an account that is away."""
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_S)


def new_container(prefix: str = "test") -> str:
    """A name no other test of this process uses."""
    return f"{prefix}-{next(_NUMBERS)}"


@contextmanager
def running_azurite(port: int = 0) -> Iterator[Azurite]:
    """Skips the test where the peers are not installed; fails it there with ``REQUIRE_PEERS=1``. ``port`` 0 is a free one."""
    command = node_peer("azurite", "azurite-blob")
    address = ("--blobHost", "127.0.0.1", "--blobPort", str(port))
    process = subprocess.Popen(
        [*command, *_ARGUMENTS, *address], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    azurite = Azurite(port=0, process=process)
    try:
        yield Azurite(port=_port(lines), process=process)
    finally:
        azurite.stop()
        reader.join(STOP_S)
        if process.stdout is not None:
            process.stdout.close()


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    for line in process.stdout or ():
        lines.put(line)
    lines.put(None)


def _port(lines: queue.Queue[str | None]) -> int:
    seen = ""
    while (line := lines.get(timeout=START_S)) is not None:
        seen += line
        if found := _LISTENS.search(line):
            return int(found[1])
    raise AssertionError(f"Azurite ended: {seen[-2000:]}")
