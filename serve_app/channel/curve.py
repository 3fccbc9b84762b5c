"""Who may speak on a channel: keys made from the graph's secret, and the check of those who connect.

Every process derives the same two CURVE key pairs from the secret: one for listening, one for connecting. To be heard, a
peer has to know the listening side's public key (its first message is sealed to it, and that key is never published and
never sent in the clear) and to prove that it holds the connecting side's secret key, which the gatekeeper demands. To be
trusted by those who connect, a listener has to hold the listening side's secret key. Session keys are fresh for each
connection, so a recording cannot be read later with the secret alone.

The first half would already keep strangers out, but only as long as a public key stays secret, which CURVE does not
promise; the second is what it is made for.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

import zmq
from zmq.utils import z85

from serve_app.channel.port import ChannelCounts
from serve_app.channel.sockets import Context, Socket, readable
from serve_app.errors import ConfigError

MIN_SECRET_CHARS = 16
_SALT = b"parley channel 1"
_DOMAIN = b"channel"
_ZAP_ENDPOINT = "inproc://zeromq.zap.01"  # fixed by the protocol (ZeroMQ RFC 27)


def new_secret() -> str:
    """A secret for one graph, where the operator sets none."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, repr=False)
class ChannelKeys:
    """Z85 text, as libzmq takes it. ``listen`` seals the receiving end of connections, ``connect`` the sending end."""

    listen_secret: bytes
    connect_secret: bytes
    listen_public: bytes
    connect_public: bytes

    @classmethod
    def derive(cls, secret: str) -> ChannelKeys:
        """Takes some 50 ms: an observer of a handshake could otherwise try weak secrets quickly.

        Raises ConfigError for a secret too short to be one.
        """
        if not zmq.has("curve"):
            raise ConfigError("The installed pyzmq has no CURVE encryption; install a wheel that was built with it.")
        if len(secret) < MIN_SECRET_CHARS:
            raise ConfigError(
                f"PARLEY_CHANNEL_SECRET is too short; use at least {MIN_SECRET_CHARS} characters from a random source."
            )
        material = hashlib.scrypt(secret.encode(), salt=_SALT, n=2**14, r=8, p=1, dklen=64)
        listen, connect = z85.encode(material[:32]), z85.encode(material[32:])
        return cls(listen, connect, zmq.curve_public(listen), zmq.curve_public(connect))

    def listener(self, socket: Socket) -> None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.listen_secret)
        socket.setsockopt(zmq.ZAP_DOMAIN, _DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without a gatekeeper nobody gets in

    def connector(self, socket: Socket) -> None:
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.listen_public)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.connect_public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.connect_secret)


class Gatekeeper:
    """Answers libzmq's question whether a peer may connect (ZAP), once for each handshake in a context."""

    def __init__(self, context: Context, keys: ChannelKeys, counts: ChannelCounts) -> None:
        self._admitted = z85.decode(keys.connect_public)
        self._counts = counts
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(_ZAP_ENDPOINT)

    def on_readable(self) -> None:
        while readable(self.socket):
            version, number, domain, _address, _identity, mechanism, *credentials = self.socket.recv_multipart()
            admitted = (
                domain == _DOMAIN
                and mechanism == b"CURVE"
                and len(credentials) == 1
                and hmac.compare_digest(credentials[0], self._admitted)
            )
            if not admitted:
                self._counts.peers_refused += 1
            verdict = [b"200", b"OK"] if admitted else [b"400", b"not a member"]
            self.socket.send_multipart([version, number, *verdict, b"", b""])
