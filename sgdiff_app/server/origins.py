"""Which Host headers are answered, which pages may change something here, and which may read the answers."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from engine.errors import UsageError
from sgdiff_app.options import ServerOptions

ANY = "*"
LOOPBACK = "localhost"
WILDCARDS = ("0.0.0.0", "::", "")  # these mean every address
DEFAULT_PORTS = {"http": "80", "https": "443"}
HOST = re.compile(r"(\[[0-9a-f:.%]+\]|[^\[\]:/@?#\s]+)(?::([0-9]{1,5}))?")
EXPOSED = b"x-request-id, openai-poll-after-ms, retry-after, retry-after-ms, x-should-retry, content-disposition"

Headers = list[tuple[bytes, bytes]]


def split_host(header: str) -> tuple[str, str]:
    """Return name and port of a Host header, the port empty where none is given; two empty texts when it is none."""
    found = HOST.fullmatch(header.lower())
    return (found[1].strip("[]").removesuffix("."), found[2] or "") if found is not None else ("", "")


def address_of(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a name spells out."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def is_loopback(name: str) -> bool:
    """Say whether a name means this machine to itself alone."""
    address = address_of(name)
    return name == LOOPBACK if address is None else address.is_loopback


@dataclass(frozen=True, slots=True)
class Origins:
    """Names under which the server is asked for, and origins that share it; `*` stands for all.

    A name of loopback is always accepted: it cannot be made to mean another machine. Bound to every address, the
    server accepts every address as its name, for the same reason: a page that wants to reach it under a name of its
    own needs a name.
    """

    hosts: frozenset[str]
    every_address: bool = False
    shared: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()  # origins of ours that no Host header shows: behind a proxy

    def accepts(self, header: str) -> bool:
        """Say whether a Host header names this server."""
        name, _ = split_host(header)
        if not name:
            return False
        if name in self.hosts or ANY in self.hosts or is_loopback(name):
            return True
        if self.every_address and address_of(name) is not None:
            return True
        _, dot, parent = name.partition(".")
        return bool(dot) and f"*.{parent}" in self.hosts

    def trusts(self, origin: str, host: str) -> bool:
        """Say whether a page of this origin may change something: one of ours, or one that is listed."""
        return self.shares(origin) or self.is_own(origin, host)

    def is_own(self, origin: str, host: str) -> bool:
        """Say whether a page of this origin is one of this server."""
        return _plain(origin) in self.own or _same(origin, host)

    def shares(self, origin: str) -> bool:
        """Say whether a page of this origin may read answers."""
        return ANY in self.shared or _plain(origin) in self.shared

    def headers(self, origin: str) -> Headers:
        """Return the CORS headers of an answer to a page that may read it."""
        if ANY in self.shared:
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", EXPOSED)]
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", EXPOSED),
            (b"vary", b"origin"),
        ]

    def preflight(self, origin: str, wanted: bytes | None) -> Headers:
        """Return the headers of the answer to a preflight; `wanted` are the headers that it asks for."""
        return [
            *self.headers(origin),
            (b"access-control-allow-methods", b"GET, HEAD, POST, PATCH, DELETE"),
            *([(b"access-control-allow-headers", wanted)] if wanted else []),
            (b"access-control-max-age", b"600"),
        ]


def origins_of(options: ServerOptions) -> Origins:
    """Return the rules that the settings ask for. Raises UsageError."""
    hosts = [_name(host) for host in options.allowed_hosts or ()]
    own = options.public_base_url
    if own is not None:
        hosts.append(split_host(urlsplit(own).netloc)[0])
    bound = options.host.strip("[]").lower()
    every = bound in WILDCARDS and options.allowed_hosts is None
    origins = frozenset(_listed(origin) for origin in options.cors_origins or ())
    return Origins(frozenset({*hosts, bound} - {""}), every, origins, frozenset({_plain(own)} if own else ()))


def _name(text: str) -> str:
    """Return an entry of --allowed-hosts as it is compared: without a port."""
    name, _ = split_host(text)
    if not name:
        raise UsageError(
            f"allowed_hosts: must be a host name such as example.com, *.example.com or *, got '{text}'",
            param="allowed_hosts",
        )
    return name


def _listed(origin: str) -> str:
    if origin == ANY:
        return ANY
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#@\s]+", origin) is None:
        message = f"cors_origins: must be an origin such as https://example.com, without a path, or *, got '{origin}'"
        raise UsageError(message, param="cors_origins")
    return _plain(origin)


def _plain(origin: str) -> str:
    """Return the origin of a URL as browsers send it: lower case, without the port that goes without saying."""
    scheme, _, rest = origin.lower().partition("://")
    place = rest.partition("/")[0]
    return f"{scheme}://{place.removesuffix(':' + DEFAULT_PORTS.get(scheme, '-'))}"


def _same(origin: str, host: str) -> bool:
    """Compare an origin with the Host header; behind a proxy that does TLS only the port tells the two apart."""
    scheme, mark, rest = origin.lower().partition("://")
    if not mark or scheme not in DEFAULT_PORTS:
        return False
    name, port = split_host(rest)
    own, own_port = split_host(host)
    default = DEFAULT_PORTS[scheme]
    return bool(name) and name == own and (port or default) == (own_port or default)
