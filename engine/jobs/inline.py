"""InlineQueue: jobs drawn in this process by the threads that ask for them, where there can be no worker of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine import hub, log, schema, worker
from engine.config import EngineConfig
from engine.engine import Engine
from engine.env import Environment
from engine.errors import GenerationError, NotAvailable, SgdiffError, UsageError, shown
from engine.jobs.delivery import Delivery
from engine.jobs.job import PREFIXES, Job, Kind, new_id, plain_requests
from engine.jobs.queue import JobQueue, QueueOptions
from engine.jobs.store import JobStore
from engine.jobs.supervisor import FREE, Call, Supervisor
from engine.runtime.channel import Message
from engine.types import Output, Request

logger = log.get(__name__)

ATTENDED = "attended"  # in the notes of a job: whoever asked for it draws it
READING = (*FREE, "memory")  # calls that change nothing
PATIENCE_S = 20.0  # so long such a job waits for them; then a thread draws it

Events = Generator[Message, None, None]
Draw = Callable[[str, Mapping[str, Any], bool], Events]  # job, resolved request, whether with previews
Device = Callable[[Draw], Draw]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """What one request may ask for at most, and the adapters it may name; None: any."""

    caps: Mapping[str, int] = field(default_factory=dict)
    loras: tuple[str, ...] | None = None

    def limits(self, known: Mapping[str, int], defaults: Mapping[str, Any]) -> dict[str, int]:
        """Return the upper bounds of fields; what a model does by itself is never too much."""
        caps = {name: max(cap, int(defaults.get(name) or 0)) for name, cap in self.caps.items()}
        return {**caps, **{name: min(bound, caps.get(name, bound)) for name, bound in known.items()}}

    def check(self, request: Request) -> None:
        """Raise UsageError for an adapter that is not among those to choose from."""
        if self.loras is None:
            return
        bundled = hub.bundled_loras()
        places = {path.resolve() for name, path in bundled.items() if name in self.loras}
        for ref in request.loras or ():
            if ref.path is None or ref.path in self.loras or Path(ref.path).resolve() in places:
                continue
            choice = ", ".join(self.loras) or "none"
            raise UsageError(f"loras: must be among {choice}; got '{shown(ref.path)}'", param="loras")


class InlineQueue(JobQueue):
    """The engine lives in this process, and `drive` draws a job in the thread that calls it.

    `device` wraps the generator that draws. What it is given and what it yields is plain data: it may run in a copy of
    this process that is thrown away, and has a device that this one lacks. So adapters come with a request alone.
    """

    def __init__(
        self,
        config: EngineConfig,
        environment: Environment,
        store: JobStore,
        delivery: Delivery,
        options: QueueOptions | None = None,
        *,
        device: Device = lambda draw: draw,
        fence: Fence | None = None,
    ) -> None:
        super().__init__(config, environment, store, delivery, options)
        self.fence = fence or Fence()
        self.attended: Callable[[Job], bool] = lambda job: False  # whether they who asked for a job are still there
        self.contexts: dict[str, Context] = {}  # in which jobs were asked for; a device may be lent to a visitor
        self.observers.append(self._forget)
        self.supervisor = self.inline = InlineSupervisor(self, config, environment, device)

    def submit(
        self,
        request: Request,
        kind: Kind,
        *,
        resolved: Request,
        job_id: str | None = None,
        notes: Mapping[str, Any] | None = None,
        **rest: Any,
    ) -> Job:
        """Take a job in, as every queue does. Raises UsageError for what the fence keeps out."""
        self.fence.check(resolved)
        self.sweep()
        name = job_id or new_id(PREFIXES[kind])
        self.contexts[name] = copy_context()
        try:
            return super().submit(request, kind, resolved=resolved, job_id=name, notes=notes, **rest)
        except SgdiffError:
            del self.contexts[name]
            raise

    def _forget(self, job: Job) -> None:
        self.contexts.pop(job.id, None)

    def is_due(self, job: Job) -> bool:
        """Whether it is the turn of a job, and nobody draws it yet."""
        return job.id in self.inline.begun

    def drive(self, job: Job) -> Generator[None, None, None]:
        """Draw a job that is due, yielding after each of its events; nothing when somebody else draws it.

        Who leaves early does not end the job: a thread goes on with it.
        """
        with self.lock:
            if self.inline.begun.pop(job.id, None) is None:
                return
            context = self.contexts[job.id].copy()
            preview = self.listeners.looked(job.id)
        _, request = plain_requests(job)
        events = self.inline.draw(job.id, request, preview)
        there = False
        try:
            while self._step(job, events):
                yield
            there = True
        finally:
            if not there:
                threading.Thread(target=context.run, args=(self._finish, job, events), daemon=True).start()

    def _finish(self, job: Job, events: Events) -> None:
        while self._step(job, events):
            pass

    def _step(self, job: Job, events: Events) -> bool:
        """Hear the next event of a job; return False when there is none, or none is wanted any more."""
        self.sweep()
        try:
            if self.runs(job) and not job.cancelled and (message := next(events, None)) is not None:
                self.inline.hear(*message)
                return True
            events.close()
        except Exception as error:  # whatever a device does: the next job is another one
            logger.exception("job %s cannot be drawn", job.id)
            self.ended(job.id, "generation_failed", f"generation failed: {worker.reason(error)}")
            return False
        if self.runs(job) and job.drawn < job.outputs:
            code = "cancelled" if job.cancelled else "generation_failed"
            self.ended(job.id, code, "the drawing ended early")
        return False


class InlineSupervisor(Supervisor):
    """Stands where the worker of other queues is minded: there is an engine, and nothing to restart."""

    def __init__(self, queue: InlineQueue, config: EngineConfig, environment: Environment, device: Device) -> None:
        super().__init__(queue, config, environment, ())
        self.fence = queue.fence
        self.contexts, self.drive = queue.contexts, queue.drive
        self.attended: Callable[[Job], bool] = lambda job: queue.attended(job)
        self.begun: dict[str, Job] = {}  # due, and drawn by nobody yet
        self.engine: Engine | None = None
        self.draw = device(self._draw)
        self._bound()

    def start(self) -> None:
        """Load the engine, here and now. Raises ModelError or UsageError."""
        self.engine = Engine(self.config, self.environment)
        self._loaded(worker.described(self.engine))
        self._ready()

    def close(self) -> None:
        """Free the engine."""
        super().close()
        if self.engine is not None:
            self.engine.close()

    def _adopt(self) -> None:
        super()._adopt()
        self._bound()

    def _bound(self) -> None:
        if self.spec is not None:
            self.spec = replace(self.spec, limits=self.fence.limits(self.spec.limits, self.spec.defaults))

    # What the queue says; it holds the lock

    def submit(self, job: Job, preview: bool) -> None:
        """Have a job drawn by whoever asked for it, else by a thread."""
        self.begun[job.id] = job
        self._wait(job)

    def _wait(self, job: Job) -> None:
        timer = threading.Timer(PATIENCE_S if job.notes.get(ATTENDED) else 0.0, self._look, (job,))
        timer.daemon = True
        timer.start()

    def _look(self, job: Job) -> None:
        with self.changed:
            context = self.contexts.get(job.id)
            if job.id not in self.begun or context is None or self.closed:
                return
            if self.attended(job):  # another job of theirs is drawn first
                self._wait(job)
                return
        context.copy().run(self._alone, job)

    def send(self, op: str, **fields: Any) -> None:
        """Drop a job that is cancelled before anybody draws it; who draws one looks for themselves."""
        job = self.begun.pop(str(fields.get("job", "")), None) if op == "cancel" else None
        if job is not None:
            self.queue.ended(job.id, "cancelled", "")

    def _alone(self, job: Job) -> None:
        for _ in self.drive(job):
            pass

    # What doors ask for

    def call(self, name: str, arguments: Mapping[str, Any]) -> Call:
        """Answer what changes nothing."""
        future = Call()
        try:
            if self.engine is None or name not in READING:
                raise NotAvailable(f"{name}: the adapters of this server are fixed; name those of a request in it")
            future.set_result({"result": getattr(self.engine, name)(**arguments)})
        except SgdiffError as error:
            future.set_exception(error)
        return future

    def switch(self, model_path: str) -> Future[None]:
        """Refuse it."""
        raise NotAvailable("this server keeps its model")

    # Drawing

    def hear(self, told: Mapping[str, Any], payload: bytes) -> None:
        """Take an event; the frames of an output go where the encoding takes them from."""
        if told["event"] == "output":
            scratch = self.queue.delivery.scratch
            scratch.mkdir(0o700, parents=True, exist_ok=True)
            path = scratch / f"{told['job']}-{told['index']}.raw"
            path.write_bytes(payload)
            told = {**told, "path": str(path)}
        self._hear(told, payload)

    def _draw(self, job: str, request: Mapping[str, Any], preview: bool) -> Events:
        """Draw a request; what goes wrong is an event like others, as all that leaves a copy of this process."""
        from engine.runtime.control import Control

        assert self.engine is not None
        resolved = schema.read(Request, request)
        try:
            for event in self.engine.events(resolved, Control(preview=preview)):
                if isinstance(event, Output):
                    last = event.index + 1 == resolved.num_outputs_per_prompt
                    yield worker.handed_over(job, event, last), event.frames.tobytes()
                else:
                    yield worker.heard(job, event)
        except SgdiffError as error:
            yield failed(job, error), b""


def failed(job: str, error: SgdiffError | str) -> dict[str, Any]:
    """Return the event of a job that came to nothing."""
    known = error if isinstance(error, SgdiffError) else GenerationError(error)
    return {"event": "failed", "job": job, "error": worker.said(known)}
