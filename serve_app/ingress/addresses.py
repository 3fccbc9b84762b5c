"""Where a client is: the address that a limit may be counted by.

``X-Forwarded-For`` is a list that each proxy adds the address of its own client to; whatever stands further left, the
client may have written itself. So only as many entries from the right are believed as the operator has proxies.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.datastructures import Headers
from starlette.types import Scope

_IPV6_NETWORK_BITS = 64


def client_address(scope: Scope, headers: Headers, forwarded_hops: int) -> str | None:
    """The client's address; None where nobody who can be believed says it.

    Of an IPv6 address the network: one client has as many addresses in it as it likes. A loopback address is a proxy's on
    this machine, and a server that has applied ``X-Forwarded-For`` itself shows what the client has written there.
    """
    forwarded = [part.strip() for value in headers.getlist("x-forwarded-for") for part in value.split(",")]
    if forwarded_hops > 0:
        return _plain(forwarded[-forwarded_hops]) if len(forwarded) >= forwarded_hops else None
    if forwarded:
        return None
    client = scope.get("client")
    return _plain(str(client[0])) if client else None


def _plain(text: str) -> str | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        mapped: IPv4Address | None = address.ipv4_mapped
        if mapped is None:
            network = int(address) >> (128 - _IPV6_NETWORK_BITS)
            return None if address.is_loopback else f"{network:x}/{_IPV6_NETWORK_BITS}"
        address = mapped
    return None if address.is_loopback else str(address)
