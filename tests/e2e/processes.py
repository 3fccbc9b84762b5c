"""What runs because of one server, and where it listens.

Every process that a server starts inherits a variable of its environment, whoever its parent becomes. Some write their title
over it, so the children of those that have it belong to the run as well, and whoever belonged once belongs for good.
Nothing is found by name.
"""

from __future__ import annotations

import contextlib
import ipaddress
import random
import shutil
import socket
import time
from pathlib import Path
from typing import NamedTuple

import psutil

RUN_VARIABLE = "E2E_RUN"
_given: set[int] = set()


class OpenSocket(NamedTuple):
    """A TCP socket that listens or a UDP socket that anybody may send to."""

    program: str
    kind: str
    ip: str
    port: int

    @property
    def is_loopback(self) -> bool:
        address = ipaddress.ip_address(self.ip.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            return address.ipv4_mapped.is_loopback
        return address.is_loopback


def free_port() -> int:
    """A port below the range that systems give away by themselves: a graph opens many before it opens this one."""
    while True:
        port = random.randrange(20_000, 29_000)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


class Run:
    """All processes of one start."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        """Value of ``RUN_VARIABLE`` in the environment of the first process."""
        self._known: set[psutil.Process] = set()
        self._folders: set[Path] = set()

    def processes(self) -> list[psutil.Process]:
        """Those alive. Call it before ending a run, so that nothing that is orphaned by its end is lost from sight."""
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                if environment.get(RUN_VARIABLE) == self.mark:
                    self._known |= {process, *process.children(recursive=True)}
                    if socket_path := environment.get("RAY_SERVE_HAPROXY_SOCKET_PATH"):
                        self._folders.add(Path(socket_path).parents[1])
            except psutil.Error:
                continue
        return [process for process in self._known if _alive(process)]

    def left(self, within_s: float) -> list[str]:
        """Command lines of what still runs after ``within_s``, or nothing as soon as nothing does."""
        until = time.monotonic() + within_s
        while (left := self.processes()) and time.monotonic() < until:
            psutil.wait_procs(left, timeout=0.2)
        return [program(process) for process in left]

    def sockets(self) -> list[OpenSocket]:
        """Where the processes can be reached."""
        found = []
        for process in self.processes():
            try:
                title = program(process)
                for connection in process.net_connections("inet"):
                    here: tuple[object, ...] = connection.laddr  # psutil gives () for an address that is not there
                    peer: tuple[object, ...] = connection.raddr
                    if not here:
                        continue
                    ip, port = connection.laddr.ip, connection.laddr.port
                    if connection.type == socket.SOCK_STREAM and connection.status == psutil.CONN_LISTEN:
                        found.append(OpenSocket(title, "tcp", ip, port))
                    elif connection.type == socket.SOCK_DGRAM and not peer:
                        found.append(OpenSocket(title, "udp", ip, port))
            except psutil.NoSuchProcess:
                continue
        return found

    def kill(self) -> None:
        """Ends what is there, and removes the run's private folders, which what is killed cannot."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)


def program(process: psutil.Process) -> str:
    """The command line, as far as it helps to recognise a process."""
    try:
        return " ".join(process.cmdline())[:200] or process.name()
    except psutil.Error:
        return f"process {process.pid}"


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
