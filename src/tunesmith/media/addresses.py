"""Which addresses somebody else may send us to: each is read once, and every IP of its host has to be public."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

from tunesmith.core.errors import DataError, Problem

__all__ = ["Address", "Target", "is_public", "read_target", "refused"]

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_URL = re.compile(r"[!-~]{1,4096}")
_LABEL = r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_PORTS = {"https": 443, "http": 80}

# Networks in whose addresses one of IPv4 is written: (network, how many bits stand behind it).
_CARRIERS = (
    (ipaddress.IPv6Network("::/96"), 0),  # IPv4-compatible
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped
    (ipaddress.IPv6Network("::ffff:0:0:0/96"), 0),  # IPv4-translated
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (ipaddress.IPv6Network("2002::/16"), 80),  # 6to4
)
# Of the others, these are never public, whatever is_global says of them.
_CLOSED = (
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # NAT64 within one site
    ipaddress.IPv6Network("2001::/32"),  # Teredo
    ipaddress.IPv6Network("fec0::/10"),  # site-local
)


@dataclass(frozen=True, slots=True)
class Target:
    """A part of an address each, as it is used: nothing reads the text of the address again."""

    scheme: str
    host: str
    port: int
    path: str
    """With the query."""

    @property
    def authority(self) -> str:
        """The Host header."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _PORTS[self.scheme] else f"{name}:{self.port}"


def refused(why: str, url: str) -> DataError:
    fix = "use an https address that everybody can reach, or send the file itself as a data: address"
    return DataError(Problem("E-MEDIA-001", f"this address is not fetched: {why}", got=url[:200], fix=fix))


def read_target(url: str) -> Target:
    """An http or https address taken apart. Only what all readers of addresses read in the same way is taken: ASCII,
    no blanks and backslashes, no user names, hosts as plain names or as IPs in their usual notation.

    Raises DataError (E-MEDIA-001).
    """
    if not _URL.fullmatch(url) or "\\" in url:
        raise refused("it has characters that do not belong into an address", url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise refused("it cannot be read", url) from None
    if parts.scheme not in _PORTS:
        raise refused(f'"{parts.scheme[:20]}" is no scheme that is fetched', url)
    if "@" in parts.netloc or not parts.netloc:
        raise refused("it has a user name, or no host", url)
    host = (parts.hostname or "").lower()
    if not _is_host(host, bracketed=parts.netloc.startswith("[")):
        raise refused("its host is neither a plain name nor an IP in its usual notation", url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, _PORTS[parts.scheme] if port is None else port, path)


def _is_host(host: str, *, bracketed: bool) -> bool:
    if bracketed:
        return _ip(host, 6)
    if not _HOST.fullmatch(host) or len(host) > 253:
        return False
    last = host.rpartition(".")[2]
    looks_like_a_number = last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last) is not None
    return _ip(host, 4) if looks_like_a_number else True


def _ip(text: str, version: int) -> bool:
    """Whether it is an IP as it is mostly written: no zone, no octal, no missing parts."""
    try:
        return "%" not in text and ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def is_public(address: Address) -> bool:
    """Whether an IP is one that everybody can reach, also where one of IPv4 is carried in one of IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        for network, bits in _CARRIERS:
            if address in network:
                return is_public(ipaddress.IPv4Address((int(address) >> bits) & 0xFFFFFFFF))
        if any(address in network for network in _CLOSED) or address.scope_id:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved
