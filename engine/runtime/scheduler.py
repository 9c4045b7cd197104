"""Which run's step is next: active runs take turns, an exclusive one runs alone."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from engine import log
from engine.errors import Cancelled, GenerationError, OutOfMemory, SgdiffError, UsageError
from engine.lora.manager import LoraSet
from engine.pipeline import Pipeline
from engine.profiler import now, reset_peak
from engine.runtime.control import Control
from engine.types import Request, State, Timings

logger = log.get(__name__)

KEPT = 10  # times what a change of LoRAs took
CLOCK = torch.device("cpu")  # whose time is asked for without waiting for a device
MEMORY_ADVICE = (
    "not enough memory on {device}: try a smaller size or fewer frames, --vae-tiling, --text-encoder-cpu-offload, "
    "--dit-cpu-offload, or a lower precision"
)


@dataclass(slots=True, eq=False)
class Run:
    """One output on its way."""

    request: Request  # resolved, one output
    control: Control
    index: int = 0
    loras: LoraSet = ()
    phase: Literal["waiting", "denoising", "decoding", "done", "failed"] = "waiting"
    state: State | None = None
    result: tuple[Any, Timings] | None = None
    error: SgdiffError | None = None

    @property
    def finished(self) -> bool:
        return self.phase in ("done", "failed")


class StepScheduler:
    """Holds the active runs of one pipeline. A unit of work is: all stages before the first step, one step, or decode.

    Units are taken in turns (round robin), so a short image does not wait behind a long video. `max_running` bounds
    the runs whose steps interleave. A set of LoRAs that has come into the weights stays for ten times as long as that
    took, while there is work for it. Safe to drive from several threads: units never overlap.
    """

    def __init__(self, pipeline: Pipeline, max_running: int = 4) -> None:
        self.pipeline = pipeline
        self.max_running = 1 if pipeline.exclusive else max_running
        self.waiting: deque[Run] = deque()
        self.active: deque[Run] = deque()
        self.lock = threading.RLock()
        self.owner: int | None = None  # the thread that is inside a unit of work

    def submit(self, request: Request, control: Control, index: int = 0, loras: LoraSet = ()) -> Run:
        """Queue a resolved request for one output, number `index` of what was asked. Raises as `tick` does."""
        self.refuse_reentry()
        run = Run(request, control, index, loras)
        with self.lock:
            self.waiting.append(run)
        return run

    def abandon(self, run: Run) -> None:
        """Forget a run that nobody waits for any more, and free what it holds; finished runs stay as they are."""
        with self.lock:
            for queue in (self.waiting, self.active):
                if run in queue:
                    queue.remove(run)
            run.state = None

    def tick(self) -> bool:
        """Do one unit of work; return False when there is none. A failing run fails alone.

        Raises UsageError when called from inside a unit, as by a progress listener that draws.
        """
        self.refuse_reentry()
        with self.lock:
            while self.waiting and len(self.active) < self.max_running:
                self.active.append(self.waiting.popleft())
            if not self.active:
                return False
            run = self._next()
            self.active.remove(run)
            self.owner = threading.get_ident()
            try:
                self._work(run)
            finally:
                self.owner = None
            if not run.finished:
                self.active.append(run)
            return True

    def settle(self) -> None:
        """Bring the current set of LoRAs into the weights, unless a run is under way, which keeps its own."""
        self.refuse_reentry()
        with self.lock:
            if self.active:
                return
            try:
                self.pipeline.loras.activate(self.pipeline.loras.current)
            except torch.OutOfMemoryError as error:
                self._free()
                raise self._out_of_memory(error) from error

    def _next(self) -> Run:
        """Return the run whose turn it is; for a while after a change of LoRAs, the first that needs no other ones."""
        loras = self.pipeline.loras
        if now(CLOCK) - loras.swapped_at < KEPT * loras.swap_s:
            return next((run for run in self.active if self._fits(run)), self.active[0])
        return self.active[0]

    def _fits(self, run: Run) -> bool:
        """Say whether the next unit of a run needs no other LoRAs than those in the weights."""
        return not self._uses_loras(run) or self.pipeline.loras.fits(run.loras)

    def _uses_loras(self, run: Run) -> bool:
        return run.phase == "denoising" or (run.phase == "waiting" and self.pipeline.denoises_at_once)

    def refuse_reentry(self) -> None:
        """Raise UsageError in the thread that is inside a unit of work."""
        if self.owner == threading.get_ident():
            raise UsageError("an engine can neither draw nor change LoRAs from inside its own progress callback")

    def _work(self, run: Run) -> None:
        try:
            self._unit(run)
        except SgdiffError as error:
            run.error = error
        except torch.OutOfMemoryError as error:
            run.error = self._out_of_memory(error)
        except Exception as error:  # noqa: BLE001 - the loop outlives whatever a run does
            run.error = self._out_of_memory(error) if _is_host_memory(error) else _failure(error)
        except BaseException:  # an interrupt of the thread that drives; whoever waits for the run must hear of it
            run.error, run.phase, run.state = Cancelled("cancelled"), "failed", None
            raise
        if run.error is not None:
            run.phase, run.state = "failed", None
            if isinstance(run.error, OutOfMemory):
                self._free()

    def _free(self) -> None:
        self.pipeline.loras.release(for_good=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _unit(self, run: Run) -> None:
        units: dict[str, Callable[[Run], None]] = {
            "waiting": self._begin,
            "denoising": self._step,
            "decoding": self._finish,
        }
        if self._uses_loras(run):
            self.pipeline.loras.activate(run.loras)
        units[run.phase](run)

    def _begin(self, run: Run) -> None:
        run.control.check()
        if not self.active:
            reset_peak(self.pipeline.device)  # interleaved runs share one peak
        run.state = self.pipeline.begin(run.request, run.control, run.index)
        run.phase = "denoising" if run.state.step < run.state.steps else "decoding"

    def _step(self, run: Run) -> None:
        assert run.state is not None
        if not self.pipeline.advance(run.state):
            run.phase = "decoding"

    def _finish(self, run: Run) -> None:
        assert run.state is not None
        run.result = self.pipeline.finish(run.state)
        run.phase, run.state = "done", None

    def _out_of_memory(self, error: Exception) -> OutOfMemory:
        logger.debug("out of memory", exc_info=error)
        return OutOfMemory(MEMORY_ADVICE.format(device=self.pipeline.device))


def _is_host_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def _failure(error: Exception) -> GenerationError:
    logger.debug("generation failed", exc_info=error)
    failure = GenerationError(f"generation failed: {str(error) or type(error).__name__}")
    failure.__cause__ = error
    return failure
