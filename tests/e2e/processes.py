"""What runs because of one server, and where it listens.

Every process that a server starts inherits a variable of its environment, whoever its parent becomes: that is how the whole
tree is found, orphans included, without looking at names.
"""

from __future__ import annotations

import ipaddress
import random
import socket
import time
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


def processes_of(run: str) -> list[psutil.Process]:
    """Every living process of the run."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(RUN_VARIABLE) == run and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def left_after(run: str, within_s: float) -> list[str]:
    """Command lines of what still runs after ``within_s``, or nothing as soon as nothing does."""
    until = time.monotonic() + within_s
    while (left := processes_of(run)) and time.monotonic() < until:
        psutil.wait_procs(left, timeout=0.2)
    return [_program(process) for process in left]


def sockets_of(run: str) -> list[OpenSocket]:
    """Where the run's processes can be reached."""
    found = []
    for process in processes_of(run):
        try:
            program = _program(process)
            for connection in process.net_connections("inet"):
                here: tuple[object, ...] = connection.laddr  # psutil gives () for an address that is not there
                peer: tuple[object, ...] = connection.raddr
                if not here:
                    continue
                ip, port = connection.laddr.ip, connection.laddr.port
                if connection.type == socket.SOCK_STREAM and connection.status == psutil.CONN_LISTEN:
                    found.append(OpenSocket(program, "tcp", ip, port))
                elif connection.type == socket.SOCK_DGRAM and not peer:
                    found.append(OpenSocket(program, "udp", ip, port))
        except psutil.NoSuchProcess:
            continue
    return found


def _program(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:120] or process.name()
    except psutil.Error:
        return f"process {process.pid}"
