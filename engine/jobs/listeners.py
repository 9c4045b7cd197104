"""Who hears of the changes of a job, and who looks at its previews. The caller holds the lock of the queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from engine import log
from engine.jobs.job import Job

logger = log.get(__name__)

Change = Literal["status", "progress", "preview", "output"]
Listener = Callable[[Change, Job], None]


class Listeners:
    """Listeners by job. They hear changes in the thread that makes them, and must return at once."""

    def __init__(self) -> None:
        self.entries: dict[str, list[tuple[Listener, bool]]] = {}

    def get(self, job_id: str) -> list[tuple[Listener, bool]]:
        """Return who hears of a job, and whether they look at previews."""
        return self.entries.get(job_id, [])

    def add(self, job_id: str, listener: Listener, preview: bool) -> None:
        """Have a listener hear of a job."""
        self.entries.setdefault(job_id, []).append((listener, preview))

    def remove(self, job_id: str, listener: Listener) -> None:
        """Have a listener hear of a job no more."""
        left = [entry for entry in self.entries.pop(job_id, ()) if entry[0] != listener]
        if left:
            self.entries[job_id] = left

    def drop(self, job_id: str) -> None:
        """Forget a job."""
        self.entries.pop(job_id, None)

    def looked(self, job_id: str) -> bool:
        """Say whether somebody looks at the previews of a job."""
        return any(preview for _, preview in self.get(job_id))

    def tell(self, change: Change, job: Job) -> None:
        """Tell of a change."""
        for listener, _ in tuple(self.get(job.id)):
            heard(listener, change, job)


def heard(listener: Callable[..., None], *told: Any) -> None:
    """Tell a listener; a fault of one door is none of the others'."""
    try:
        listener(*told)
    except Exception:
        logger.exception("a listener failed")
