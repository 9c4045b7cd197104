"""JobQueue: takes jobs in, lets one worker draw them, keeps what comes of it. The one consumer of an engine."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine import log
from engine.catalog import ModelSpec
from engine.config import EngineConfig
from engine.env import Environment
from engine.errors import Draining, NotFound, OutputError, QueueFull, WorkerDied, shown
from engine.jobs.child import COMMAND
from engine.jobs.delivery import Delivery
from engine.jobs.encoding import Encoding
from engine.jobs.job import PREFIXES, Job, Kind, new_id
from engine.jobs.listeners import Change, Listener, Listeners, heard
from engine.jobs.store import JobStore
from engine.jobs.supervisor import Supervisor
from engine.jobs.turns import Durations, in_turn, moved, next_job
from engine.profiler import monotonic, wall
from engine.types import Artifact, LoraRef, Request

__all__ = ["Change", "JobQueue", "Listener", "QueueOptions"]

logger = log.get(__name__)

MAX_RUNNING = 4  # runs hold little beside the weights: the activations of a step are gone after it
EXPIRY_S = 60  # how often expired files are looked for
SAVE_AGAIN_S = 2.0  # how often it is tried to write what the database did not take


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    """How many jobs wait and run, how long one may take, how long files stay."""

    max_queue: int = 64
    max_running: int | None = None
    job_timeout_s: float | None = None
    output_ttl_s: float | None = None
    requeue: bool = False


class JobQueue:
    """Every job of a long-lived process, for all doors alike. Safe in several threads."""

    def __init__(
        self,
        config: EngineConfig,
        environment: Environment,
        store: JobStore,
        delivery: Delivery,
        options: QueueOptions | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.store, self.delivery, self.options = store, delivery, options or QueueOptions()
        self.lock = threading.RLock()
        self.waiting: list[Job] = []
        self.running: dict[str, Job] = {}
        self.unsaved: dict[str, Job] = {}  # changed since the database took them last
        self.listeners = Listeners()
        self.durations = Durations()
        self.encoding = Encoding(self, delivery)
        self.observers: list[Callable[[Job], None]] = []  # hear of every job that ends
        self.draining = False
        self.swept_at = self.tried_at = 0.0
        self.supervisor = Supervisor(self, config, environment, command)

    # Life

    def start(self) -> None:
        """Take up what the last process left, and load the model in the background."""
        with self.lock:
            for job in self.store.unfinished():
                if job.detached and (job.status == "queued" or self.options.requeue):
                    self.delivery.discard(job.artifacts)
                    job.artifacts, job.recipes, job.usage, job.stages, job.steps_ms = [], [], {}, {}, []
                    job.status, job.started_at, job.percent, job.step, job.inference_s = "queued", None, 0, 0, 0.0
                    job.waited_s = None
                    self.waiting.append(job)
                    self._save(job)
                else:
                    self._end(job, "failed", code="server_restart", message="the server was stopped while the job ran")
        self.supervisor.start()

    def drain(self, grace_s: float) -> None:
        """Take nothing in any more, end what waits with its connection, and let running jobs finish.

        What runs longer than it may ends too, where a connection waits for it. Jobs that nobody waits for stay for the
        next start. `close` comes after it.
        """
        with self.supervisor.changed:
            self.draining = True
            self._turn_away(self.waiting)
            end = monotonic() + grace_s
            while self.running and (left := end - monotonic()) > 0:
                self.supervisor.changed.wait(left)
            self._turn_away(self.running.values())

    def _turn_away(self, jobs: Iterable[Job]) -> None:
        for job in [job for job in jobs if not job.detached]:
            self._end(job, "failed", code="draining", message="the server is being stopped")

    def close(self) -> None:
        """Stop the worker and let go of everything; jobs that still run fail with the next start."""
        self.draining = True
        self.supervisor.close()
        self.encoding.close()
        self._save_again()
        self.store.close()
        if self.delivery.cloud is not None:
            self.delivery.cloud.close()
        shutil.rmtree(self.delivery.scratch, ignore_errors=True)

    # What doors ask for

    @property
    def health(self) -> str:
        """`loading`, `warming`, `ready`, `draining` or `unhealthy`."""
        return "draining" if self.draining else self.supervisor.health

    @property
    def served(self) -> EngineConfig:
        """What requests are for; the worker may have another model loaded for a while."""
        return self.supervisor.served

    @property
    def loras(self) -> tuple[LoraRef, ...]:
        """The adapters of requests that name none."""
        return self.supervisor.loras

    @property
    def spec(self) -> ModelSpec | None:
        """The model that requests are for; None until a worker has told what no catalog knows."""
        return self.supervisor.spec

    def submit(
        self,
        request: Request,
        kind: Kind,
        *,
        resolved: Request,
        model: str,
        detached: bool = True,
        inputs: Sequence[str] = (),
        notes: Mapping[str, Any] | None = None,
        job_id: str | None = None,
        listener: Listener | None = None,
        preview: bool = False,
    ) -> Job:
        """Take a job in. Raises QueueFull, Draining, WorkerDied until there is a worker again, and OutputError."""
        name, path = job_id or new_id(PREFIXES[kind]), self.served.model_path
        job = Job(name, kind, model, path, request, resolved, detached=detached, inputs=tuple(inputs))
        job.notes = dict(notes or {})
        with self.lock:
            self._require_room()
            if resolved.loras is None:
                job.loras, job.setting = self.supervisor.loras, self.supervisor.setting
            self.store.add(job)  # first: what the database does not take was never taken in
            if listener is not None:
                self.listeners.add(job.id, listener, preview)
            self.waiting.append(job)
            self.dispatch()
        return job

    def _require_room(self) -> None:
        if self.draining:
            raise Draining("the server is being stopped and takes no new requests")
        if self.supervisor.health == "unhealthy":
            raise WorkerDied(self.supervisor.error or "the worker has died", final=self.supervisor.given_up)
        count = len(self.waiting)
        if count >= self.options.max_queue:
            message = f"{count} requests wait already, the most that --max-queue allows; try again later"
            raise QueueFull(message, retry_after=self.retry_after())

    def get(self, job_id: str) -> Job:
        """Return a job. Raises NotFound."""
        with self.lock:
            job = self._live(job_id) or self.store.get(job_id)
        if job is None or job.deleted:
            raise NotFound(f"no job '{shown(job_id)}'", param="id")
        return job

    def page(self, **wanted: Any) -> tuple[list[Job], bool]:
        """Return jobs as `JobStore.page` does, those under way as they are now."""
        with self.lock:
            found, more = self.store.page(**wanted)
            return [self._live(job.id) or job for job in found], more

    def cancel(self, job_id: str) -> Job:
        """End a job that waits or is being encoded; have one that is drawn stop after the unit of work in hand.

        Raises NotFound.
        """
        with self.lock:
            job = self.get(job_id)
            self._cancel(job)
        return job

    def delete(self, job_id: str) -> None:
        """Cancel a job, forget it and remove its files, also when it cannot be read. Raises NotFound."""
        with self.lock:
            job = self._live(job_id) or self.store.get(job_id)
            there = self.store.delete(job_id)
            self.unsaved.pop(job_id, None)
            if job is None and there:
                self.delivery.remove_named(job_id)
                return
            if job is None or job.deleted:
                raise NotFound(f"no job '{shown(job_id)}'", param="id")
            job.deleted = True
            self._cancel(job)
        if job.finished:
            self.delivery.remove(job)

    def update(self, job_id: str, *, priority: int | None = None, starred: bool | None = None) -> Job:
        """Change what a user may change of a job. Raises NotFound."""
        with self.lock:
            job = self.get(job_id)
            job.priority = job.priority if priority is None else priority
            job.starred = job.starred if starred is None else starred
            self._save(job)
        return job

    def move(self, job_id: str, place: int) -> Job:
        """Let a job that waits start behind `place` others, by their priorities. Raises NotFound."""
        with self.lock:
            job = self.get(job_id)
            for name, priority in (moved(self.waiting, job, place) if job in self.waiting else {}).items():
                self.update(name, priority=priority)
        return job

    def keep(self, job: Job) -> None:
        """Write what a door has changed of a job's notes or files; nothing when it was deleted meanwhile."""
        with self.lock:
            self._save(job)

    def listen(self, job_id: str, listener: Listener, preview: bool = False) -> Job:
        """Hear of every change of a job from now on; with `preview`, pictures are made. Raises NotFound."""
        with self.lock:
            job = self.get(job_id)
            if not job.finished:
                self.listeners.add(job_id, listener, preview)
                self._look(job)
        return job

    def unlisten(self, job_id: str, listener: Listener) -> None:
        """Stop hearing."""
        with self.lock:
            self.listeners.remove(job_id, listener)
            if job_id in self.running:
                self._look(self.running[job_id])

    def call(self, name: str, **arguments: Any) -> Future[dict[str, Any]]:
        """Have the worker do a control call between two units of work: `set_lora` and its like.

        The future has its result, or raises UsageError or another SgdiffError; it comes when the call is in effect.
        """
        return self.supervisor.call(name, arguments)

    def switch(self, model_path: str) -> Future[None]:
        """Serve another model: the worker starts anew with it between jobs. The future raises what prevents it.

        Raises ModelError or UsageError at once for what is known to be wrong with it.
        """
        return self.supervisor.switch(model_path)

    def position(self, job: Job) -> int | None:
        """Return how many jobs start before one that waits; None when it does not wait."""
        with self.lock:
            return in_turn(self.waiting).index(job) if job in self.waiting else None

    def eta_s(self, job: Job) -> float | None:
        """Return the seconds until a job ends, as far as they can be told."""
        with self.lock:
            if job.id in self.running:
                return job.eta_s
            place = self.position(job)
        return None if place is None else self.durations.until_end(place, self.limit)

    def retry_after(self) -> int:
        """Return the seconds after which there is probably room again, 1 to 120."""
        return self.durations.until_room(self.limit)

    @property
    def limit(self) -> int:
        """How many jobs run at a time."""
        return 1 if self.supervisor.exclusive else (self.options.max_running or MAX_RUNNING)

    # Turns. The caller holds the lock.

    def dispatch(self) -> None:
        """Give the worker as many jobs as it may have, and the model that the next one needs."""
        while self.supervisor.health == "ready" and not self.draining:
            loaded = self.supervisor.config.model_path
            job = None if self.supervisor.due else next_job(self.waiting, loaded, wall())
            path = self.served.model_path if job is None else job.model_path
            if path != loaded:
                if not self.running:
                    self.supervisor.change(path)
                return
            if job is None or len(self.running) >= self.limit:
                return
            self._begin(job)

    def _begin(self, job: Job) -> None:
        self.waiting.remove(job)
        self.running[job.id] = job
        job.waited_s = job.queue_s
        job.status, job.started_at, job.began = "running", wall(), monotonic()
        # What else has changed matters only to a job that outlives its connection.
        self._save(job, self.store.save if job.detached else self.store.mark)
        self.supervisor.submit(job, self.listeners.looked(job.id))
        self.listeners.tell("status", job)

    def _cancel(self, job: Job) -> None:
        if job.id in self.running and job.drawn < job.outputs:
            job.cancelled = True
            self.supervisor.send("cancel", job=job.id)
        elif not job.finished:
            self._end(job, "cancelled", code="cancelled", message="the job was cancelled")

    def _live(self, job_id: str) -> Job | None:
        live = self.running.get(job_id) or next((job for job in self.waiting if job.id == job_id), None)
        return live or self.unsaved.get(job_id)

    def _save(self, job: Job, how: Callable[[Job], None] | None = None) -> None:
        """Write a job, or remember to: whoever waits for it is told all the same."""
        if job.deleted:
            return
        if not self.unsaved:
            try:
                (how or self.store.save)(job)
                return
            except OutputError as error:
                logger.error("job %s: %s; it is tried again", job.id, error.message)
        self.unsaved[job.id] = job

    def _save_again(self) -> None:
        """Write what the database did not take."""
        self.tried_at = monotonic()
        for job in list(self.unsaved.values()):
            try:
                self.store.save(job)
            except OutputError:
                return
            with self.lock:
                if self.unsaved.get(job.id) is job:
                    del self.unsaved[job.id]

    def _look(self, job: Job) -> None:
        self.supervisor.send("watch", job=job.id, on=self.listeners.looked(job.id))

    # What the worker tells, in the supervisor's thread

    def progressed(self, told: Mapping[str, Any], preview: bytes) -> None:
        """Note how far a job is."""
        with self.lock:
            job = self.running.get(told["job"])
            if job is None:
                return
            share = told["step"] / told["steps"] if told["steps"] else 0.0
            percent = min(99, int((told["index"] + 0.95 * share) / job.outputs * 100))
            job.percent, job.stage = max(job.percent, percent), told["stage"]
            job.step, job.steps, job.eta_s = told["step"], told["steps"], told["eta_s"]
            if preview:
                job.preview = preview
            self.listeners.tell("preview" if preview else "progress", job)

    def drawn(self, told: Mapping[str, Any]) -> None:
        """Encode and store an output that the worker has finished, away from its loop."""
        with self.lock:
            job = self.running.get(told["job"])
            if job is not None:
                job.drawn, job.stage = job.drawn + 1, "encoding"
                if job.cancelled and job.drawn == job.outputs:  # the worker was faster
                    self._cancel(job)
                else:
                    self.encoding.take(job, told)
                    return
        Path(told["path"]).unlink(missing_ok=True)

    def runs(self, job: Job) -> bool:
        """Whether a job has not ended."""
        return self.running.get(job.id) is job

    def delivered(self, job: Job) -> None:
        """Tell of an output that a job was given. The caller holds the lock."""
        self.listeners.tell("output", job)
        if len(job.artifacts) == job.outputs:
            self._end(job, "done")

    def ended(self, job_id: str, code: str, message: str) -> None:
        """End a running job that failed or was cancelled."""
        with self.lock:
            job = self.running.get(job_id)
            if job is not None and code == "cancelled":
                self._end(job, "cancelled", code=code, message="the job was cancelled")
            elif job is not None:
                self.supervisor.send("cancel", job=job_id)  # an output was lost: its siblings are not needed
                self._end(job, "failed", code=code, message=message)

    def died(self, code: str, message: str) -> None:
        """Fail whatever the worker had; what it has handed over is still encoded."""
        with self.lock:
            for job in [job for job in self.running.values() if job.drawn < job.outputs]:
                self._end(job, "failed", code=code, message=message)

    def abandon(self, code: str, message: str, model_path: str | None = None) -> None:
        """Fail the jobs that wait for a model that does not come, or, without one, for an answer."""
        with self.lock:
            for job in list(self.waiting):
                if job.model_path == model_path or (model_path is None and not job.detached):
                    self._end(job, "failed", code=code, message=message)

    def sweep(self) -> None:
        """Cancel what takes too long, remove what has expired."""
        limit, now = self.options.job_timeout_s, monotonic()
        with self.lock:
            for job in list(self.running.values()) if limit is not None else ():
                if limit is not None and job.began is not None and now - job.began > limit:
                    self.supervisor.send("cancel", job=job.id)
                    self._end(job, "failed", code="timeout", message=f"the job took longer than {limit:g} s")
        if self.unsaved and now - self.tried_at > SAVE_AGAIN_S:
            self._save_again()
        if now - self.swept_at > EXPIRY_S and (self.options.output_ttl_s is not None or not self.delivery.keeps):
            self.swept_at = now
            self.encoding.aside(self.expire)

    def expire(self) -> None:
        """Remove the files whose time has come; the records stay."""
        self.delivery.tidy()
        for found in self.store.expired(wall()):
            with self.lock:
                job = self._live(found.id) or self.store.get(found.id)
                if job is None or job.deleted or job.removed:
                    continue
                job.expired = True  # first: what is offered is there
                self._save(job)
            if self.delivery.remove(job):  # else it is tried again
                with self.lock:
                    job = self._live(found.id) or self.store.get(found.id) or job
                    job.removed = True
                    self._save(job)

    def _end(self, job: Job, status: Literal["done", "failed", "cancelled"], code: str = "", message: str = "") -> None:
        if job in self.waiting:
            self.waiting.remove(job)
        self.running.pop(job.id, None)
        ahead = self.encoding.forget(job)
        job.waited_s = job.queue_s
        job.completed_at, job.eta_s, job.preview = wall(), None, None
        if status == "done":
            job.percent, job.stage = 100, ""
            self.durations.last.append(monotonic() - (job.began or monotonic()))
            if self.options.output_ttl_s is not None:
                job.expires_at = job.completed_at + self.options.output_ttl_s
        else:
            job.error = {"code": code, "message": message}
            lost = [*job.artifacts, *ahead]
            job.artifacts, job.recipes = [], []
            self._remove(job, lost)
        job.status = status  # last: others read without the lock
        self._save(job)
        for observer in self.observers:
            heard(observer, job)
        self.listeners.tell("status", job)
        self.listeners.drop(job.id)
        self.supervisor.changed.notify_all()
        self.dispatch()

    def _remove(self, job: Job, lost: Sequence[Artifact]) -> None:
        self.delivery.remove(job)
        if any(artifact.key is not None for artifact in lost):  # over the network
            self.encoding.aside(self.delivery.discard, lost)
        else:
            self.delivery.discard(lost)
