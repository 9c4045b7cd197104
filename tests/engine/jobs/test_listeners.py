"""Who hears of a job."""

from __future__ import annotations

import pytest

from engine.jobs.job import Job, new_id
from engine.jobs.listeners import Change, Listeners
from engine.types import Request


@pytest.fixture
def job() -> Job:
    return Job(new_id("img"), "image", "m", "m", Request(prompt="x"), Request(prompt="x"))


def test_all_hear_until_they_leave(job: Job) -> None:
    listeners, heard = Listeners(), list[tuple[str, Change]]()

    def first(change: Change, job: Job) -> None:
        heard.append(("first", change))
        listeners.remove(job.id, first)

    def second(change: Change, job: Job) -> None:
        heard.append(("second", change))

    listeners.add(job.id, first, preview=True)
    listeners.add(job.id, second, preview=False)
    assert listeners.looked(job.id)
    listeners.tell("status", job)
    assert not listeners.looked(job.id)
    listeners.tell("progress", job)
    assert heard == [("first", "status"), ("second", "status"), ("second", "progress")]
    listeners.drop(job.id)
    listeners.tell("status", job)
    assert len(heard) == 3 and not listeners.get(job.id)
    listeners.remove(job.id, second)


def test_a_broken_one_does_not_silence_the_others(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    listeners, heard = Listeners(), list[Change]()

    def broken(change: Change, job: Job) -> None:
        raise RuntimeError("the loop is closed")

    listeners.add(job.id, broken, preview=False)
    listeners.add(job.id, lambda change, job: heard.append(change), preview=False)
    listeners.tell("output", job)
    assert heard == ["output"] and "a listener failed" in caplog.text
