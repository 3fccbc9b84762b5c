"""ZeroMQ sockets in an event loop, without pyzmq's asyncio layer: a frame costs about half of what it does there.

A socket's descriptor tells that *something changed*, once, and may stay silent about what was there before. So a
callback reads the socket's state each time, and goes on until nothing is left.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable

import zmq

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]

# Plain numbers: an operation on pyzmq's own flags makes an object of an enumeration each time.
_EVENTS, _POLLIN, _POLLOUT = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.POLLOUT)


def readable(socket: Socket) -> bool:
    return bool(int(socket.getsockopt(_EVENTS)) & _POLLIN)


def writable(socket: Socket) -> bool:
    return bool(int(socket.getsockopt(_EVENTS)) & _POLLOUT)


def watch(loop: asyncio.AbstractEventLoop, socket: Socket, callback: Callable[[], None]) -> None:
    """Calls back whenever the state of ``socket`` may have changed, and once at first.

    The callback runs in an empty context, not in that of a request which happened to cause the connection.
    """
    contextvars.Context().run(loop.add_reader, socket.fileno(), callback)
    loop.call_soon(callback, context=contextvars.Context())
