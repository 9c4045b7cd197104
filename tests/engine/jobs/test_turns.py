"""Whose turn it is, and estimates."""

from __future__ import annotations

from engine.jobs.job import Job, new_id
from engine.jobs.turns import OTHER_MODEL_S, Durations, in_turn, moved, next_job
from engine.types import Request

REQUEST = Request(prompt="x")


def job(model: str = "loaded", priority: int = 0) -> Job:
    return Job(new_id("img"), "image", "m", model, REQUEST, REQUEST, priority=priority, created_at=100.0)


def test_priority_goes_before_age() -> None:
    first, second, urgent = job(), job(), job(priority=2)
    assert in_turn([second, urgent, first]) == [urgent, first, second]


def test_a_job_is_moved_by_as_few_priorities_as_can_be() -> None:
    first, second, third, last = waiting = [job(priority=1), job(), job(), job()]

    def turn(one: Job, place: int) -> list[Job]:
        changed = moved(waiting, one, place)
        for other in waiting:
            other.priority = changed.get(other.id, other.priority)
        return in_turn(waiting)

    assert moved(waiting, last, 3) == {}
    assert moved(waiting, last, 2) == {last.id: 1, second.id: 1}
    assert turn(last, 2) == [first, second, last, third]
    assert turn(last, 0) == [last, first, second, third]
    assert turn(first, 2) == [last, second, first, third]
    assert turn(last, 9) == [second, first, third, last]
    assert turn(third, -1) == [third, second, first, last]


def test_the_loaded_model_goes_first_for_a_while() -> None:
    other, same = job("other"), job()
    assert next_job([other, same], "loaded", 100.0 + OTHER_MODEL_S) is same
    assert next_job([other, same], "loaded", 101.0 + OTHER_MODEL_S) is other
    assert next_job([same, job("other")], "loaded", 1e9) is same  # the older one of both
    assert next_job([other], "loaded", 100.0) is other
    assert next_job([], "loaded", 100.0) is None


def test_estimates_need_a_job_that_has_run() -> None:
    durations = Durations()
    assert (durations.typical, durations.until_end(0, 1), durations.until_room(1)) == (None, None, 1)
    durations.last.extend([10.0, 30.0])
    assert (durations.until_end(1, 1), durations.until_end(1, 2), durations.until_room(2)) == (60.0, 40.0, 10)
    durations.last.append(1e6)
    assert durations.until_room(1) == 120
