"""Answers as events: previews of the first output, the pictures when they are done, comments between them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Self

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine.errors import SgdiffError
from engine.jobs import Job
from engine.jobs.queue import Change
from engine.profiler import wall
from sgdiff_app.server import content
from sgdiff_app.server.errors import NO_STORE, envelope, of_job
from sgdiff_app.server.service import Line, Service, until_gone

KEEP_ALIVE_S = 15.0  # between two comments of a stream in which nothing happens
HEADERS = {**NO_STORE, "x-accel-buffering": "no"}
TYPES = {"image": "image_generation", "edit": "image_edit"}
QUALITIES = {"auto": "high", "hd": "high", "standard": "medium"}  # presets that are others too


def look(job: Job) -> dict[str, str]:
    """Return how the outputs of a job look."""
    request, asked = job.resolved, job.request.quality
    width, height = request.width, request.height
    if job.artifacts:
        width, height = job.artifacts[0].width, job.artifacts[0].height
    return {
        "size": f"{width}x{height}",
        "quality": QUALITIES.get(asked, asked),
        "background": "opaque",
        "output_format": request.output_format or "png",
    }


def usage(job: Job, outputs: int | None = None) -> dict[str, Any]:
    """Return the tokens of a job's prompt, read once, and of so many of its outputs; of all without a number."""
    drawn = len(job.artifacts) or 1
    text, image = (job.usage.get(name, 0) // drawn for name in ("text", "image"))
    made = job.usage.get("latents", 0) * (drawn if outputs is None else outputs) // drawn
    return {
        "input_tokens": text + image,
        "output_tokens": made,
        "total_tokens": text + image + made,
        "input_tokens_details": {"image_tokens": image, "text_tokens": text},
    }


@dataclass(frozen=True, slots=True)
class Seen:
    """A job as it was when it changed."""

    change: Change
    stage: str
    step: int
    steps: int
    drawn: int
    preview: bytes | None


@dataclass(slots=True)
class Trail(Line):
    """Changes of one job, each with what was there to see; the next may be made before this one is told."""

    partials: int = 0
    seen: asyncio.Queue[Seen] = field(default_factory=asyncio.Queue)

    @classmethod
    def begin(cls, partials: int) -> Self:
        """Return a trail to the coroutine that runs."""
        return cls(asyncio.get_running_loop(), partials=partials)

    def hear(self, change: Change, job: Job) -> None:
        """Take a change, in whatever thread."""
        seen = Seen(change, job.stage, job.step, job.steps, job.drawn, job.preview if change == "preview" else None)
        self.loop.call_soon_threadsafe(self.seen.put_nowait, seen)


class Events(Response):
    """A stream of server-sent events about one job. With `bound`, a key of the client is bound to the job."""

    media_type = "text/event-stream"

    def __init__(self, service: Service, job: Job, trail: Trail, *, bound: bool) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self.service, self.job, self.trail, self.bound = service, job, trail, bound
        self.kind = TYPES[job.kind]
        self.sent, self.told = 0, 0  # partial images, outputs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        http = HttpRequest(scope, receive, send)
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async with until_gone(http) as leaving:
                async for text in self._texts(leaving):
                    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
                if not leaving.done():
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:  # the connection is lost
            pass
        finally:
            self._leave()

    def _leave(self) -> None:
        queue = self.service.queue
        queue.unlisten(self.job.id, self.trail.hear)
        self.service.let_go(self.job)
        if not queue.delivery.keeps and not self.bound:
            queue.delivery.discard(self.job.artifacts)

    async def _texts(self, leaving: asyncio.Task[None]) -> AsyncIterator[str]:
        """Yield the events and comments, until the job has ended or the client has left."""
        try:
            async for text in self._told(leaving):
                yield text
            if self.job.error is not None and not leaving.done():
                raise of_job(self.job.error)
        except SgdiffError as error:
            yield _event("error", {"error": envelope(error)["error"]})

    async def _told(self, leaving: asyncio.Task[None]) -> AsyncIterator[str]:
        while not self.job.finished or not self.trail.seen.empty():
            hearing = asyncio.ensure_future(self.trail.seen.get())
            done, _ = await asyncio.wait((hearing, leaving), timeout=KEEP_ALIVE_S, return_when=asyncio.FIRST_COMPLETED)
            if leaving in done:
                hearing.cancel()
                return
            if hearing not in done:
                hearing.cancel()
                yield ": waiting\n\n"
                continue
            async for text in self._of(hearing.result()):
                yield text
        async for text in self._outputs():
            yield text

    async def _of(self, seen: Seen) -> AsyncIterator[str]:
        if seen.change == "output":
            async for text in self._outputs():
                yield text
        elif seen.change in ("progress", "preview"):
            yield f": step {seen.step}/{seen.steps}\n\n" if seen.steps else f": {seen.stage}\n\n"
            if seen.preview and not seen.drawn and self.sent < self.trail.partials and seen.step >= self._next(seen):
                picture = {"b64_json": base64.b64encode(seen.preview).decode("ascii"), "partial_image_index": self.sent}
                self.sent += 1
                yield _event(f"{self.kind}.partial_image", picture | {"created_at": int(wall()), **look(self.job)})

    def _next(self, seen: Seen) -> int:
        """Return the step after which the next partial image is due: they part the steps evenly."""
        return max(1, round((self.sent + 1) * seen.steps / (self.trail.partials + 1)))

    async def _outputs(self) -> AsyncIterator[str]:
        """Yield the outputs that are there and not told yet, in their order."""
        while self.told < len(self.job.artifacts):
            artifact, index = self.job.artifacts[self.told], self.told
            if artifact.seed != self._seed(index):
                return  # a later output was encoded first
            data = await self.service.aside(content.bytes_of, self.service, artifact)
            self.told += 1
            picture = {"b64_json": base64.b64encode(data).decode("ascii"), "created_at": int(wall()), **look(self.job)}
            more = {"usage": usage(self.job, 1), "seed": artifact.seed, "output_index": index, "id": self.job.id}
            yield _event(f"{self.kind}.completed", picture | more)

    def _seed(self, index: int) -> int:
        seed = self.job.resolved.seed
        assert seed is not None
        return seed[index] if isinstance(seed, tuple) else seed + index


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data}, separators=(',', ':'))}\n\n"
