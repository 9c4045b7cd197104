"""Who may ask: the keys of the server, logins of browsers, and signed links to content that expire."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs

from engine.errors import UsageError
from engine.profiler import wall
from sgdiff_app.options import ServerOptions
from sgdiff_app.server.tries import Tries

OPEN = ("/health", "/ready", "/liveness", "/health_generate")  # for probes, which have no key
# For browsers: the way in, and what describes the page to those that install it, which they fetch without cookies.
PUBLIC = ("/login", "/logout", "/manifest.json", "/pwa_icon", "/pwa_icon/192", "/pwa_icon/512")
CONTENT = "/content"  # how the paths end that a browser may fetch by a signed link
TOKEN = re.compile(r"([0-9]{1,12})\.([0-9a-f]{64})")
COOKIE = "sgdiff_login"  # and the port, as servers of one machine share its cookies
LOGIN_S = 30 * 24 * 3600  # so long a browser stays logged in, unless the server ends before

Proof = Literal["open", "key", "link", "cookie"]


class Access:
    """The keys that are accepted; without one everybody is let in.

    Signatures are made with a secret of this process, not with a key: a link or a cookie tells nothing about the keys,
    and none outlives the server.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self.digests = tuple(_digest(key.encode()) for key in keys)
        self.secret = secrets.token_bytes(32)
        self.tries = Tries()
        self.ended: dict[str, int] = {}  # logins that were ended before their time, and when that will be

    def proof(self, path: str, headers: Mapping[bytes, bytes], query: bytes = b"") -> Proof | None:
        """Say by what a request may pass; None if it may not. `path` is that of the route, without a proxy's prefix."""
        if not self.digests or path in OPEN or path in PUBLIC:
            return "open"
        key = key_of(headers)
        if key is not None and self.knows(key):
            return "key"
        if path.endswith(CONTENT) and query:
            tokens = parse_qs(query.decode("latin-1")).get("token", ())
            if any(self.signed(path, token) for token in tokens):
                return "link"
        return "cookie" if any(self.holds(token) for token in logins_of(headers)) else None

    def knows(self, key: bytes) -> bool:
        """Compare with every key, in a time that tells nothing about them."""
        digest = _digest(key)
        return sum(hmac.compare_digest(digest, known) for known in self.digests) > 0

    def sign(self, path: str, seconds: float) -> str:
        """Return a `token` that opens one content path for so many seconds."""
        expires = str(int(wall() + seconds))
        return f"{expires}.{self._signature(path, expires)}"

    def signed(self, path: str, token: str) -> bool:
        """Say whether a token is for this path and still holds."""
        found = TOKEN.fullmatch(token)
        if found is None or int(found[1]) < wall():
            return False
        return hmac.compare_digest(self._signature(path, found[1]), found[2])

    def log_in(self) -> str:
        """Return the value of a cookie that stands for a key."""
        name = secrets.token_hex(16)
        return f"{name}.{self.sign(_login(name), LOGIN_S)}"

    def holds(self, login: str) -> bool:
        """Say whether a cookie is of a login to this process that was not ended."""
        name, _, token = login.partition(".")
        return login not in self.ended and self.signed(_login(name), token)

    def log_out(self, login: str) -> None:
        """End a login, also for whoever has copied its cookie."""
        if self.holds(login):
            now = wall()
            self.ended = {one: until for one, until in self.ended.items() if until >= now}
            self.ended[login] = int(login.split(".")[1])

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self.secret, f"{expires}\n{path}".encode(), hashlib.sha256).hexdigest()


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _login(name: str) -> str:
    """Return what is signed for a login; no path of a route begins so."""
    return f"login {name}"


def key_of(headers: Mapping[bytes, bytes]) -> bytes | None:
    """Return the key that a request was sent with, right or wrong; None for a request without one."""
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else None


def logins_of(headers: Mapping[bytes, bytes]) -> list[str]:
    """Return the values of the login cookies that a browser has sent, valid or not."""
    pairs = (pair.strip().partition("=") for pair in headers.get(b"cookie", b"").decode("latin-1").split(";"))
    return [value for name, _, value in pairs if name.startswith(COOKIE)]


def keys_of(options: ServerOptions) -> tuple[str, ...]:
    """Return the keys of the setting and of the file. Raises UsageError, also for a file that holds none."""
    keys = [key.strip() for key in options.api_key or ()]
    where = "api_key"
    if options.api_key_file is not None:
        where = "api_key_file"
        try:
            lines = Path(options.api_key_file).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, RuntimeError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text file"
            raise UsageError(f"{where}: {options.api_key_file}: {reason}", param=where) from error
        found = [line.strip() for line in lines if line.strip()]
        if not found:
            raise UsageError(f"{where}: {options.api_key_file}: holds no key; one is expected per line", param=where)
        keys += found
    if any(re.fullmatch(r"[!-~]+", key) is None for key in keys):  # the message never shows one
        raise UsageError(f"{where}: a key must consist of printable ASCII characters without spaces", param=where)
    return tuple(dict.fromkeys(keys))
