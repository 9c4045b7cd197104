"""Desk: everything that the page asks of the rest of the program. It knows no Gradio, and the page knows no queue."""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine import schema
from engine.catalog import ModelSpec
from engine.engine import resolve
from engine.env import Environment
from engine.errors import ModelError, NotFound, UsageError
from engine.jobs import Job, JobQueue, Kind
from engine.jobs.edits import edited
from engine.jobs.job import PREFIXES, new_id
from engine.jobs.queue import Change
from engine.jobs.thumbnails import Thumbnails
from engine.profiler import monotonic
from engine.types import Artifact, Request
from ui.adapters import Adapters

DOOR = "ui"  # in the notes of a job: where it came from
UPDATE_S = 0.2  # between two updates of a page, at least,
MOST_UPDATES = 40  # and so many in a second of all pages, or events that somebody waits for would come late
BEAT_S = 1.0  # so often a page that is followed hears something, also when nothing changes
KEPT = 24  # jobs of a client that its page shows, the newest
MOST_CLIENTS = 1000  # whose jobs are remembered; those of others are looked up again
LOOKED_THROUGH = 200  # jobs of a store that are looked through for those of a client that comes back
CLIENT = re.compile(r"[A-Za-z0-9_-]{1,100}")  # what may be the id of one
INPUTS = ("image_path", "mask_path", "video_path")
EXPIRED, GONE = "the file has expired", "the file is gone"
OUTDATED = "the results have changed meanwhile; choose one again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the program that holds the desk decides."""

    version: str
    data: Path  # the folder of the job database; the page keeps its own files below it
    inputs: Path  # where input images of jobs are kept
    model_name: Callable[[], str]  # under which the model is served now
    model_switch: bool = True
    lora_dirs: tuple[Path, ...] | None = None  # from which adapters may be loaded by path; None: from any
    max_upload: int = 256 * 10**6  # bytes
    root_path: str = ""
    login: bool = False  # whether browsers have logged in, so that they can log out


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a page shows at one moment. `jobs` are those of one client, the newest first."""

    health: str  # loading, warming, ready, draining, unhealthy
    error: str  # why it is not healthy
    model: str
    spec: ModelSpec | None
    waiting: int  # of all clients
    running: int
    jobs: tuple[Job, ...]
    places: Mapping[str, int]  # of jobs that wait: how many start before them
    etas: Mapping[str, float]  # of unfinished jobs: seconds, as far as they can be told

    def of_tab(self, tab: str) -> tuple[Job, ...]:
        """Return the jobs that a tab asked for."""
        return tuple(job for job in self.jobs if job.notes.get("tab") == tab)


@dataclass(eq=False, slots=True)
class Follower:
    """One page that follows the jobs of a client. It waits in an event loop, so that no thread waits for it."""

    loop: asyncio.AbstractEventLoop
    bell: asyncio.Event = field(default_factory=asyncio.Event)
    known: dict[str, Job] = field(default_factory=dict)  # finished jobs, which change no more by themselves
    changed: set[str] = field(default_factory=set)  # of those: to be read anew
    heard: set[str] = field(default_factory=set)  # jobs that it listens to
    left: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)  # of what it listens to

    def hear(self, change: Change, job: Job) -> None:
        """Take a change, in whatever thread."""
        self.ring()

    def ring(self, changed: str = "") -> None:
        """Have the page look again, and read one job anew. Call it in whatever thread."""
        self.changed.add(changed)
        if not self.bell.is_set():
            with suppress(RuntimeError):  # the loop is closed, and the page with it
                self.loop.call_soon_threadsafe(self.bell.set)


class Desk:
    """One per process, for all windows alike. Safe in several threads."""

    def __init__(self, queue: JobQueue, environment: Environment, options: Options) -> None:
        self.queue, self.environment, self.options = queue, environment, options
        self.lock = threading.Lock()
        self.ids: dict[str, list[str]] = {}  # of jobs by client, the newest first; who came last stands last
        self.followers: dict[str, list[Follower]] = {}
        self.adapters = Adapters(queue, environment, options.data / "loras", options.lora_dirs)
        self.thumbnails = Thumbnails(queue.delivery, (options.data / "thumbnails").resolve())

    # The model

    @property
    def spec(self) -> ModelSpec | None:
        """What is known of the served model; None while a worker must tell."""
        return self.queue.spec

    def defaults(self) -> dict[str, Any]:
        """Return the model's own values of request fields; empty while it is not known."""
        return dict(self.spec.defaults) if self.spec is not None else {}

    # Asking for something

    def new_client(self, session: str | None) -> str:
        """Return an id for a browser that has none yet: the same for all that one window asks before it knows."""
        return f"client_{session}" if session and CLIENT.fullmatch(session) else new_id("client")

    def client(self, given: object, session: str | None) -> str:
        """Return the id that a browser gives, else, also for what can be none, a new one."""
        return given if isinstance(given, str) and CLIENT.fullmatch(given) else self.new_client(session)

    def request(self, values: Mapping[str, Any]) -> Request:
        """Return a request of plain values; None means the model's default. Raises UsageError."""
        return schema.read(Request, {name: value for name, value in values.items() if value is not None})

    def submit(self, request: Request, client: str, tab: str, **notes: Any) -> Job:
        """Check a request and put it in the queue. Raises UsageError, ModelError, QueueFull, Draining, WorkerDied."""
        spec = self.spec
        if spec is None:
            raise ModelError("the model is still being loaded; try again in a moment", code="model_loading")
        told = {**notes, "client": client, "door": DOOR, "tab": tab}
        self.adapters.check(request)
        device = str(self.queue.supervisor.told.get("device", ""))
        resolved = resolve(request, spec, self.queue.served, device=device)
        kind: Kind = "video" if spec.is_video else "edit" if request.image_path else "image"
        name, model = new_id(PREFIXES[kind]), self.options.model_name()
        inputs = self._keep_inputs(request, name)
        request, resolved = request.replace(**inputs), resolved.replace(**inputs)
        saved = [path for value in inputs.values() for path in ((value,) if isinstance(value, str) else value)]
        job = self.queue.submit(
            request, kind, resolved=resolved, model=model, inputs=saved, notes=told, job_id=name, detached=True
        )
        ids = self._ids(client)
        with self.lock:
            if job.id not in ids:
                ids.insert(0, job.id)
        self._ring(client)
        return job

    def again(self, job: Job, client: str, **changes: Any) -> Job:
        """Ask for a job once more with some fields of its request changed. Raises as `submit` does."""
        return self.submit(job.request.replace(**changes), client, str(job.notes.get("tab", "")))

    def _keep_inputs(self, request: Request, name: str) -> dict[str, Any]:
        """Copy input files, which the page's cache will forget, to where a job has them; return the fields."""
        kept: dict[str, Any] = {}
        for param in INPUTS:
            given = getattr(request, param)
            if given is None:
                continue
            paths = [self._keep(path, f"{name}_{param}{i}") for i, path in enumerate(_several(given))]
            kept[param] = paths[0] if isinstance(given, str) else tuple(paths)
        return kept

    def _keep(self, path: str, name: str) -> str:
        source = Path(path)
        if not source.is_file():  # a URL or a data URI
            return path
        self.options.inputs.mkdir(parents=True, exist_ok=True)
        return shutil.copyfile(source, (self.options.inputs / f"{name}{source.suffix}").resolve()).as_posix()

    # What jobs there are

    def get(self, job_id: str) -> Job:
        """Return a job. Raises NotFound."""
        return self.queue.get(job_id)

    def page(self, **wanted: Any) -> tuple[list[Job], bool]:
        """Return jobs of all clients and doors, see `JobStore.page`, and whether there are more."""
        return self.queue.page(**wanted)

    def count(self, **wanted: Any) -> int:
        """Return how many jobs there are of those that are wanted, see `JobStore.count`."""
        return self.queue.store.count(**wanted)

    def models(self) -> list[str]:
        """Return the names of the models that jobs are of."""
        return self.queue.store.models()

    def unfinished(self) -> list[Job]:
        """Return what runs and what waits, of all clients, in the order of its turn."""
        with self.queue.lock:
            waiting = sorted(self.queue.waiting, key=lambda job: self.queue.position(job) or 0)
            return [*self.queue.running.values(), *waiting]

    def jobs_of(self, client: str, known: dict[str, Job] | None = None) -> list[Job]:
        """Return the newest jobs of a client, the newest first; `known` are finished ones that need no look."""
        found, known = list[Job](), {} if known is None else known
        for job_id in tuple(self._ids(client)[:KEPT]):
            with suppress(NotFound):
                job = known.get(job_id) or self.queue.get(job_id)
                found.append(job)
                if job.finished:
                    known[job_id] = job
        return found

    def active(self, client: str) -> list[Job]:
        """Return the jobs of a client that have not ended, the newest first."""
        return [job for job in self.jobs_of(client) if not job.finished]

    def files(self, job: Job) -> list[Path]:
        """Return the outputs of a job that are files here; those in cloud storage alone are not."""
        paths = [Path(entry.location) for entry in self.artifacts(job)]
        return [path for path in paths if path.is_file()]

    def artifacts(self, job: Job) -> list[Artifact]:
        """Return the outputs of a job that can be shown."""
        return [] if job.expired or job.removed else [entry for entry in job.artifacts if entry.location]

    def output(self, job_id: str, index: int) -> tuple[Job, Artifact]:
        """Return a job and one of its files, see `output_of`. Raises NotFound."""
        job = self.get(job_id)
        return job, output_of(job, index)

    def path(self, job_id: str, index: int) -> Path:
        """Return where a file of a job lies on this machine. Raises NotFound."""
        path = Path(self.output(job_id, index)[1].location)
        if not path.is_file():
            raise NotFound(GONE)
        return path

    def settings(self, job: Job, index: int = 0) -> Request:
        """Return the request that makes one output of a job again, with its own seed and the adapters of then."""
        request = job.resolved
        if 0 <= index < len(job.artifacts):
            request = request.replace(seed=job.artifacts[index].seed, num_outputs_per_prompt=1)
        same = request.loras is not None or job.loras == self.queue.loras
        return request if same else request.replace(loras=job.loras)

    def inputs(self, job: Job) -> list[Path]:
        """Return the pictures that a job was given, as far as the server has kept them."""
        given = _several(job.request.image_path or ())
        return [Path(entry) for entry in given if entry in job.inputs and Path(entry).is_file()]

    def _ids(self, client: str) -> list[str]:
        """Return the ids of a client's jobs; those of an earlier process are looked up once."""
        with self.lock:
            if client in self.ids:
                self.ids[client] = found = self.ids.pop(client)
                return found
        stored, _ = self.queue.page(limit=LOOKED_THROUGH)
        found = [job.id for job in stored if job.notes.get("client") == client]
        with self.lock:
            left = [other for other in self.ids if other not in self.followers]
            for other in left[: max(0, len(self.ids) + 1 - MOST_CLIENTS)]:
                del self.ids[other]
            return self.ids.setdefault(client, found)

    # What can be done with one

    def cancel(self, job_id: str) -> None:
        """End a job, whether it waits or runs. Raises NotFound."""
        self.queue.cancel(job_id)

    def cancel_current(self, client: str, tab: str) -> Job | None:
        """End the job of a tab that runs, else the one that would run next; return it."""
        jobs = [job for job in self.active(client) if job.notes.get("tab") == tab and not job.cancelled]
        running = [job for job in jobs if job.status == "running"]
        current = next(iter(running[-1:] or jobs[-1:]), None)
        if current is not None:
            self.cancel(current.id)
        return current

    def delete(self, job_id: str) -> None:
        """Forget a job and remove its files. Raises NotFound."""
        client = self._client(job_id)
        self.queue.delete(job_id)
        with self.lock:
            for ids in self.ids.values():
                if job_id in ids:
                    ids.remove(job_id)
        self._ring(client, job_id)

    def star(self, job_id: str, starred: bool) -> Job:
        """Mark a job, or unmark it. Raises NotFound."""
        job = self.queue.update(job_id, starred=starred)
        self._ring(self._client(job_id), job_id)
        return job

    def keep_edit(self, job_id: str, make: Callable[[JobQueue], Path]) -> Path:
        """Make a clip of a job's, see `engine.jobs.edits`, and have pages show it. Raises what `make` does."""
        path = make(self.queue)
        self._ring(self._client(job_id), job_id)
        return path

    def switch(self, model: str) -> Future[None]:
        """Serve another model. Raises UsageError, ModelError at once; the future raises what prevents it later."""
        if not self.options.model_switch:
            raise UsageError("model: this server keeps its model (--no-model-switch)", param="model")
        return self.queue.switch(model)

    def raise_priority(self, job_id: str) -> Job:
        """Let a job start before all that wait. Raises NotFound."""
        return self.queue.move(job_id, 0)

    def move(self, job_id: str, by: int) -> Job:
        """Let a job that waits start earlier (-1) or later (+1). Raises NotFound."""
        with self.queue.lock:
            job = self.get(job_id)
            place = self.queue.position(job)
            return job if place is None else self.queue.move(job_id, place + by)

    def _client(self, job_id: str) -> str:
        return str(self.queue.get(job_id).notes.get("client", ""))

    # Being told

    def snapshot(self, client: str, known: dict[str, Job] | None = None) -> Snapshot:
        """Return what a page shows now."""
        jobs, queue = self.jobs_of(client, known), self.queue
        live = [job for job in jobs if not job.finished]
        places = {job.id: place for job in live if (place := queue.position(job)) is not None}
        etas = {job.id: eta for job in live if (eta := queue.eta_s(job)) is not None}
        return Snapshot(
            health=queue.health,
            error=queue.supervisor.error,
            model=self.options.model_name(),
            spec=queue.spec,
            waiting=len(queue.waiting),
            running=len(queue.running),
            jobs=tuple(jobs),
            places=places,
            etas=etas,
        )

    async def follow(self, client: str) -> AsyncGenerator[Snapshot, None]:
        """Yield a snapshot now and whenever something changes; end once the client has no unfinished job.

        Leaving the iterator stops the listening and nothing else: jobs belong to the queue.
        """
        follower = Follower(asyncio.get_running_loop())
        with self.lock:
            self.followers.setdefault(client, []).append(follower)
        try:
            while True:
                began = monotonic()
                follower.bell.clear()
                snapshot = await asyncio.to_thread(self._seen_by, follower, client)
                over = all(job.finished for job in snapshot.jobs)  # now: what ends while the page is drawn is not shown
                yield snapshot
                if over:
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(follower.bell.wait(), BEAT_S)
                await asyncio.sleep(self.pace - (monotonic() - began))
        finally:
            await asyncio.to_thread(self._leave, follower, client)

    @property
    def pace(self) -> float:
        """Seconds between two updates of a page: the more there are that follow jobs, the longer."""
        return max(UPDATE_S, sum(map(len, tuple(self.followers.values()))) / MOST_UPDATES)

    def _seen_by(self, follower: Follower, client: str) -> Snapshot:
        """Return what a page shows now, and have it hear of what comes. It may have left meanwhile."""
        while follower.changed:
            follower.known.pop(follower.changed.pop(), None)
        snapshot = self.snapshot(client, follower.known)
        with follower.lock:
            for job in () if follower.left else snapshot.jobs:
                if not job.finished and job.id not in follower.heard:
                    with suppress(NotFound):
                        self.queue.listen(job.id, follower.hear, preview=True)
                        follower.heard.add(job.id)
        return snapshot

    def _leave(self, follower: Follower, client: str) -> None:
        with follower.lock:
            follower.left = True
            for job_id in follower.heard:
                self.queue.unlisten(job_id, follower.hear)
        with self.lock:
            self.followers[client].remove(follower)
            if not self.followers[client]:
                del self.followers[client]

    def _ring(self, client: str, changed: str = "") -> None:
        with self.lock:
            followers = tuple(self.followers.get(client, ()))
        for follower in followers:
            follower.ring(changed)


def output_of(job: Job, index: int) -> Artifact:
    """Return a file of a job: an output, or an edited clip, which has the seed and the size of what it was made from.

    Raises NotFound for what has expired or never was.
    """
    if job.expired or job.removed:
        raise NotFound(EXPIRED)
    cut = [replace(job.artifacts[0], location=str(path), key=None) for path in edited(job) if job.artifacts]
    made = [*job.artifacts, *cut]
    if not 0 <= index < len(made):
        raise NotFound(OUTDATED)
    return made[index]


def _several(value: str | Sequence[str]) -> Sequence[str]:
    return (value,) if isinstance(value, str) else value
