"""Supervisor: keeps one worker alive with the right model, hears it, and starts another one when it dies."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from engine import log, schema
from engine.config import EngineConfig
from engine.env import Environment
from engine.errors import SgdiffError, UsageError, WorkerDied
from engine.jobs import served
from engine.jobs.child import Child
from engine.jobs.job import Job, plain_requests
from engine.profiler import monotonic
from engine.types import LoraRef

if TYPE_CHECKING:
    from engine.jobs.queue import JobQueue

logger = log.get(__name__)

POLL_S = 0.5  # how often time limits are looked at
GRACE_S = 5.0  # for a worker that is told to end while it draws
RESTARTS, WITHIN_S = 3, 600.0  # so many new workers within this time, and then no more
CONTROL = ("set_lora", "merge_lora", "unmerge_lora")  # calls after which requests are drawn with other adapters
FREE = ("list_loras",)  # calls that wait for the next worker when one has died
Call = Future[dict[str, Any]]


class Supervisor:
    """One thread that owns the worker. `changed` is notified on every change of health and at the end of every job."""

    def __init__(self, queue: JobQueue, config: EngineConfig, environment: Environment, command: Sequence[str]) -> None:
        self.queue, self.environment, self.command = queue, environment, command
        self.changed = threading.Condition(queue.lock)
        self.health, self.error = "loading", ""
        self.given_up = self.closed = False
        self.troubled = False  # a worker has died, and none has been ready since
        # The model of requests, the adapters of those that name none, and these as the worker of today knows them.
        self.served, self.spec = config, served.described(config, environment)
        self.loras, self.setting = served.adapters(config), None if config.lora_path else 0
        self.chosen = False  # whether a call chose these adapters
        # The model that is loaded, or being loaded, and what its worker said of itself.
        self.config, self.first = config, config
        self.child: Child | None = None
        self.serving = False  # whether the worker takes commands
        self.exclusive = False
        self.told: Mapping[str, Any] = {}
        self.failure: SgdiffError | None = None
        self.reason: SgdiffError | None = None  # why it was given up
        self.adapters = 0  # LoRA files that the worker holds
        self.deaths: deque[float] = deque(maxlen=RESTARTS + 1)
        # The model to load next; who waits for it, and what was served before.
        self.wanted: EngineConfig | None = None
        self.switching: Future[None] | None = None
        self.before: tuple[EngineConfig, tuple[LoraRef, ...], bool] | None = None
        self.calls: dict[int, tuple[str, Call]] = {}
        self.later: list[tuple[str, Mapping[str, Any], Call]] = []  # calls for a worker that is not there yet
        self.numbers = itertools.count()
        self.thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Start the worker in the background."""
        self.thread.start()

    def close(self) -> None:
        """Stop the worker and the thread."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        self.send("stop")
        if self.thread.is_alive():
            self.thread.join()

    def wait(self, timeout: float | None, *states: str) -> str:
        """Wait until health is one of `states`, at most `timeout` seconds; return what it is then."""
        end = None if timeout is None else monotonic() + timeout
        with self.changed:
            while self.health not in states and not self.closed:
                left = None if end is None else end - monotonic()
                if left is not None and left <= 0:
                    break
                self.changed.wait(left)
            return self.health

    # What the queue says; it holds the lock

    def send(self, op: str, **fields: Any) -> None:
        """Send a command to the worker, if there is one."""
        if self.child is not None:
            self.child.send(op, **fields)

    def submit(self, job: Job, preview: bool) -> None:
        """Have a job drawn."""
        refs = [schema.plain(ref) for ref in job.loras]
        _, request = plain_requests(job)
        self.send("submit", job=job.id, request=request, setting=job.setting, loras=refs, preview=preview)

    @property
    def due(self) -> bool:
        """Whether somebody waits for the served model while the worker has another one."""
        return self.config.model_path != self.served.model_path and bool(self.switching or self.later)

    def change(self, model_path: str) -> None:
        """Load another model as soon as the worker has ended; nothing runs."""
        if model_path == self.served.model_path:
            self.wanted = self.served
        else:
            self.wanted = self._settings(model_path)
        self._say("loading")
        self.send("stop")

    def _settings(self, model_path: str) -> EngineConfig:
        return self.first if model_path == self.first.model_path else served.of_model(self.first, model_path)

    # What doors ask for

    def call(self, name: str, arguments: Mapping[str, Any]) -> Call:
        """Send a control call, now or, while the served model is not there, to the next worker."""
        future = Call()
        future.set_running_or_notify_cancel()  # whoever asks may go; the answer comes all the same
        with self.changed:
            if self.closed or self.given_up or (self.health == "unhealthy" and name not in FREE):
                future.set_exception(WorkerDied(self.error or "the worker has died", final=self.given_up))
            elif self.serving and self.config.model_path == self.served.model_path and self.wanted is None:
                self._post(name, arguments, future)
            else:
                self.later.append((name, arguments, future))
                self.queue.dispatch()
        return future

    def _post(self, name: str, arguments: Mapping[str, Any], future: Call) -> None:
        number = next(self.numbers)
        self.calls[number] = name, future
        self.send("call", call=number, name=name, arguments=dict(arguments))

    def switch(self, model_path: str) -> Future[None]:
        """Serve another model from now on. Raises what is wrong with it before anything is stopped."""
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        config = self._settings(model_path)
        spec = served.described(config, self.environment, strict=True)
        with self.changed:
            if model_path == self.served.model_path and not self.given_up:
                future.set_result(None)
                return self.switching or future
            if self.switching is not None:
                self.switching.set_exception(UsageError("another model was asked for meanwhile"))
            else:
                self.before = None if self.given_up else (self.served, self.loras, self.chosen)
            self._serve(config, served.adapters(config))
            self.spec, self.switching = spec, future
            self.deaths.clear()
            self.given_up = self.troubled = False
            if self.serving and self.config.model_path == model_path and self.wanted is None:
                self._adopt()
                self._switched()
            elif not self.queue.running:
                self.change(model_path)
        return future

    def _serve(self, config: EngineConfig, loras: tuple[LoraRef, ...], chosen: bool = False) -> None:
        self.served, self.loras, self.setting, self.chosen = config, loras, None, chosen

    def _switched(self) -> None:
        if self.config.model_path == self.served.model_path:
            self.before = None
            if self.switching is not None:
                self.switching.set_result(None)
                self.switching = None

    # The thread

    def _run(self) -> None:
        lost = False
        while lost or not self.closed:
            try:
                status = self._recover() if lost else self._work()
                self._ended(status)
                lost = False
            except Exception:  # whatever it is: nobody may wait for a thread that is gone
                logger.exception("the worker is ended: its supervisor failed")
                if lost and self.closed:
                    return
                if lost:
                    with self.changed:
                        self.changed.wait(POLL_S)
                lost = True

    def _work(self) -> int:
        """Start a worker and hear it out; return its exit status."""
        with self.changed:
            if self.wanted is not None:
                self.config, self.wanted = self.wanted, None
            self._say("loading")
            self.child = child = Child(self.command)
            self._load()
        return self._hear_out(child)

    def _recover(self) -> int:
        """End a worker that can be heard no more; that counts as its death."""
        with self.changed:
            child, self.child, self.serving, self.troubled = self.child, None, False, True
            self._say("unhealthy")
        return 1 if child is None else child.stop(0.0)

    def _load(self) -> None:
        level, form = log.current()
        chosen = [schema.plain(ref) for ref in self.loras] if self.chosen and self._is_served() else None
        self.send(
            "load",
            config=schema.plain(self.config),
            loras=chosen,
            scratch=str(self.queue.delivery.scratch),
            max_running=self.queue.options.max_running,
            log_level=level,
            log_format=form,
        )

    def _hear_out(self, child: Child) -> int:
        """Hear a worker until it ends, or must; return its exit status."""
        swept, grace_s = monotonic(), 0.0  # one that loads has nothing to lose
        try:
            while not self.closed and (self.serving or self.wanted is None):
                message = child.receive(POLL_S)
                if message is not None:
                    self._hear(*message)
                if monotonic() - swept >= POLL_S:
                    swept = monotonic()
                    self.queue.sweep()
        except EOFError:
            grace_s = GRACE_S
        return child.stop(GRACE_S if self.serving else grace_s)

    def _hear(self, told: Mapping[str, Any], payload: bytes) -> None:
        self.adapters = told.get("adapters", self.adapters)
        match told["event"]:
            case "progress":
                self.queue.progressed(told, payload)
            case "output":
                self.queue.drawn(told)
            case "failed":
                self.queue.ended(told["job"], told["error"]["code"], told["error"]["message"])
            case "reply":
                self._answer(told)
            case "loaded":
                self._loaded(told)
            case "load_failed":
                self.failure = served.error_of(told["error"])
            case "ready":
                self._ready()

    def _answer(self, told: Mapping[str, Any]) -> None:
        with self.changed:
            name, future = self.calls.pop(told["call"])
            if "error" not in told and name in CONTROL:
                self.setting, self.chosen = told["setting"], True
                self.loras = tuple(schema.read(LoraRef, ref) for ref in told["loras"])
        if "error" in told:
            future.set_exception(served.error_of(told["error"]))
        else:
            future.set_result({"result": told["result"]})

    def _is_served(self) -> bool:
        return self.config.model_path == self.served.model_path

    def _loaded(self, told: Mapping[str, Any]) -> None:
        with self.changed:
            self.told, self.exclusive = told, told["exclusive"]
            if self._is_served():
                self._adopt()
            self._say("warming")

    def _adopt(self) -> None:
        """Take over what the worker said of the served model."""
        self.spec = served.spec_of(self.told["spec"])
        loras = tuple(schema.read(LoraRef, ref) for ref in self.told["loras"])
        if not self.chosen:
            self.loras = loras
        self.setting = 0 if loras == self.loras else None

    def _ready(self) -> None:
        with self.changed:
            self.serving, self.troubled, self.error = True, False, ""
            self._say("ready")
            self._switched()
            if self._is_served():
                for name, arguments, future in self.later:
                    self._post(name, arguments, future)
                self.later.clear()
            self.queue.dispatch()

    def _ended(self, status: int) -> None:
        """Decide what comes after a worker that has ended."""
        with self.changed:
            self.child, self.serving, self.setting = None, False, None
            failure, self.failure = self.failure, None
            for job in self.queue.waiting:
                job.setting = None  # a number of the worker that has ended
            if self.closed:
                self._dismiss()
                return
            if failure is not None:
                logger.error("%s", failure.message)
                self._lose(failure, "model_load_failed")
            elif self.wanted is None:
                self._died(status)
            for _, future in self.calls.values():
                future.set_exception(WorkerDied("the worker has died", final=self.given_up))
            self.calls.clear()
            while self.given_up and self.wanted is None and not self.closed:
                self.changed.wait()

    def _died(self, status: int) -> None:
        self.deaths.append(monotonic())
        recent = [death for death in self.deaths if death > monotonic() - WITHIN_S]
        self.error, self.troubled = f"the worker process has died (exit status {status})", True
        logger.error("%s", self.error)
        self._say("unhealthy")
        self.queue.died("worker_died", self.error)
        if len(recent) > RESTARTS:
            count, minutes = RESTARTS + 1, WITHIN_S / 60
            message = f"{self.error}; it died {count} times within {minutes:.0f} minutes, and is not started again"
            self._lose(WorkerDied(message, final=True), "worker_died")

    def _lose(self, failure: SgdiffError, code: str) -> None:
        """Do without a model that does not load or stay: go back to one that did, else wait for another order."""
        lost, self.troubled = self.config.model_path, False
        if lost != self.served.model_path:
            self.change(self.served.model_path)
        elif self.before is not None:
            config, loras, chosen = self.before
            self.before = None
            self._serve(config, loras, chosen)
            self.spec = served.described(config, self.environment)
            self.change(config.model_path)
        else:
            self.given_up, self.error, self.reason = True, failure.message, failure
            self._dismiss(failure)
            self._say("unhealthy")
        self.deaths.clear()
        if code == "model_load_failed" or not self.given_up:
            self.queue.abandon(code, failure.message, lost)
        if self.given_up:
            self.queue.abandon(code, failure.message)
        if self.switching is not None:
            self.switching.set_exception(failure)
            self.switching = None

    def _dismiss(self, failure: SgdiffError | None = None) -> None:
        """Tell everybody who waits for an answer of the worker that there is none."""
        reason = failure or WorkerDied("the server is being stopped", final=True)
        for future in (*(entry[-1] for entry in self.calls.values()), *(entry[-1] for entry in self.later)):
            future.set_exception(reason)
        self.calls.clear()
        self.later.clear()
        if self.closed and self.switching is not None:
            self.switching.set_exception(reason)
            self.switching = None

    def _say(self, health: str) -> None:
        troubled = self.troubled and health in ("loading", "warming")
        self.health = "unhealthy" if troubled else health
        self.changed.notify_all()
