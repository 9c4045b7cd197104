"""URLs taken apart without ambiguity, shown without secrets, and which addresses are of the public internet."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

PORTS = {"http": 80, "https": 443}
URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# Not for the public, although `ipaddress` of some Python versions calls a part of them global.
REFUSED = tuple(
    ipaddress.ip_network(text)
    for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16")
)
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart; `path` includes the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


class InvalidURLError(Exception):
    """A URL that can be none of ours."""


def is_url(source: str) -> bool:
    """Say whether an input is meant as a URL of any scheme; data URIs hold their bytes and are none."""
    return URL.match(source) is not None


def parse(url: str) -> Target:
    """Take an http(s) URL apart; what two programs could read in two ways is refused."""
    if re.search(r"[\x00-\x20\x7f\\]", url):
        raise InvalidURLError("must not hold spaces, control characters or backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidURLError("is no valid URL") from None
    scheme = parts.scheme.lower()
    if scheme not in PORTS:
        raise InvalidURLError("must be a file, an http(s) URL or a data URI of an image")
    if parts.username is not None or parts.password is not None:
        raise InvalidURLError("must not hold a user name or password")
    host = (parts.hostname or "").rstrip(".")
    with suppress(UnicodeError):
        host = host if host.isascii() else host.encode("idna").decode("ascii")
    if not host or not host.isascii() or "%" in host:
        raise InvalidURLError("names no host")
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    return Target(scheme, host, PORTS[scheme] if port is None else port, path + (f"?{query}" if query else ""))


def is_public(address: str) -> bool:
    """Say whether an address is one of the public internet, also where it carries an IPv4 address inside."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = _carried(found)
        if inner is not None:
            return is_public(str(inner))
        if found not in GLOBAL_UNICAST:
            return False
    refused = any(found in network for network in REFUSED if network.version == found.version)
    return found.is_global and not (refused or found.is_multicast or found.is_reserved)


def _carried(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address stands for."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in SIX_TO_FOUR:
        return address.sixtofour
    return ipaddress.IPv4Address(address.packed[12:]) if address in NAT64 else None


def shown(url: str) -> str:
    """Return a URL for a message: without what may be secret, a password or a signature."""
    scheme, _, rest = url.partition("://")
    place = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, path = place.partition("/")
    text = "".join(c if c.isprintable() else "?" for c in f"{scheme}://{host.rpartition('@')[2]}{slash}{path}")
    return text if len(text) <= 200 else f"{text[:197]}..."
