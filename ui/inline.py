"""InlineDesk: the desk of a Space, where no process draws beside the page: the handler that follows a job draws it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

import gradio as gr
from gradio.context import LocalContext

from engine.env import Environment
from engine.jobs import Job
from engine.jobs.inline import ATTENDED, Device, Draw, Events, InlineQueue, failed
from engine.profiler import monotonic
from engine.types import Request
from ui import app, gallery, system
from ui.desk import UPDATE_S, Desk, Options, Snapshot

# What of the page shows the jobs of everybody, or changes the server for everybody, is left out.
TABS = tuple(tab for tab in app.TABS if tab not in (gallery, system))
START_S = 20  # of a GPU that is lent: to move the weights there, and to decode
STEP_S = 1.0  # for one step of a million pixels
LONGEST_S = 120
OVER = object()  # after the last step of a generator
T = TypeVar("T")


class InlineDesk(Desk):
    """A desk whose jobs are drawn by `follow`, inside the event handler of whoever asked."""

    def __init__(self, queue: InlineQueue, environment: Environment, options: Options) -> None:
        super().__init__(queue, environment, options)
        self.inline = queue
        queue.attended = self._follows
        self.adapters.fixed, self.adapters.offered = True, queue.fence.loras

    def _follows(self, job: Job) -> bool:
        return bool(self.followers.get(str(job.notes.get("client"))))

    def submit(self, request: Request, client: str, tab: str, **notes: Any) -> Job:
        """Put a request in the queue, as every desk does; `follow` draws it."""
        return super().submit(request, client, tab, **{**notes, ATTENDED: True})

    async def follow(self, client: str) -> AsyncGenerator[Snapshot, None]:
        """Yield snapshots as every desk does, and draw what is due of the client's jobs meanwhile."""
        async with aclosing(super().follow(client)) as snapshots:
            async for snapshot in snapshots:
                yield snapshot
                job = next((job for job in reversed(snapshot.jobs) if self.inline.is_due(job)), None)
                if job is not None:
                    async with aclosing(self._drawn(job, client)) as drawn:
                        async for one in drawn:
                            yield one

    async def _drawn(self, job: Job, client: str) -> AsyncGenerator[Snapshot, None]:
        told, stage = 0.0, ""
        async with aclosing(stepped(self.inline.drive(job))) as events:
            async for _ in events:
                if job.stage != stage or monotonic() - told >= UPDATE_S:
                    told, stage = monotonic(), job.stage
                    yield await asyncio.to_thread(self.snapshot, client)


async def stepped(work: Generator[T, None, None]) -> AsyncGenerator[T, None]:
    """Take the steps of a generator, which take long, in threads; leaving it early closes it after the step in hand."""
    step: asyncio.Future[Any] | None = None
    try:
        while True:
            step = asyncio.ensure_future(asyncio.to_thread(next, work, OVER))
            value = await asyncio.shield(step)
            if value is OVER:
                return
            yield value
    finally:
        if step is not None:
            await asyncio.wait([step])
        await asyncio.to_thread(work.close)


def launch(desk: InlineDesk) -> tuple[gr.Blocks, Any]:
    """Serve the page by Gradio's own server, which is what a Space expects; return it and the application."""
    demo = app.build(desk, TABS)
    quiet = {"prevent_thread_lock": True, "quiet": True, "max_threads": app.EVENTS}
    start = functools.partial(demo.launch, **quiet, **app.launch_options(desk))
    served, _, _ = app.with_loop(start)
    return demo, served


@contextmanager
def visitor(request: Any) -> Iterator[None]:
    """Let what is drawn meanwhile count as drawn for whoever sent a request that is not one of the page."""
    mark = LocalContext.request.set(gr.Request(request))
    try:
        yield
    finally:
        LocalContext.request.reset(mark)


def device(lend: Callable[..., Any] | None) -> Device:
    """Return what gives drawings a device: `lend` is `spaces.GPU`, None where this process has its own.

    What it refuses, as when a visitor has used up their share, becomes an event like other failures.
    """

    def wrap(draw: Draw) -> Draw:
        if lend is None:
            return draw
        lent: Draw = lend(duration=duration)(_plain(draw))

        def told(job: str, request: Mapping[str, Any], preview: bool) -> Events:
            try:
                yield from lent(job, request, preview)
            except gr.Error as error:
                yield failed(job, str(error.message)), b""

        return told

    return wrap


def _plain(draw: Draw) -> Draw:
    """Return a generator as a plain function: one that is bound to an object cannot be marked as what needs a GPU."""

    def drawing(job: str, request: Mapping[str, Any], preview: bool) -> Events:
        yield from draw(job, request, preview)

    return drawing


def duration(job: str, request: Mapping[str, Any], preview: bool) -> int:
    """Return the seconds for which a GPU is asked: the fewer, the sooner one comes."""
    sides = [int(request.get(name) or 1024) for name in ("width", "height")]
    work = int(request.get("num_inference_steps") or 50) * int(request.get("num_outputs_per_prompt") or 1)
    work *= max(1, int(request.get("num_frames") or 1) // 4)
    return min(LONGEST_S, round(START_S + STEP_S * work * max(1.0, sides[0] * sides[1] / 1e6)))
