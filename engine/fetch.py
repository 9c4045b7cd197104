"""What is at an http(s) URL: from public addresses only, over checked connections, bounded in time and size."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, TypeVar
from urllib.parse import urljoin

import certifi

from engine.errors import InputError, OutputError
from engine.urls import PORTS, InvalidURLError, Target, is_public, parse, shown

REDIRECTS = (301, 302, 303, 307, 308)
CHUNK = 65536
Socket = TypeVar("Socket", bound=socket.socket)
T = TypeVar("T")
AGENT = "sgdiff-app"


def trust() -> ssl.SSLContext:
    """Trust the authorities that this system trusts; where it knows none, those of the certifi package."""
    context, paths = ssl.create_default_context(), ssl.get_default_verify_paths()
    if not (context.cert_store_stats()["x509_ca"] or (paths.capath and any(Path(paths.capath).iterdir()))):
        context.load_verify_locations(certifi.where())
    return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How far a download may go. `allow_hosts` are exempt from the rules for addresses and ports."""

    allow_hosts: tuple[str, ...] = ()
    max_bytes: int = 50_000_000
    connect_s: float = 10.0  # to connect, and for each wait for more bytes
    total_s: float = 30.0  # redirects and further tries included
    redirects: int = 3
    tries: int = 3
    pause_s: float = 0.5  # before the second try; doubled before each further one
    resolver: Callable[..., list[Any]] = socket.getaddrinfo
    trust: Callable[[], ssl.SSLContext] = trust

    def allows(self, host: str) -> bool:
        return host in {entry.lower().strip("[]").rstrip(".") for entry in self.allow_hosts}


DEFAULT = Rules()


def fetch(url: str, rules: Rules | None = None, field: str = "image_path") -> bytes:
    """Return what lies at a URL. Raises InputError: `invalid_url` or `image_fetch_failed`, with no address in it."""
    rules = rules or DEFAULT
    try:
        target = parse(url)
    except InvalidURLError as error:
        raise InputError(f"{field}: {shown(url)}: {error}", code="invalid_url", param=field) from None
    download = _Download(rules)
    try:
        return _in_time(download, lambda: download.run(target))
    except TimeoutError:
        raise failure(url, f"took longer than {rules.total_s:g} s", field) from None
    except _FailedError as error:
        raise failure(url, str(error), field) from error.__cause__


def post(url: str, body: bytes, headers: Mapping[str, str], rules: Rules | None = None) -> int:
    """Send a body to a URL, once, and return the status of the answer; a redirect is not followed.

    Raises OutputError when there is no answer in time or the address is not allowed.
    """
    rules = rules or DEFAULT
    exchange = _Exchange(rules)

    def send(target: Target) -> int:
        with exchange.ask(target, "POST", headers, body) as response:
            return response.status

    try:
        target = parse(url)
        return _in_time(exchange, lambda: send(target))
    except TimeoutError:
        raise OutputError(f"{shown(url)}: took longer than {rules.total_s:g} s") from None
    except (InvalidURLError, _FailedError) as error:
        raise OutputError(f"{shown(url)}: {error}") from error.__cause__


def _in_time(exchange: _Exchange, work: Callable[[], T]) -> T:
    """Return what `work` returns. Raises TimeoutError when it takes longer than the rules allow."""
    # In a thread of its own: neither a name server nor a server that sends byte by byte can hold the caller longer.
    pool = ThreadPoolExecutor(1, "fetch")
    try:
        return pool.submit(work).result(exchange.rules.total_s)
    finally:
        exchange.end()
        pool.shutdown(wait=False)


def failure(url: str, problem: str, field: str = "image_path") -> InputError:
    """Return the error of a URL that gives no image."""
    text = f"Failed to process image source: {shown(url)}: {problem}"
    return InputError(text, code="image_fetch_failed", param=field)


class _FailedError(Exception):
    """A download that went wrong; worth another try when it is transient."""

    def __init__(self, problem: str, transient: bool = False) -> None:
        super().__init__(problem)
        self.transient = transient


class _Exchange:
    """Requests to checked addresses, which `end` stops from another thread."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.ended = Event()
        self.socket: socket.socket | None = None

    def end(self) -> None:
        """Stop whatever waits for the network."""
        self.ended.set()
        held = self.socket
        if held is not None:
            with suppress(OSError):
                socket.socket.shutdown(held, socket.SHUT_RDWR)  # the class's own, past TLS that may be half made

    @contextmanager
    def ask(
        self, target: Target, method: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Give the answer to one request. Raises _FailedError, also for what goes wrong while it is read."""
        connection = http.client.HTTPConnection(target.host, target.port)
        connection.auto_open = 0  # never by itself: it would look the name up again
        try:
            connection.sock = self._connect(target)
            always = {"Host": target.authority, "User-Agent": AGENT, "Connection": "close"}
            connection.request(method, target.path, body, {**headers, **always})
            with connection.getresponse() as response:
                yield response
        except TimeoutError as error:
            raise _FailedError("the server does not answer in time", transient=True) from error
        except ssl.SSLCertVerificationError as error:
            raise _FailedError("its certificate is not one to trust for this host") from error
        except http.client.IncompleteRead as error:
            raise _FailedError("the connection was lost half way", transient=True) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _FailedError("the connection failed") from error
        finally:
            connection.close()

    def _connect(self, target: Target) -> socket.socket:
        """Return a connection to an address of the host, all of which have been checked."""
        problem = OSError("no address")
        for family, address in self._addresses(target):
            plain = self._hold(socket.socket(family, socket.SOCK_STREAM))
            try:
                plain.settimeout(self.rules.connect_s)
                plain.connect(address)
            except OSError as error:  # the next address may answer
                plain.close()
                problem = error
                continue
            return plain if target.scheme == "http" else self._secured(plain, target.host)
        raise problem

    def _secured(self, plain: socket.socket, host: str) -> socket.socket:
        context = self.rules.trust()
        secured = self._hold(context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False))
        try:
            secured.do_handshake()
        except OSError:
            secured.close()
            raise
        return secured

    def _hold(self, made: Socket) -> Socket:
        """Keep a socket where `end` finds it."""
        self.socket = made
        if self.ended.is_set():
            made.close()
            raise TimeoutError
        return made

    def _addresses(self, target: Target) -> list[tuple[int, Any]]:
        """Look the host up, once. Raises _FailedError unless every one of its addresses may be connected to."""
        free = self.rules.allows(target.host)
        if not free and target.port not in PORTS.values():
            raise _FailedError("only the ports 80 and 443 are allowed")
        try:
            found = self.rules.resolver(target.host, target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise _FailedError("its host cannot be found") from None
        if not found or not (free or all(is_public(str(entry[4][0])) for entry in found)):
            raise _FailedError("its host is not on the public internet")
        return [(entry[0], entry[4]) for entry in found]


class _Download(_Exchange):
    """One download with its further tries."""

    def run(self, target: Target) -> bytes:
        """Return the bytes. Raises _FailedError."""
        for number in range(1, self.rules.tries + 1):
            try:
                return self._follow(target)
            except _FailedError as error:
                last = not error.transient or number == self.rules.tries
                if last or self.ended.wait(self.rules.pause_s * 2 ** (number - 1)):
                    raise
        raise AssertionError("the last try returns or raises")

    def _follow(self, target: Target) -> bytes:
        for _ in range(self.rules.redirects + 1):
            answer = self._get(target)
            if isinstance(answer, bytes):
                return answer
            try:
                target = parse(urljoin(target.url, answer))
            except (InvalidURLError, ValueError):
                raise _FailedError("is redirected to what is no http(s) URL") from None
        raise _FailedError(f"is redirected more than {self.rules.redirects} times")

    def _get(self, target: Target) -> bytes | str:
        """Return the bytes at a URL, or where else they are."""
        with self.ask(target, "GET", {"Accept": "image/*", "Accept-Encoding": "identity"}) as response:
            return self._read(response)

    def _read(self, response: http.client.HTTPResponse) -> bytes | str:
        status, location = response.status, response.getheader("Location")
        if status in REDIRECTS and location:
            return location
        if status != 200:
            raise _FailedError(f"the server answered {status}", transient=status == 429 or status >= 500)
        bound, data = self.rules.max_bytes, bytearray()
        too_large = _FailedError(f"is larger than {bound / 1e6:g} MB")
        if (response.length or 0) > bound:
            raise too_large
        while chunk := response.read1(CHUNK):
            data += chunk
            if len(data) > bound:
                raise too_large
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        return bytes(data)
