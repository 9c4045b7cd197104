"""An application that takes seconds to build: the server listens meanwhile and loads its model, requests wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent import futures
from typing import TYPE_CHECKING

from engine import log

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Receive, Scope, Send

logger = log.get(__name__)
# What asyncio would not hand on from a thread: no future can hold it, or it would end the task, or the whole server.
UNTOLD = (StopIteration, asyncio.CancelledError, futures.CancelledError, SystemExit, KeyboardInterrupt)


class Later:
    """Builds an application in a thread once the server starts; ends with the server, after the application has."""

    def __init__(self, build: Callable[[], FastAPI]) -> None:
        self.build = build
        self.life: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request as soon as the application is there; start and end with the server."""
        if scope["type"] == "lifespan":
            await receive()
            self.begin()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self.end()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            self.begin()
            app = await asyncio.shield(self.there)  # who leaves while they wait ends nothing
            await app(scope, receive, send)

    def begin(self) -> None:
        """Build the application, unless that has begun."""
        if self.life is None:
            self.there: asyncio.Future[FastAPI] = asyncio.get_running_loop().create_future()
            self.ended = asyncio.Event()
            self.life = asyncio.create_task(self._live())
            self.life.add_done_callback(self._told)

    async def end(self) -> None:
        """End the application; one that is not there yet is waited for, as a thread cannot be stopped."""
        self.ended.set()
        assert self.life is not None
        await asyncio.wait({self.life})

    async def _live(self) -> None:
        with futures.ThreadPoolExecutor(1, "page") as own:
            app = await asyncio.get_running_loop().run_in_executor(own, self._built)
        async with app.router.lifespan_context(app):  # begins and ends in one task, which its parts ask for
            self.there.set_result(app)
            await self.ended.wait()

    def _built(self) -> FastAPI:
        try:
            return self.build()
        except UNTOLD as error:
            raise RuntimeError(f"building it ended in {error!r}") from error

    def _told(self, life: asyncio.Task[None]) -> None:
        error = None if life.cancelled() else life.exception()
        if error is not None:
            logger.error("the page cannot be shown", exc_info=error)
            if not self.there.done():
                self.there.set_exception(error)
                self.there.exception()  # it was told, also when nobody asks for the page
