"""A reverse proxy for tests: serves another server below a prefix, which it takes off, as nginx would."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

HOP = ("connection", "keep-alive", "transfer-encoding", "content-length")
METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]


class Proxy:
    """Listens on a free port. What is not below the prefix is not there, and is noted in `missed`."""

    def __init__(self, target: str, prefix: str) -> None:
        self.target, self.prefix, self.url, self.missed = target, prefix, "", list[str]()
        app = Starlette(routes=[Route("/{path:path}", self.forward, methods=METHODS)], lifespan=self.life)
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1))
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve()), daemon=True)

    def __enter__(self) -> str:
        self.thread.start()
        while not self.server.started:
            self.thread.join(0.01)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}{self.prefix}"
        return self.url

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.server.should_exit = True
        self.thread.join(10)

    @asynccontextmanager
    async def life(self, app: Starlette) -> AsyncIterator[None]:
        """Have a client as long as the proxy listens."""
        async with httpx.AsyncClient(timeout=None) as self.client:
            yield

    async def forward(self, http: Request) -> Response:
        """Pass a request on, and the answer back as it comes."""
        path = http.scope["raw_path"].decode()
        if not path.startswith(f"{self.prefix}/"):
            self.missed.append(path)
            return Response(status_code=404)
        query = http.scope["query_string"].decode()
        url = self.target + path.removeprefix(self.prefix) + (f"?{query}" if query else "")
        headers = [(name, value) for name, value in http.headers.raw if name.decode() not in HOP]
        asked = self.client.build_request(http.method, url, headers=headers, content=await http.body())
        answer = await self.client.send(asked, stream=True)

        async def parts() -> AsyncIterator[bytes]:
            async for part in answer.aiter_raw():
                yield part

        passed = StreamingResponse(parts(), answer.status_code, background=BackgroundTask(answer.aclose))
        passed.raw_headers = [pair for pair in answer.headers.raw if pair[0].lower() != b"transfer-encoding"]
        return passed
