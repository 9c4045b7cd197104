"""The gate: one pure ASGI layer in front of everything. Hosts, origins, keys, limits, request ids, the access log."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from contextlib import suppress
from logging import DEBUG, INFO
from typing import TYPE_CHECKING, Any

from engine import log
from engine.errors import Draining, SgdiffError
from engine.jobs.job import new_id
from engine.profiler import monotonic
from sgdiff_app.options import MB
from sgdiff_app.server import errors, login
from sgdiff_app.server.access import OPEN, key_of
from sgdiff_app.server.errors import ApiError
from sgdiff_app.server.origins import Headers, origins_of
from sgdiff_app.server.request_log import request_id

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from sgdiff_app.server.service import Service

logger = log.get(__name__)

READING = ("GET", "HEAD", "OPTIONS")  # methods that change nothing
METHODS = (*READING, "POST", "PATCH", "PUT", "DELETE")
PAGE = "sgdiff.page"  # in the scope of what the page asks
CANCEL = "/cancel"  # helps a server that is about to end
PATIENCE_S, SLOWEST = 60.0, 1000  # a body may take so many seconds, and one more for so many bytes
LINGER_S = 10.0  # so long a body that is too large is read and thrown away: until then nobody listens to an answer


class Gate:
    """Wraps an application. It buffers nothing, and passes everything on that it does not refuse."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        options = service.options
        self.app, self.service = app, service
        self.access, self.origins = service.access, origins_of(options)
        self.root = "/" + options.root_path.strip("/") if options.root_path.strip("/") else ""
        self.longest = options.max_body_mb * MB
        self.unlogged = tuple(options.uvicorn_access_log_exclude_prefixes or ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "http":
            scope["root_path"] = self.root
            await Exchange(self, scope, receive, send).run()
        elif scope["type"] == "websocket":  # there are none, and no check of this gate would hold for one
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self.app(scope, receive, send)

    def path(self, scope: Scope) -> str:
        """Return the path of a route, whether or not a proxy has left its prefix on."""
        path: str = scope["path"]
        return path.removeprefix(self.root) if path.startswith(f"{self.root}/") else path


class Exchange:
    """One request and its answer."""

    __slots__ = ("began", "gate", "headers", "host", "id", "inner", "method", "origin", "outer", "path", "received",
                 "scope", "status", "waited", "whole")  # fmt: skip

    def __init__(self, gate: Gate, scope: Scope, receive: Receive, send: Send) -> None:
        self.gate, self.scope, self.inner, self.outer = gate, scope, receive, send
        self.id, self.began = new_id("req"), monotonic()
        self.method, self.path = scope["method"], gate.path(scope)
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.host = self.headers.get(b"host", b"").decode("latin-1")
        self.origin = self.headers.get(b"origin", b"").decode("latin-1")
        self.status = self.received = 0
        self.waited, self.whole = 0.0, False  # for the body, and whether it is there

    async def run(self) -> None:
        """Have the request answered, and note how."""
        mark = request_id.set(self.id)
        try:
            await self.check()
            if self.is_preflight():
                await self.answer_preflight()
            else:
                await self.check_length()
                await self.gate.app(self.scope, self.receive, self.send)
        except SgdiffError as error:
            self.scope["error_code"] = errors.code_of(error)
            answer = errors.response(error, self.path)
            if self.goes_to_login(error):
                query = self.scope.get("query_string", b"").decode("latin-1")
                answer = login.asks(self.gate.root, self.target(), query)
            await answer(self.scope, self.inner, self.send)
        except Exception as error:
            if not self.status:  # else the application has answered and told of it
                logger.error("%s %s %s failed", self.id, self.method, self.target(), exc_info=error)
                await errors.response(errors.unexplained(), self.path)(self.scope, self.inner, self.send)
        finally:
            request_id.reset(mark)
            self.note()

    # What is refused

    def is_preflight(self) -> bool:
        """Say whether a browser asks what a page of another origin may do."""
        return self.method == "OPTIONS" and bool(self.origin) and b"access-control-request-method" in self.headers

    async def check(self) -> None:
        """Raise what a request is refused with, before anything of its body is read."""
        gate = self.gate
        if not gate.origins.accepts(self.host):
            message = "the Host header names another server; --allowed-hosts lists the names that are answered"
            raise ApiError(403, "host_not_allowed", message)
        changing = self.method not in READING or self.is_preflight()
        if changing and self.origin and not gate.origins.trusts(self.origin, self.host):
            message = "pages of this origin may not send requests here; --cors-origins lists those that may"
            raise ApiError(403, "origin_not_allowed", message)
        if not self.is_preflight():
            await self.check_key()
        if self.method == "POST" and gate.service.queue.draining and not self.path.endswith(CANCEL):
            raise Draining("the server is being stopped and takes no new requests")

    async def check_key(self) -> None:
        """Raise ApiError when a request proves no key, or only by a cookie that a page of somebody else may have used.

        Whoever lists an origin lets its pages use keys, not the login of whoever looks at them.
        """
        proof = self.gate.access.proof(self.path, self.headers, self.scope.get("query_string", b""))
        if proof is None:
            await self.slow_down()
            message = "a valid API key is required, as 'Authorization: Bearer KEY'"
            raise ApiError(401, "invalid_api_key", message, headers={"www-authenticate": "Bearer"})
        if proof == "cookie" and self.method not in READING and not self.is_own_page():
            message = "only the pages of this server may use its login; others send 'Authorization: Bearer KEY'"
            raise ApiError(403, "origin_not_allowed", message)

    async def slow_down(self) -> None:
        """Keep who sends a wrong key waiting. Raises ApiError when there were many; without a key there is no guess."""
        if key_of(self.headers) is None:
            return
        host, _ = self.scope.get("client") or ("", 0)
        seconds = await self.gate.access.tries.wrong(host)
        if seconds:
            headers = {"retry-after": str(int(seconds) + 1), **errors.NEVER_AGAIN}
            raise ApiError(429, "too_many_wrong_keys", "too many wrong API keys came from this address", None, headers)

    def is_own_page(self) -> bool:
        """Say whether a page of this server has sent a request, or no page has."""
        if self.origin:
            return self.gate.origins.is_own(self.origin, self.host)
        return self.headers.get(b"sec-fetch-site", b"none") in (b"same-origin", b"none")

    def goes_to_login(self, error: SgdiffError) -> bool:
        """Say whether a person is to be asked for a key: a browser wants to show a page and has none."""
        wants = self.headers.get(b"sec-fetch-mode", b"navigate") == b"navigate"
        pages = b"text/html" in self.headers.get(b"accept", b"")
        return error.code == "invalid_api_key" and self.method in ("GET", "HEAD") and wants and pages

    async def check_length(self) -> None:
        """Refuse a body whose stated length is too large; one that lies is counted as it comes."""
        length = self.headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self.gate.longest:
            if b"expect" not in self.headers:  # else the client waits for leave to send
                await self.discard()
            raise self.too_large()

    def too_large(self) -> ApiError:
        """Return the error of a body that is too large; the connection ends with it."""
        message = f"the body is larger than {self.gate.longest // MB} MB, the most that --max-body-mb allows"
        return ApiError(413, "body_too_large", message, headers={"connection": "close"})

    async def discard(self) -> None:
        """Read on for a while and keep nothing, so that a client that is still sending comes to hear the answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while (await self.inner()).get("more_body"):
                    pass

    # What passes

    async def receive(self) -> Message:
        """Pass on what comes, and count it. Raises ApiError once it is too much, or too slow."""
        message = await (self.inner() if self.whole else self.in_time())
        if message["type"] == "http.request":
            self.whole = not message.get("more_body")
            self.received += len(message.get("body", b""))
            if self.received > self.gate.longest:
                if message.get("more_body"):
                    await self.discard()
                raise self.too_large()
        return message

    async def in_time(self) -> Message:
        """Return the next part of the body. Raises ApiError when that takes too long; the connection ends with it."""
        began, allowed = monotonic(), PATIENCE_S + self.received / SLOWEST
        try:
            async with asyncio.timeout(allowed - self.waited):
                return await self.inner()
        except TimeoutError as error:
            message = f"the body did not come in time: {self.received} bytes in {allowed:.0f} s"
            raise ApiError(400, "body_too_slow", message, headers={"connection": "close"}) from error
        finally:
            self.waited += monotonic() - began

    async def send(self, message: Message) -> None:
        """Pass the answer on, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self.extra(message)]
        await self.outer(message)

    def extra(self, message: MutableMapping[str, Any]) -> Headers:
        """Return the headers that an answer lacks."""
        more: Headers = [(b"x-request-id", self.id.encode())]
        given = dict(message.get("headers", ()))
        if b"cache-control" not in given and given.get(b"content-type", b"").startswith(b"application/json"):
            more.append((b"cache-control", b"no-store"))
        if self.origin and b"access-control-allow-origin" not in given and self.gate.origins.shares(self.origin):
            more += self.gate.origins.headers(self.origin)
        return more

    async def answer_preflight(self) -> None:
        """Tell a page what it may send."""
        wanted = self.headers.get(b"access-control-request-headers")
        headers = self.gate.origins.preflight(self.origin, wanted) if self.gate.origins.shares(self.origin) else []
        await self.send({"type": "http.response.start", "status": 204, "headers": headers})
        await self.send({"type": "http.response.body", "body": b""})

    # What is told

    def target(self) -> str:
        """Return the path as it was sent: escaped, and without the query, which may hold a signature."""
        raw: bytes = self.scope.get("raw_path") or self.scope["path"].encode("ascii", "backslashreplace")
        return raw.partition(b"?")[0].decode("latin-1")

    def note(self) -> None:
        """Write the line of the access log, and count the request."""
        status = self.status or errors.CLIENT_GONE
        metrics = self.gate.service.metrics
        if metrics is not None:
            route = getattr(self.scope.get("route"), "path", "none")
            metrics.answered(route, self.method if self.method in METHODS else "other", status)
        # Probes and pages ask all the time; what goes wrong for a page is told.
        usual = (self.path in OPEN and self.method in READING) or (PAGE in self.scope and status < 400)
        level = DEBUG if usual else INFO
        if not logger.isEnabledFor(level) or (self.gate.unlogged and self.path.startswith(self.gate.unlogged)):
            return
        code = "cancelled" if status == errors.CLIENT_GONE else self.scope.get("error_code", "")
        took = (monotonic() - self.began) * 1000
        logger.log(
            level, "%s %s %d%s in %.0f ms, %s", self.method, self.target(), status, code and f" {code}", took, self.id
        )
