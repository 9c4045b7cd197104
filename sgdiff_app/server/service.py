"""Service: what every route of the server shares. The job queue for code that awaits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import Request as HttpRequest

from engine import catalog
from engine.catalog import ModelSpec
from engine.config import EngineConfig
from engine.engine import resolve
from engine.env import Environment
from engine.errors import Draining, NotFound, WorkerDied, shown
from engine.jobs import Job, JobQueue, Kind
from engine.jobs.job import new_id
from engine.jobs.queue import Change
from engine.profiler import monotonic, wall
from engine.types import Request
from sgdiff_app.options import ServerOptions
from sgdiff_app.server import places, request_log
from sgdiff_app.server.access import Access
from sgdiff_app.server.errors import ApiError, gone
from sgdiff_app.server.webhooks import Webhooks

if TYPE_CHECKING:
    from sgdiff_app.server.metrics import Metrics

T = TypeVar("T")
LONG = 16  # threads for work that may take many seconds, such as downloads
WAIT_S = 0.02  # between two looks at whether the model is there


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
class Ending(Line):
    """A line that tells of the end alone: whoever waits for no more is not woken at every step."""

    def hear(self, change: Change, job: Job) -> None:
        """Take a change, in whatever thread."""
        if job.finished:
            Line.hear(self, change, job)


@dataclass(slots=True)
class Service:
    """One per server."""

    queue: JobQueue
    options: ServerOptions
    environment: Environment
    data: Path
    ready_timeout_s: float = 120.0
    created: int = field(default_factory=lambda: int(wall()))
    instance: str = field(default_factory=lambda: new_id("srv"))
    webhooks: Webhooks | None = None
    access: Access = field(default_factory=Access)
    metrics: Metrics | None = None
    keys: dict[str, asyncio.Event] = field(default_factory=dict)  # of clients whose requests are being taken in
    waiters: Counter[str] = field(default_factory=Counter)  # connections by the job that they wait for
    long: Executor = field(default_factory=lambda: ThreadPoolExecutor(LONG, "long"))
    first: EngineConfig = field(init=False)  # of the model that the server was started with

    def __post_init__(self) -> None:
        self.first = self.queue.served

    @property
    def name(self) -> str:
        """The name under which the model is served."""
        given = (self.options.served_model_name or self.first.model_id) if self.is_first else None
        return given or self.path

    @property
    def path(self) -> str:
        """The path of the model as clients name it: below the folder of models without that folder."""
        path = self.queue.served.model_path
        own = None if self.is_first else places.below(path, self.data / places.MODELS)
        return path if own is None else own.relative_to((self.data / places.MODELS).resolve()).as_posix()

    @property
    def is_first(self) -> bool:
        """Whether the model is served that the server was started with; its names are for it alone."""
        return self.queue.served.model_path == self.first.model_path

    def is_served(self, model: str) -> bool:
        """Say whether a name means the model that is served."""
        config, spec = self.queue.served, self.queue.spec
        if model in (self.name, config.model_path):
            return True
        if self.is_first and model in (config.model_id, *(self.options.model_alias or ())):
            return True
        found = catalog.by_name(model)
        return spec is not None and (model == spec.id or (found is not None and found.id == spec.id))

    def check_model(self, model: str | None) -> None:
        """Raise ApiError for a model that is not the one that is served."""
        if model is None or self.is_served(model):
            return
        raise gone("model_not_found", f"the model '{shown(model)}' is not served here; it is '{self.name}'", "model")

    async def ready(self) -> None:
        """Wait until requests can run: while the model loads for a bounded time, while it warms up as long as needed.

        Raises ApiError `model_loading`, Draining or WorkerDied.
        """
        if self.queue.health == "ready":
            return
        supervisor, end = self.queue.supervisor, monotonic() + self.ready_timeout_s
        while (health := self.queue.health) == "warming" or (health == "loading" and monotonic() < end):
            await asyncio.sleep(WAIT_S)  # no thread of a pool, in which each waiting request would take one
        if health == "draining":
            raise Draining("the server is being stopped and takes no new requests")
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
            device = str(self.queue.supervisor.told.get("device", ""))
            resolved = resolve(request, spec, self.queue.served, device=device)
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

        # Without input images there is nothing to open: that takes less than waking a thread.
        reads = request.image_path or request.mask_path or request.video_path
        job = await self.aside(take) if reads else take()
        if self.options.log_requests:
            request_log.tell(job, self.options.log_requests_level)
        return job

    @asynccontextmanager
    async def following(self, job_id: str, preview: bool = False) -> AsyncIterator[tuple[Job, Line]]:
        """Give a job and a line that hears of its changes meanwhile. Raises NotFound."""
        line = Line(asyncio.get_running_loop())
        job = self.queue.listen(job_id, line.hear, preview)
        try:
            yield job, line
        finally:
            self.queue.unlisten(job_id, line.hear)

    def hold(self, job: Job) -> None:
        """Count a connection that waits for a job."""
        self.waiters[job.id] += 1

    def let_go(self, job: Job) -> None:
        """Count one less; a job that is not detached ends with the last."""
        self.waiters[job.id] -= 1
        if self.waiters[job.id] > 0:
            return
        del self.waiters[job.id]
        if not job.detached and not job.finished:
            with suppress(NotFound):  # deleted meanwhile
                self.queue.cancel(job.id)

    async def aside(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do blocking work in a thread."""
        return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)

    async def apart(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do work that may take many seconds in one of few threads of its own, so that none is taken from the rest."""
        return await asyncio.get_running_loop().run_in_executor(self.long, work, *arguments)


def ending() -> Ending:
    """Return a line for the coroutine that runs."""
    return Ending(asyncio.get_running_loop())


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


async def finished(job: Job, changes: Line, http: HttpRequest) -> None:
    """Wait for the end of a job. Raises ClientGone."""
    async with until_gone(http) as leaving:
        while not job.finished:
            hearing = asyncio.ensure_future(changes.changes.get())
            done, _ = await asyncio.wait((hearing, leaving), return_when=asyncio.FIRST_COMPLETED)
            if hearing not in done:
                hearing.cancel()
                raise ClientGone


def service_of(http: HttpRequest) -> Service:
    """Return the service of the application that a request came to."""
    service = http.app.state.service
    assert isinstance(service, Service)
    return service
