"""Outputs on their way from the worker's raw frames to artifacts of their job, away from its loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import log
from engine.errors import OutputError, SgdiffError, UploadFailed
from engine.jobs.delivery import Delivery
from engine.jobs.job import Job
from engine.types import Artifact

if TYPE_CHECKING:
    from engine.jobs.queue import JobQueue

logger = log.get(__name__)

THREADS = 2
MOST_STEPS = 500  # whose times are kept: a record is read and written as a whole
Told = Mapping[str, Any]
LOST = "the output cannot be stored; the log of the server says why"


class Encoding:
    """A few threads that encode. A job that ends meanwhile is not changed any more, and nothing of it stays."""

    def __init__(self, queue: JobQueue, delivery: Delivery) -> None:
        self.queue, self.delivery = queue, delivery
        self.pool = ThreadPoolExecutor(THREADS, "encode")
        self.ahead: dict[str, dict[int, tuple[Artifact, Told]]] = {}  # outputs that wait for an earlier one

    def close(self) -> None:
        """Finish what is in hand and end."""
        self.pool.shutdown(wait=True, cancel_futures=True)

    def take(self, job: Job, told: Told) -> None:
        """Have an output encoded and stored."""
        self.aside(self._deliver, job, told)

    def aside(self, work: Callable[..., object], *given: Any) -> None:
        """Do something away from the loop of the worker; what goes wrong is logged."""
        try:
            self.pool.submit(_logged, work, *given)
        except RuntimeError:
            logger.warning("%s: not done, the server is being stopped", work.__name__)

    def forget(self, job: Job) -> list[Artifact]:
        """Return the outputs that a job has not been given; the caller holds the lock."""
        return [artifact for artifact, _ in self.ahead.pop(job.id, {}).values()]

    def _deliver(self, job: Job, told: Told) -> None:
        """Encode and store an output, or fail its job."""
        raw = Path(told["path"])
        try:
            if self.queue.runs(job):
                self._store(job, told, raw)
        except UploadFailed as error:
            self.queue.ended(job.id, error.code, error.message)
        except Exception as error:
            reason = error.message if isinstance(error, SgdiffError) else type(error).__name__
            logger.error("job %s: cannot be stored: %s", job.id, reason, exc_info=not isinstance(error, OutputError))
            self.queue.ended(job.id, "generation_failed", LOST)
        finally:
            raw.unlink(missing_ok=True)

    def _store(self, job: Job, told: Told, raw: Path) -> None:
        frames = np.fromfile(raw, np.uint8).reshape(told["shape"])
        raw.unlink()
        artifact = self.delivery.deliver(job, told["index"], frames, told["recipe"])
        given = False
        try:
            given = self._give(job, artifact, told)
        finally:
            if not given:
                self.delivery.discard([artifact])

    def _give(self, job: Job, artifact: Artifact, told: Told) -> bool:
        """Give a job an output, and those that waited for it; return False when the job has ended."""
        with self.queue.lock:
            if not self.queue.runs(job):
                return False
            ahead = self.ahead.setdefault(job.id, {})
            ahead[told["index"]] = artifact, told
            while (entry := ahead.pop(len(job.artifacts), None)) is not None:
                add(job, *entry)
                self.queue.delivered(job)
            return True


def _logged(work: Callable[..., object], *given: Any) -> None:
    try:
        work(*given)
    except Exception:
        logger.exception("%s failed", work.__name__)


def add(job: Job, artifact: Artifact, told: Told) -> None:
    """Add an output, and what it took, to its job."""
    timings = told["timings"]
    job.inference_s += timings["total_ms"] / 1000
    job.peak_memory_mb = max(job.peak_memory_mb, timings["peak_memory_mb"])
    for name, value in timings["stages"]:
        job.stages[name] = job.stages.get(name, 0.0) + value
    left = MOST_STEPS - len(job.steps_ms)
    job.steps_ms += [round(value, 1) for value in timings["denoise_steps"][:left]]
    for name, value in timings["tokens"].items():
        job.usage[name] = job.usage.get(name, 0) + value
    job.recipes.append(told["recipe"])
    job.artifacts.append(artifact)
