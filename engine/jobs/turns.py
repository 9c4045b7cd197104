"""Whose turn it is, and how long that may take: pure functions of the jobs that wait and of those that ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from engine.jobs.job import Job

OTHER_MODEL_S = 120  # so long may a job wait because jobs of the loaded model go first
SAMPLES = 32  # finished jobs that an estimate looks at


def in_turn(waiting: Sequence[Job]) -> list[Job]:
    """Return jobs as they are started: by priority, then by age."""
    return sorted(waiting, key=lambda job: (-job.priority, job.order))


def moved(waiting: Sequence[Job], job: Job, place: int) -> dict[str, int]:
    """Return the priorities, by job, that let a job start behind `place` others; only those that must change."""
    turn = [other for other in in_turn(waiting) if other is not job]
    turn.insert(max(0, place), job)
    changed, behind = dict[str, int](), turn[-1]
    least = behind.priority
    for before in reversed(turn[:-1]):
        needed = least if before.order < behind.order else least + 1
        least = max(before.priority, needed)
        if least != before.priority:
            changed[before.id] = least
        behind = before
    return changed


def next_job(waiting: Sequence[Job], loaded: str, now: float) -> Job | None:
    """Return the job whose turn it is: the first of the loaded model, unless another one has waited too long."""
    turn = in_turn(waiting)
    if not turn:
        return None
    same = next((job for job in turn if job.model_path == loaded), None)
    if same is None or (turn[0] is not same and now - turn[0].created_at > OTHER_MODEL_S):
        return turn[0]
    return same


class Durations:
    """How long the last jobs ran."""

    def __init__(self) -> None:
        self.last: deque[float] = deque(maxlen=SAMPLES)

    @property
    def typical(self) -> float | None:
        """Seconds that a job runs; None when none has."""
        return sum(self.last) / len(self.last) if self.last else None

    def until_end(self, place: int, limit: int) -> float | None:
        """Return the seconds until a job ends that waits behind `place` others, `limit` of which run at a time."""
        return None if self.typical is None else (place + 1) * self.typical / limit + self.typical

    def until_room(self, limit: int) -> int:
        """Return the seconds after which there is probably room again, 1 to 120."""
        return max(1, min(120, round((self.typical or 1.0) / limit)))
