"""JobQueue: takes jobs in, lets one worker draw them, keeps what comes of it. The one consumer of an engine."""

from __future__ import annotations

import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine import log
from engine.catalog import ModelSpec
from engine.config import EngineConfig
from engine.env import Environment
from engine.errors import Draining, NotFound, QueueFull, SgdiffError, WorkerDied
from engine.jobs.child import COMMAND
from engine.jobs.delivery import Delivery
from engine.jobs.job import FINAL, PREFIXES, Job, Kind, new_id
from engine.jobs.store import JobStore
from engine.jobs.supervisor import Supervisor
from engine.profiler import monotonic, wall
from engine.types import LoraRef, Request

logger = log.get(__name__)

MAX_RUNNING = 4  # runs hold little beside the weights: the activations of a step are gone after it
OTHER_MODEL_S = 120  # so long may a job wait because jobs of the loaded model go first
SAMPLES = 32  # finished jobs that an estimate looks at
Change = Literal["status", "progress", "preview", "output"]
Listener = Callable[[Change, Job], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    """How many jobs wait and run, how long one may take, how long files stay."""

    max_queue: int = 64
    max_running: int | None = None
    job_timeout_s: float | None = None
    output_ttl_s: float | None = None
    requeue: bool = False


class JobQueue:
    """Every job of a long-lived process, for all doors alike. Safe in several threads.

    Listeners hear changes in the thread that makes them, and must return at once.
    """

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
        self.listeners: dict[str, list[tuple[Listener, bool]]] = {}
        self.durations: deque[float] = deque(maxlen=SAMPLES)
        self.waits: deque[float] = deque(maxlen=SAMPLES)
        self.observers: list[Callable[[Job], None]] = []  # hear of every job that ends
        self.draining = False
        self.pool = ThreadPoolExecutor(2, "encode")
        self.scratch = Path(tempfile.mkdtemp(prefix="sgdiff-"))
        self.supervisor = Supervisor(self, config, environment, command)
        self.served = config  # what requests are for; the supervisor may have another model loaded for a while
        self.loras: tuple[LoraRef, ...] = ()
        self.setting: int | None = None

    # Life

    def start(self) -> None:
        """Take up what the last process left, and load the model in the background."""
        for job in self.store.unfinished():
            again = job.status == "queued" or self.options.requeue
            if job.detached and again:
                job.status, job.percent, job.step, job.started_at = "queued", 0, 0, None
                self.waiting.append(job)
            else:
                self._end(job, "failed", code="server_restart", message="the server was stopped while the job ran")
        self.supervisor.start()

    def drain(self, grace_s: float) -> None:
        """Take nothing in any more, end what waits with its connection, let running jobs finish, then stop."""
        with self.lock:
            self.draining = True
            for job in [job for job in self.waiting if not job.detached]:
                self._end(job, "failed", code="draining", message="the server is being stopped")
        end = monotonic() + grace_s
        with self.supervisor.changed:
            while self.busy and (left := end - monotonic()) > 0:
                self.supervisor.changed.wait(left)
        self.close()

    def close(self) -> None:
        """Stop the worker; jobs that still run fail with the next start."""
        self.supervisor.close()
        self.pool.shutdown(wait=True, cancel_futures=True)
        self.store.close()
        import shutil

        shutil.rmtree(self.scratch, ignore_errors=True)

    @property
    def busy(self) -> bool:
        """Whether a job runs or is being encoded."""
        return bool(self.running)

    # What doors ask for

    @property
    def health(self) -> str:
        """`loading`, `warming`, `ready`, `draining` or `unhealthy`."""
        return "draining" if self.draining else self.supervisor.health

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
        """Take a job in. Raises QueueFull, Draining and, when no worker can come any more, WorkerDied."""
        job = Job(
            job_id or new_id(PREFIXES[kind]),
            kind,
            model,
            self.served.model_path,
            request,
            resolved,
            detached=detached,
            inputs=tuple(inputs),
            notes=dict(notes or {}),
        )
        with self.lock:
            if self.draining:
                raise Draining("the server is being stopped and takes no new requests")
            if self.supervisor.health == "unhealthy":
                raise WorkerDied(self.supervisor.error or "the worker has died", final=self.supervisor.given_up)
            if len(self.waiting) >= self.options.max_queue:
                message = (
                    f"{len(self.waiting)} requests wait already, the most that --max-queue allows; try again later"
                )
                raise QueueFull(message, retry_after=self.retry_after())
            job.loras = () if resolved.loras is not None else self.loras
            job.setting = None if resolved.loras is not None else self.setting
            if listener is not None:
                self.listeners[job.id] = [(listener, preview)]
            self.waiting.append(job)
            self.store.save(job)
            self.dispatch()
        return job

    def get(self, job_id: str) -> Job:
        """Return a job. Raises NotFound."""
        with self.lock:
            job = self._live(job_id) or self.store.get(job_id)
        if job is None:
            raise NotFound(f"no job '{job_id}'", param="id")
        return job

    def page(self, **wanted: Any) -> tuple[list[Job], bool]:
        """Return jobs as `JobStore.page` does, those under way as they are now."""
        found, more = self.store.page(**wanted)
        with self.lock:
            return [self._live(job.id) or job for job in found], more

    def cancel(self, job_id: str) -> Job:
        """End a job that waits, or have one that runs stop after the unit of work in hand. Raises NotFound."""
        job = self.get(job_id)
        with self.lock:
            if job in self.waiting:
                self._end(job, "cancelled", code="cancelled", message="the job was cancelled")
            elif job.id in self.running:
                job.cancelled = True
                self.supervisor.send("cancel", job=job.id)
        return job

    def delete(self, job_id: str) -> None:
        """Cancel a job, forget it and remove its files. Raises NotFound."""
        job = self.cancel(job_id)
        with self.lock:
            self.listeners.pop(job_id, None)
            job.notes["deleted"] = True
            self.store.delete(job_id)
            if job.finished:
                self.delivery.remove(job)

    def update(self, job_id: str, *, priority: int | None = None, starred: bool | None = None) -> Job:
        """Change what a user may change of a job. Raises NotFound."""
        job = self.get(job_id)
        with self.lock:
            job.priority = job.priority if priority is None else priority
            job.starred = job.starred if starred is None else starred
            self.store.save(job)
        return job

    def keep(self, job: Job) -> None:
        """Write what a door has changed of a job's notes or files."""
        with self.lock:
            if not job.notes.get("deleted"):
                self.store.save(job)

    def listen(self, job_id: str, listener: Listener, preview: bool = False) -> Job:
        """Hear of every change of a job from now on; with `preview`, pictures are made. Raises NotFound."""
        job = self.get(job_id)
        with self.lock:
            if not job.finished:
                self.listeners.setdefault(job_id, []).append((listener, preview))
                self._look(job)
        return job

    def unlisten(self, job_id: str, listener: Listener) -> None:
        """Stop hearing."""
        with self.lock:
            left = [entry for entry in self.listeners.get(job_id, []) if entry[0] != listener]
            self.listeners[job_id] = left
            if not left:
                del self.listeners[job_id]
            if job_id in self.running:
                self._look(self.running[job_id])

    def call(self, name: str, **arguments: Any) -> Future[dict[str, Any]]:
        """Have the worker do a control call between two units of work: `set_lora` and its like.

        The future has its result, or raises UsageError or another SgdiffError; it comes when the call is in effect.
        """
        return self.supervisor.call(name, arguments)

    def switch(self, model_path: str) -> Future[None]:
        """Serve another model: the worker starts anew with it between jobs. The future raises what prevents it."""
        return self.supervisor.switch(replace(self.served, model_path=model_path))

    def position(self, job: Job) -> int | None:
        """Return how many jobs start before one that waits; None when it does not wait."""
        with self.lock:
            return self._in_turn().index(job) if job in self.waiting else None

    def eta_s(self, job: Job) -> float | None:
        """Return the seconds until a job ends, as far as they can be told."""
        typical = self._typical()
        with self.lock:
            if job.id in self.running:
                return job.eta_s
            place = self.position(job)
        return None if place is None or typical is None else (place + 1) * typical / self.limit + typical

    def retry_after(self) -> int:
        """Return the seconds after which there is probably room again, 1 to 120."""
        return max(1, min(120, round((self._typical() or 1.0) / self.limit)))

    @property
    def limit(self) -> int:
        """How many jobs run at a time."""
        return 1 if self.supervisor.exclusive else (self.options.max_running or MAX_RUNNING)

    # Turns. The caller holds the lock of the queue.

    def _in_turn(self) -> list[Job]:
        return sorted(self.waiting, key=lambda job: (-job.priority, job.order))

    def _next(self) -> Job | None:
        """Return the job whose turn it is: the first of the loaded model, unless another has waited too long."""
        turn = self._in_turn()
        if not turn:
            return None
        loaded = self.supervisor.config.model_path
        same = next((job for job in turn if job.model_path == loaded), None)
        if same is None or (turn[0] is not same and wall() - turn[0].created_at > OTHER_MODEL_S):
            return turn[0]
        return same

    def dispatch(self) -> None:
        """Give the worker as many jobs as it may have."""
        while self.supervisor.health == "ready" and len(self.running) < self.limit and (job := self._next()):
            if job.model_path != self.supervisor.config.model_path:
                if not self.running:
                    self.supervisor.change(replace(self.served, model_path=job.model_path))
                return
            self.waiting.remove(job)
            self.running[job.id] = job
            job.status, job.started_at = "running", wall()
            self.waits.append(job.queue_s)
            self.store.save(job)
            looked = any(preview for _, preview in self.listeners.get(job.id, ()))
            self.supervisor.submit(job, looked)
            self._tell("status", job)
        if self.supervisor.health == "ready" and not self.running and not self.waiting:
            self.supervisor.change(self.served)

    def _live(self, job_id: str) -> Job | None:
        return self.running.get(job_id) or next((job for job in self.waiting if job.id == job_id), None)

    def _look(self, job: Job) -> None:
        looked = any(preview for _, preview in self.listeners.get(job.id, ()))
        self.supervisor.send("watch", job=job.id, on=looked)

    def _tell(self, change: Change, job: Job) -> None:
        for listener, _ in tuple(self.listeners.get(job.id, ())):
            listener(change, job)

    def _typical(self) -> float | None:
        return sum(self.durations) / len(self.durations) if self.durations else None

    # What the worker tells, in the supervisor's thread

    def progressed(self, told: Mapping[str, Any], preview: bytes) -> None:
        """Note how far a job is."""
        with self.lock:
            job = self.running.get(told["job"])
            if job is None:
                return
            count = job.resolved.num_outputs_per_prompt
            share = told["step"] / told["steps"] if told["steps"] else 0.0
            percent = min(99, int((told["index"] + 0.95 * share) / count * 100))
            job.percent, job.stage = max(job.percent, percent), told["stage"]
            job.step, job.steps, job.eta_s = told["step"], told["steps"], told["eta_s"]
            if preview:
                job.preview = preview
            self._tell("preview" if preview else "progress", job)

    def drawn(self, told: Mapping[str, Any]) -> None:
        """Encode and store an output that the worker has finished, away from its loop."""
        with self.lock:
            job = self.running.get(told["job"])
            if job is None:
                Path(told["path"]).unlink(missing_ok=True)
                return
            job.stage = "encoding"
            self.pool.submit(self._deliver, job, told)

    def _deliver(self, job: Job, told: Mapping[str, Any]) -> None:
        try:
            frames = np.fromfile(told["path"], np.uint8).reshape(told["shape"])
            Path(told["path"]).unlink(missing_ok=True)
            artifact = self.delivery.deliver(job, told["index"], frames, told["recipe"])
        except SgdiffError as error:
            self.ended(job.id, error.code, error.message)
            return
        except Exception as error:
            logger.exception("job %s: cannot be delivered", job.id)
            self.ended(job.id, "generation_failed", f"the output cannot be stored: {type(error).__name__}")
            return
        with self.lock:
            timings = told["timings"]
            job.artifacts.append(artifact)
            job.recipes.append(told["recipe"])
            job.artifacts.sort(key=lambda entry: entry.location)
            job.inference_s += timings["total_ms"] / 1000
            job.peak_memory_mb = max(job.peak_memory_mb, timings["peak_memory_mb"])
            for name, value in timings["stages"]:
                job.stages[name] = job.stages.get(name, 0.0) + value
            for name, value in timings["tokens"].items():
                job.usage[name] = job.usage.get(name, 0) + value
            self._tell("output", job)
            if len(job.artifacts) == job.resolved.num_outputs_per_prompt:
                self._end(job, "done")

    def ended(self, job_id: str, code: str, message: str) -> None:
        """End a running job that failed or was cancelled."""
        with self.lock:
            job = self.running.get(job_id)
            if job is not None:
                self._end(job, "cancelled" if code == "cancelled" else "failed", code=code, message=message)

    def died(self, code: str, message: str) -> None:
        """Fail whatever the worker had."""
        with self.lock:
            for job in list(self.running.values()):
                if not job.artifacts or job.stage != "encoding":
                    self._end(job, "failed", code=code, message=message)

    def sweep(self) -> None:
        """Cancel what takes too long, remove what has expired."""
        limit, now = self.options.job_timeout_s, wall()
        with self.lock:
            for job in list(self.running.values()):
                if limit is not None and job.started_at is not None and now - job.started_at > limit:
                    self.supervisor.send("cancel", job=job.id)
                    self._end(job, "failed", code="timeout", message=f"the job took longer than {limit:g} s")
        for job in self.store.expired(now) if self.options.output_ttl_s is not None else ():
            self.delivery.remove(job)
            job.expired = True
            self.store.save(job)

    def _end(self, job: Job, status: Literal["done", "failed", "cancelled"], code: str = "", message: str = "") -> None:
        if job in self.waiting:
            self.waiting.remove(job)
        self.running.pop(job.id, None)
        job.status, job.completed_at, job.eta_s, job.preview = status, wall(), None, None
        assert status in FINAL
        if status == "done":
            job.percent, job.stage = 100, ""
            self.durations.append(job.completed_at - (job.started_at or job.completed_at))
            if self.options.output_ttl_s is not None:
                job.expires_at = job.completed_at + self.options.output_ttl_s
        else:
            job.error = {"code": code, "message": message}
        if job.notes.get("deleted"):
            self.delivery.remove(job)
        else:
            self.store.save(job)
        if status != "done":
            self.delivery.remove(job)
        for observer in self.observers:
            observer(job)
        self._tell("status", job)
        self.listeners.pop(job.id, None)
        with self.supervisor.changed:
            self.supervisor.changed.notify_all()
        self.dispatch()
