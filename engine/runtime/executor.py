"""Drives the step scheduler in the caller's own thread: no thread, no child process."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from engine.lora.manager import LoraSet
from engine.pipeline import Pipeline
from engine.runtime.control import Control
from engine.runtime.scheduler import Run, StepScheduler
from engine.types import Progress, Request


class InlineExecutor:
    """Runs requests where they are asked for. Callers in several threads drive one another's runs, step by step."""

    def __init__(self, pipeline: Pipeline, max_running: int = 4) -> None:
        self.scheduler = StepScheduler(pipeline, max_running)

    def drive(
        self, request: Request, control: Control, index: int = 0, loras: LoraSet = ()
    ) -> Iterator[Progress | Run]:
        """Yield the Progress of output number `index`, then the finished run. Raises what the run failed with.

        Leaving the iterator ends the run. The stock call of a passthrough model is one unit, so its Progress comes
        after it; listeners of `control` hear it at once.
        """
        events: deque[Progress] = deque()
        with control.heard_by(events.append):
            run = self.scheduler.submit(request, control, index, loras)
            try:
                while not run.finished:
                    assert self.scheduler.tick() or run.finished, "a run that is neither queued nor finished"
                    while events:
                        yield events.popleft()
            finally:
                self.scheduler.abandon(run)
        if run.error is not None:
            raise run.error
        yield run
