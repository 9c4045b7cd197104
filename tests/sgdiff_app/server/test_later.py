"""An application that is built while the server listens: what waits for it, how it starts, fails and ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, MutableMapping
from concurrent import futures
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from sgdiff_app.server.later import Later

WAIT_S = 20


class Slow:
    """What builds an application, as soon as it may, and notes its life."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.go, self.error, self.told = threading.Event(), error, list[str]()

    def build(self) -> FastAPI:
        assert self.go.wait(WAIT_S)
        self.told.append("main thread" if threading.current_thread() is threading.main_thread() else "built")
        if self.error:
            raise self.error
        app = FastAPI(lifespan=self.life)

        async def hello(http: Request) -> PlainTextResponse:
            return PlainTextResponse("hello")

        app.add_route("/", hello)
        return app

    @asynccontextmanager
    async def life(self, app: FastAPI) -> AsyncIterator[None]:
        self.told.append("begins")
        task = asyncio.current_task()
        yield
        self.told.append("ends" if asyncio.current_task() is task else "ends in another task")


class Served:
    """The side of the server."""

    def __init__(self, slow: Slow) -> None:
        self.later = Later(slow.build)
        self.said: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self.heard: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self.task = asyncio.create_task(self.later({"type": "lifespan"}, self.said.get, self.heard.put))

    async def tell(self, what: str) -> str:
        """Tell the application that the server starts or stops; return what it answers."""
        await self.said.put({"type": f"lifespan.{what}"})
        return str((await asyncio.wait_for(self.heard.get(), WAIT_S))["type"])


async def ask(later: Later) -> bytes:
    got = bytearray()

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        got.extend(message.get("body", b""))

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    await asyncio.wait_for(later(scope, receive, send), WAIT_S)
    return bytes(got)


def test_the_server_starts_at_once_and_requests_wait() -> None:
    async def run() -> None:
        slow = Slow()
        served = Served(slow)
        assert await served.tell("startup") == "lifespan.startup.complete"
        waiting = [asyncio.create_task(ask(served.later)) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert not any(one.done() for one in waiting) and slow.told == []
        waiting[0].cancel()  # its client has left
        with suppress(asyncio.CancelledError):
            await waiting[0]
        slow.go.set()
        assert await asyncio.gather(*waiting[1:]) == [b"hello", b"hello"]
        assert await ask(served.later) == b"hello"
        assert slow.told == ["built", "begins"]
        assert await served.tell("shutdown") == "lifespan.shutdown.complete"
        assert slow.told == ["built", "begins", "ends"]
        await served.task

    asyncio.run(run())


def test_a_server_that_ends_before_waits_for_the_thread() -> None:
    async def run() -> None:
        slow = Slow()
        served = Served(slow)
        await served.tell("startup")
        ending = asyncio.create_task(served.tell("shutdown"))
        await asyncio.sleep(0.05)
        assert not ending.done()
        slow.go.set()
        assert await ending == "lifespan.shutdown.complete"
        assert slow.told == ["built", "begins", "ends"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("error", "told", "words"),
    [
        (ImportError("a part is missing"), ImportError, "a part is missing"),
        (StopIteration(3), RuntimeError, r"StopIteration\(3\)"),
        (SystemExit(2), RuntimeError, r"SystemExit\(2\)"),
        (KeyboardInterrupt(), RuntimeError, "KeyboardInterrupt"),
        (asyncio.CancelledError(), RuntimeError, "CancelledError"),
        (futures.CancelledError(), RuntimeError, "CancelledError"),
    ],
)
def test_an_application_that_cannot_be_built_fails_requests_and_nothing_else(
    error: BaseException, told: type[Exception], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        slow = Slow(error)
        slow.go.set()
        served = Served(slow)
        await served.tell("startup")
        for _ in range(2):
            with pytest.raises(told, match=words):
                await ask(served.later)
        assert await served.tell("shutdown") == "lifespan.shutdown.complete"

    asyncio.run(run())
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage() == "the page cannot be shown" and record.exc_info


def test_a_server_without_a_lifespan_builds_with_the_first_request() -> None:
    async def run() -> None:
        slow = Slow()
        slow.go.set()
        later = Later(slow.build)
        assert await ask(later) == b"hello"
        await later.end()

    asyncio.run(run())
