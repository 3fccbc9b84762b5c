"""Which addresses on the network a tool server may have that the operator has not declared private.

Refused is whatever is not plainly a host on the public internet: private, loopback, link-local, shared, multicast,
reserved and documentation networks, the metadata services of clouds, and every IPv6 form that carries an IPv4 address, since
a router on the way may take it out again.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_V4 = {
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared by a carrier",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "a cloud's metadata service",
    "169.254.0.0/16": "link-local, where clouds have their metadata services",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "reserved",
    "192.0.2.0/24": "for documentation",
    "192.88.99.0/24": "a relay",
    "192.168.0.0/16": "private",
    "198.18.0.0/15": "for benchmarks",
    "198.51.100.0/24": "for documentation",
    "203.0.113.0/24": "for documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
}
_V6 = {
    "::/96": "loopback, unspecified or an IPv4 address in disguise",
    "::ffff:0:0/96": "an IPv4 address in disguise",
    "::ffff:0:0:0/96": "an IPv4 address in disguise",
    "64:ff9b::/96": "an IPv4 address in disguise",
    "64:ff9b:1::/48": "an IPv4 address in disguise",
    "100::/64": "discarded",
    "2001::/23": "reserved, or an IPv4 address in disguise",
    "2001:db8::/32": "for documentation",
    "2002::/16": "an IPv4 address in disguise",
    "3fff::/20": "for documentation",
    "fc00::/7": "private",
    "fe80::/10": "link-local",
    "fec0::/10": "site-local",
    "ff00::/8": "multicast",
}
_V4_NETWORKS = tuple((IPv4Network(network), kind) for network, kind in _V4.items())
_V6_NETWORKS = tuple((IPv6Network(network), kind) for network, kind in _V6.items())
_V6_GLOBAL = IPv6Network("2000::/3")
_ISATAP = {0x0000_5EFE, 0x0200_5EFE}

_HOST_NAME = re.compile(r"(?!.*\.\.)[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?\.?")
_LIKE_A_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+))*\.?")


def refusal(address: str) -> str | None:
    """Why a connection to this address (as a resolver gives it) is refused, in a word or two; None where it is not."""
    if "%" in address:
        return "bound to one interface"
    try:
        parsed = ip_address(address)
    except ValueError:
        return "not an address"
    return _refusal_of_v4(parsed) if isinstance(parsed, IPv4Address) else _refusal_of_v6(parsed)


def host_problem(host: str) -> str | None:
    """What is wrong with a host as it is written in an address, before anything is resolved.

    Names, and addresses in their usual spelling, are fine; their addresses are another matter.
    """
    plain = host.lower().removeprefix("[").removesuffix("]")
    if not plain or len(plain) > 253:
        return "it is empty or too long"
    if "%" in plain:
        return "it is bound to one interface"
    if ":" in plain:
        return None if _is_address(plain) else "it is no address"
    if _LIKE_A_NUMBER.fullmatch(plain):
        return None if _is_address(plain) else "it is an unusual spelling of an address"
    return None if _HOST_NAME.fullmatch(plain) else "it holds characters that a host's name cannot have"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _refusal_of_v4(address: IPv4Address) -> str | None:
    for network, kind in _V4_NETWORKS:
        if address in network:
            return kind
    return None if address.is_global else "reserved"


def _refusal_of_v6(address: IPv6Address) -> str | None:
    for network, kind in _V6_NETWORKS:
        if address in network:
            return kind
    if (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        return "an IPv4 address in disguise"
    return None if address in _V6_GLOBAL and address.is_global else "reserved"
