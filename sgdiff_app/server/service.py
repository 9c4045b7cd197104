"""Service: what every route of the server shares. The job queue for code that awaits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest

from engine import catalog
from engine.catalog import ModelSpec
from engine.engine import resolve
from engine.env import Environment
from engine.errors import WorkerDied
from engine.jobs import Job, JobQueue, Kind
from engine.jobs.job import new_id
from engine.jobs.queue import Change
from engine.profiler import wall
from engine.types import Request
from sgdiff_app.options import ServerOptions
from sgdiff_app.server.errors import ApiError, gone
from sgdiff_app.server.webhooks import Webhooks

T = TypeVar("T")
SERVING = ("ready", "warming")


class ClientGone(Exception):
    """The client has closed the connection that it waited on."""


@dataclass(slots=True)
class Line:
    """Changes of one job on their way from the queue's threads to a coroutine."""

    loop: asyncio.AbstractEventLoop
    changes: asyncio.Queue[Change] = field(default_factory=asyncio.Queue)

    def hear(self, change: Change, job: Job) -> None:
        """Take a change, in whatever thread."""
        self.loop.call_soon_threadsafe(self.changes.put_nowait, change)

    async def next(self, timeout: float | None = None) -> Change | None:
        """Return the next change; None when none came in time."""
        try:
            return await asyncio.wait_for(self.changes.get(), timeout)
        except TimeoutError:
            return None


@dataclass(slots=True)
class Service:
    """One per server."""

    queue: JobQueue
    options: ServerOptions
    environment: Environment
    ready_timeout_s: float = 120.0
    created: int = field(default_factory=lambda: int(wall()))
    instance: str = field(default_factory=lambda: new_id("srv"))
    webhooks: Webhooks | None = None
    keys: dict[str, asyncio.Event] = field(default_factory=dict)  # of clients whose requests are being taken in

    @property
    def name(self) -> str:
        """The name under which the model is served."""
        config = self.queue.served
        return self.options.served_model_name or config.model_id or config.model_path

    def check_model(self, model: str | None) -> None:
        """Raise ApiError for a model that is not the one that is served."""
        config, spec = self.queue.served, self.queue.spec
        known = {self.name, config.model_path, config.model_id, *(self.options.model_alias or ())}
        known |= {spec.id} if spec is not None else set()
        found = catalog.by_name(model) if model is not None else None
        if model is None or model in known or (found is not None and spec is not None and found.id == spec.id):
            return
        raise gone("model_not_found", f"the model '{model}' is not served here; it is '{self.name}'", "model")

    async def ready(self) -> None:
        """Wait until requests can run: while the model loads for a bounded time, while it warms up as long as needed.

        Raises ApiError `model_loading`, Draining or WorkerDied.
        """
        if self.queue.health == "ready":
            return
        supervisor = self.queue.supervisor
        states = (*SERVING, "unhealthy")
        health = await self.aside(supervisor.wait, self.ready_timeout_s, *states)
        if health == "warming":
            health = await self.aside(supervisor.wait, None, "ready", "unhealthy", "loading")
        if health == "unhealthy":
            raise WorkerDied(supervisor.error, final=supervisor.given_up)
        if health == "loading":
            message = "the model is still being loaded; try again later"
            raise ApiError(503, "model_loading", message, headers={"retry-after": "30"})

    async def spec(self) -> ModelSpec:
        """Return what is known of the served model; wait for the worker where the catalog does not know it."""
        if self.queue.spec is None:
            await self.ready()
        assert self.queue.spec is not None
        return self.queue.spec

    async def submit(
        self,
        request: Request,
        kind: Kind,
        *,
        line: Line | None = None,
        preview: bool = False,
        detached: bool = True,
        inputs: Sequence[str] = (),
        notes: Mapping[str, Any] | None = None,
        job_id: str | None = None,
    ) -> Job:
        """Check and resolve a request, and put it in the queue. Raises UsageError, QueueFull, Draining, WorkerDied."""
        spec = await self.spec()

        def take() -> Job:
            resolved = resolve(request, spec, self.queue.served)
            return self.queue.submit(
                request,
                kind,
                resolved=resolved,
                model=self.name,
                detached=detached,
                inputs=inputs,
                notes=notes,
                job_id=job_id,
                listener=line.hear if line is not None else None,
                preview=preview,
            )

        return await self.aside(take)

    @asynccontextmanager
    async def following(self, job_id: str, preview: bool = False) -> AsyncIterator[tuple[Job, Line]]:
        """Give a job and a line that hears of its changes meanwhile. Raises NotFound."""
        line = Line(asyncio.get_running_loop())
        job = self.queue.listen(job_id, line.hear, preview)
        try:
            yield job, line
        finally:
            self.queue.unlisten(job_id, line.hear)

    async def aside(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do blocking work in a thread."""
        return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


def line() -> Line:
    """Return a line to the coroutine that runs."""
    return Line(asyncio.get_running_loop())


@asynccontextmanager
async def until_gone(http: HttpRequest) -> AsyncIterator[asyncio.Task[None]]:
    """Give a task that ends when the client closes the connection. The body must have been read."""

    async def watch() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    task = asyncio.create_task(watch())
    try:
        yield task
    finally:
        task.cancel()


async def finished(service: Service, job: Job, changes: Line, http: HttpRequest) -> None:
    """Wait for the end of a job that ends with its connection. Raises ClientGone, with the job cancelled."""
    async with until_gone(http) as leaving:
        while not job.finished:
            hearing = asyncio.ensure_future(changes.changes.get())
            done, _ = await asyncio.wait((hearing, leaving), return_when=asyncio.FIRST_COMPLETED)
            if hearing not in done:
                hearing.cancel()
                service.queue.cancel(job.id)
                raise ClientGone


def service_of(http: HttpRequest) -> Service:
    """Return the service of the application that a request came to."""
    service = http.app.state.service
    assert isinstance(service, Service)
    return service
