"""The queue before a worker that draws flat colours: turns, limits, ends of every kind, what stays of a job."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.errors import Draining, NotFound, OutputError, QueueFull
from engine.jobs import Job, queue
from engine.types import Artifact
from tests.engine.jobs.conftest import Line, Opener
from tests.engine.jobs.test_delivery import Bucket


class Gate:
    """Holds the encoding of first outputs until it is opened."""

    def __init__(self, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.reached = threading.Event(), threading.Event()
        deliver = line.queue.delivery.deliver

        def held(job: Job, index: int, frames: np.ndarray[Any, Any], recipe: dict[str, Any]) -> Artifact:
            if index == 0:
                self.reached.set()
                assert self.open.wait(10)
            return deliver(job, index, frames, recipe)

        monkeypatch.setattr(line.queue.delivery, "deliver", held)


def starts(line: Line, *jobs: Job) -> list[int]:
    """In which order jobs were started."""
    line.ended(*jobs)
    times = [job.started_at or 0.0 for job in jobs]
    return sorted(range(len(jobs)), key=times.__getitem__)


def test_a_job_becomes_files_with_their_seeds_in_order(tuned: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the second output is encoded first."""
    line = tuned()
    gate = Gate(line, monkeypatch)
    heard: list[tuple[str, int]] = []
    job = line.ask(seed=7, n=2, listener=lambda change, job: heard.append((change, len(job.artifacts))))
    line.until(lambda: gate.reached.is_set() and len(line.outputs()) == 1)
    assert (job.status, job.artifacts, job.percent) == ("running", [], 97) and job.stage == "encoding"
    gate.open.set()
    assert line.ended(job) == ["done"]
    assert [Path(artifact.location).name for artifact in job.artifacts] == [f"{job.id}.png", f"{job.id}_1.png"]
    assert [artifact.seed for artifact in job.artifacts] == [recipe["request"]["seed"] for recipe in job.recipes]
    assert [artifact.seed for artifact in job.artifacts] == [7, 8]
    assert [entry for entry in heard if entry[0] == "output"] == [("output", 1), ("output", 2)]
    assert heard[-1] == ("status", 2) and (job.percent, job.usage["text"], job.peak_memory_mb) == (100, 6, 10.0)
    with Image.open(job.artifacts[0].location) as image:
        assert image.size == (16, 16)
    assert line.scratch() == []
    kept = line.queue.get(job.id)
    assert kept is not job and kept.artifacts == job.artifacts


def test_turns_are_by_priority_then_by_age(tuned: Opener) -> None:
    line = tuned(max_running=1)
    jobs = [line.ask("slow", steps=4), *(line.ask() for _ in range(3))]
    line.queue.update(jobs[3].id, priority=1)
    assert [line.queue.position(job) for job in jobs] == [None, 1, 2, 0]
    assert starts(line, *jobs) == [0, 3, 1, 2]


def test_as_many_run_as_may(tuned: Opener) -> None:
    line = tuned(max_running=2)
    jobs = [line.ask("slow", steps=3) for _ in range(3)]
    assert [job.status for job in jobs] == ["running", "running", "queued"]
    assert line.ended(*jobs) == ["done"] * 3


def test_a_full_queue_says_when_to_come_again(tuned: Opener) -> None:
    line = tuned(max_running=1, max_queue=1)
    jobs = [line.ask("slow", steps=4), line.ask()]
    with pytest.raises(QueueFull, match="1 requests wait already, the most that --max-queue allows") as caught:
        line.ask()
    assert 1 <= caught.value.retry_after <= 120
    assert line.ended(*jobs) == ["done", "done"]
    assert line.ended(line.ask()) == ["done"]


def test_what_fails_says_why_and_the_next_one_runs(tuned: Opener) -> None:
    line = tuned()
    jobs = [line.ask("FAULT"), line.ask("OOM"), line.ask()]
    assert line.ended(*jobs) == ["generation_failed", "out_of_memory", "done"]
    assert [job.status for job in jobs] == ["failed", "failed", "done"]


def test_cancel_where_it_waits_and_where_it_runs(tuned: Opener) -> None:
    line = tuned(max_running=1)
    running, waiting = line.ask("slow"), line.ask()
    assert line.queue.cancel(waiting.id).status == "cancelled"
    assert line.queue.cancel(running.id) is running
    assert line.ended(running, waiting) == ["cancelled", "cancelled"]
    assert running.step < 19 and running.completed_at is not None
    assert line.queue.cancel(running.id).status == "cancelled"  # once more changes nothing
    assert line.ended(line.ask()) == ["done"]


@pytest.mark.parametrize("way", ["cancel", "delete"])
def test_what_is_being_encoded_can_be_ended(tuned: Opener, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    line = tuned()
    gate = Gate(line, monkeypatch)
    upload = line.folder / "in.png"
    upload.write_bytes(b"x")
    job = line.ask(inputs=(str(upload),))
    assert gate.reached.wait(30)
    getattr(line.queue, way)(job.id)
    assert line.ended(job) == ["cancelled"]
    gate.open.set()
    line.queue.encoding.pool.submit(int).result()
    line.until(lambda: not line.scratch() and not line.outputs())
    assert (job.status, job.artifacts, upload.exists()) == ("cancelled", [], False)


@pytest.mark.parametrize("state", ["queued", "running", "done", "failed"])
def test_what_is_deleted_leaves_nothing(tuned: Opener, state: str) -> None:
    line = tuned(max_running=1)
    upload = line.folder / "in.png"
    upload.write_bytes(b"x")
    first = line.ask("slow", steps=5) if state == "queued" else None
    prompt = {"running": "slow", "failed": "FAULT"}.get(state, "x")
    job = line.ask(prompt, inputs=(str(upload),))
    if state in ("done", "failed"):
        line.ended(job)
        job = line.queue.get(job.id)
        thumbnail = line.queue.delivery.add(job, f"{job.id}.webp", b"x")
        line.queue.keep(job)
        assert thumbnail.exists()
    line.queue.delete(job.id)
    for gone in (line.queue.get, line.queue.delete, line.queue.cancel):
        with pytest.raises(NotFound):
            gone(job.id)
    line.until(lambda: not line.queue.running)
    line.queue.keep(job)  # a door that still holds it
    assert line.queue.page()[0] == [] if first is None else [found.id for found in line.queue.page()[0]] == [first.id]
    assert [name for name in line.outputs() if first is None or first.id not in name] == []
    assert not upload.exists()


def test_pages_show_jobs_as_they_are_now(tuned: Opener) -> None:
    line = tuned(max_running=1)
    jobs = [line.ask("slow", steps=6, detached=False), line.ask("x", "edit"), line.ask()]
    line.until(lambda: jobs[0].step > 1)
    found, more = line.queue.page(limit=2, descending=False)
    assert found == jobs[:2] and found[0].step > 1 and more
    assert line.queue.page(status="running")[0] == jobs[:1]
    assert line.queue.page(kind="edit")[0] == jobs[1:2]


def test_previews_are_made_while_somebody_looks(tuned: Opener) -> None:
    line = tuned()
    quiet: list[str] = []
    looked: list[bytes | None] = []

    def look(change: str, job: Job) -> None:
        if change == "preview":
            looked.append(job.preview)

    job = line.ask("slow", listener=lambda change, job: quiet.append(change))
    line.until(lambda: job.step >= 2)
    assert "preview" not in quiet and job.preview is None
    line.queue.listen(job.id, look, preview=True)
    line.until(lambda: looked)
    assert looked[0] is not None and looked[0].startswith(b"\xff\xd8")
    line.queue.unlisten(job.id, look)
    step = job.step
    line.until(lambda: job.step >= step + 4)
    assert quiet[-2:] == ["progress"] * 2
    line.queue.cancel(job.id)
    assert line.ended(job) == ["cancelled"] and job.preview is None


def test_progress_never_goes_back(tuned: Opener) -> None:
    line = tuned()
    percents: list[int] = []
    job = line.ask("slow", steps=5, n=2, listener=lambda change, job: percents.append(job.percent))
    line.ended(job)
    assert percents == sorted(percents) and percents[-1] == 100 and len(set(percents)) > 8


def test_a_listener_that_fails_harms_nobody(tuned: Opener, caplog: pytest.LogCaptureFixture) -> None:
    line = tuned()

    def broken(change: str, job: Job) -> None:
        raise RuntimeError("loop is closed")

    assert line.ended(line.ask(listener=broken)) == ["done"]
    assert "a listener failed" in caplog.text


def test_observers_hear_of_every_end(tuned: Opener) -> None:
    line = tuned()
    ends: list[tuple[str, str]] = []
    line.queue.observers.append(lambda job: ends.append((job.id, job.status)))
    jobs = [line.ask(), line.ask("FAULT")]
    line.ended(*jobs)
    assert sorted(ends) == sorted((job.id, job.status) for job in jobs)


def test_a_job_that_takes_too_long_is_ended(tuned: Opener) -> None:
    line = tuned(max_running=1, job_timeout_s=0.3)
    jobs = [line.ask("slow"), line.ask()]
    assert line.ended(*jobs) == ["timeout", "done"]
    assert jobs[0].error == {"code": "timeout", "message": "the job took longer than 0.3 s"}
    assert len(line.outputs()) == 1


def test_an_output_that_cannot_be_stored_fails_its_job(
    tuned: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    line = tuned()
    (tmp_path / "file").write_text("in the way")
    with monkeypatch.context() as patch:
        patch.setattr(line.queue.delivery, "folder", tmp_path / "file")
        job = line.ask(n=2)
        assert line.ended(job) == ["generation_failed"]
    assert str(tmp_path) not in str(job.error)
    line.until(lambda: not line.scratch())
    assert line.ended(line.ask()) == ["done"]


def test_files_expire_and_the_record_stays(tuned: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    line = tuned(output_ttl_s=3600.0)
    job = line.ask()
    line.ended(job)
    assert job.completed_at is not None and job.expires_at == job.completed_at + 3600
    line.queue.expire()
    assert len(line.outputs()) == 1
    monkeypatch.setattr(queue, "wall", lambda: job.completed_at + 3601)  # type: ignore[operator]
    monkeypatch.setattr(queue, "EXPIRY_S", 0)
    slow = line.ask("slow")  # the sweep does not wait for a quiet moment
    line.until(lambda: not line.outputs())
    assert not slow.finished
    kept = line.queue.get(job.id)
    assert (kept.expired, kept.status, len(kept.artifacts)) == (True, "done", 1)


def test_drain_lets_running_jobs_end_and_keeps_what_nobody_waits_for(opened: Opener) -> None:
    line = opened(max_running=1)
    running, attached, detached = line.ask("slow", steps=6), line.ask(detached=False), line.ask()
    line.queue.drain(20)
    assert [running.status, attached.status, detached.status] == ["done", "failed", "queued"]
    assert attached.error is not None and attached.error["code"] == "draining"
    assert line.queue.health == "draining"
    with pytest.raises(Draining):
        line.ask()
    line.queue.close()
    again = opened(folder=line.folder)
    assert again.ended(again.queue.get(detached.id)) == ["done"]


def test_drain_waits_no_longer_than_it_may(opened: Opener) -> None:
    line = opened(max_running=2)
    job, attached = line.ask("slow"), line.ask("slow", detached=False)
    line.until(lambda: attached.status == "running")
    line.queue.drain(0.1)
    assert job.status == "running"
    assert attached.error is not None and attached.error["code"] == "draining"


@pytest.mark.parametrize("requeue", [False, True])
def test_after_a_restart_waiting_jobs_run_and_interrupted_ones_do_not(opened: Opener, requeue: bool) -> None:
    line = opened(max_running=1)
    done = line.ask()
    line.ended(done)
    running, waiting, attached = line.ask("slow"), [line.ask() for _ in range(3)], line.ask(detached=False)
    line.until(lambda: running.step)
    line.queue.close()
    again = opened(folder=line.folder, requeue=requeue, max_running=1)
    found = [again.queue.get(job.id) for job in (running, *waiting, attached)]
    assert again.ended(*found) == ["done" if requeue else "server_restart", *["done"] * 3, "server_restart"]
    assert starts(again, *found[1:4]) == [0, 1, 2]
    kept = again.queue.get(done.id)
    assert Path(kept.artifacts[0].location).exists()


def test_estimates(tuned: Opener) -> None:
    line = tuned(max_running=1)
    assert line.queue.retry_after() == 1
    line.queue.durations.last.extend([30.0, 50.0])
    jobs = [line.ask("slow", steps=3), line.ask(), line.ask()]
    assert line.queue.eta_s(jobs[0]) in (None, 0.1)
    assert [line.queue.eta_s(job) for job in jobs[1:]] == [80.0, 120.0]
    assert line.queue.retry_after() == 40


def test_nothing_is_left_of_a_closed_queue(opened: Opener) -> None:
    line = opened()
    child = line.queue.supervisor.child
    assert child is not None
    line.ended(line.ask())
    line.queue.close()
    line.queue.close()
    assert child.process.returncode == 0 and not line.queue.delivery.scratch.exists()
    assert not line.queue.supervisor.thread.is_alive()
    assert not any(thread.is_alive() for thread in line.queue.encoding.pool._threads)


# What the database, the clock and the disk may do meanwhile


@contextmanager
def locked(line: Line) -> Iterator[None]:
    """Another program has the database."""
    with closing(sqlite3.connect(line.folder / "jobs.sqlite3", isolation_level=None)) as other:
        other.execute("begin immediate")
        yield
        other.execute("rollback")


def test_jobs_end_while_the_database_takes_nothing(
    tuned: Opener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever waits is told at once, and what happened is written later."""
    monkeypatch.setattr(queue, "SAVE_AGAIN_S", 0.1)
    line = tuned(max_running=1)
    heard: list[str] = []
    fine, wrong = line.ask("slow", steps=2, listener=lambda change, job: heard.append(job.status)), line.ask("FAULT")
    last, gone = line.ask("slow"), line.ask()
    with locked(line):
        assert line.ended(fine, wrong) == ["done", "generation_failed"]
        line.queue.cancel(last.id)
        assert line.ended(last, gone) == ["cancelled", "done"]
        assert heard[-1] == "done" and line.queue.get(fine.id) is fine
        assert line.queue.supervisor.thread.is_alive() and line.queue.health == "ready"
        assert {fine.id, wrong.id, last.id, gone.id} == set(line.queue.unsaved)
    assert "database is locked; it is tried again" in caplog.text
    line.queue.delete(gone.id)
    line.until(lambda: not line.queue.unsaved)
    kept = [line.queue.get(job.id) for job in (fine, wrong, last)]
    assert [job.status for job in kept] == ["done", "failed", "cancelled"] and kept[0] is not fine
    with pytest.raises(NotFound):
        line.queue.get(gone.id)


def test_what_was_not_written_yet_is_written_at_the_end(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "SAVE_AGAIN_S", 1000.0)
    line = opened()
    job = line.ask("slow", steps=2)
    with locked(line):
        assert line.ended(job) == ["done"]
    line.queue.close()
    again = opened(folder=line.folder)
    assert again.queue.get(job.id).status == "done"


def test_a_job_that_the_database_does_not_take_was_never_there(tuned: Opener) -> None:
    line = tuned()
    with locked(line), pytest.raises(OutputError, match="database is locked"):
        line.ask(listener=lambda change, job: None)
    assert not line.queue.waiting and not line.queue.running and not line.queue.listeners.entries
    assert line.queue.page()[0] == []
    assert line.ended(line.ask()) == ["done"]


def test_a_record_that_cannot_be_read_can_be_deleted(tuned: Opener) -> None:
    line = tuned()
    job = line.ask(n=2)
    line.ended(job)
    line.queue.store.db.execute("update jobs set body = '{}' where id = ?", (job.id,))
    with pytest.raises(NotFound):
        line.queue.get(job.id)
    line.queue.delete(job.id)
    assert line.outputs() == []
    with pytest.raises(NotFound):
        line.queue.delete(job.id)


@pytest.mark.parametrize("jump", [1e6, -1e6])
def test_a_clock_that_is_set_fails_no_job(tuned: Opener, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    line = tuned(max_running=1, job_timeout_s=60.0)
    jobs = [line.ask("slow", steps=14), line.ask()]
    line.until(lambda: jobs[0].step)
    now = queue.wall()
    monkeypatch.setattr(queue, "wall", lambda: now + jump)
    assert line.ended(*jobs) == ["done", "done"]
    assert 0 <= jobs[0].queue_s < jobs[1].queue_s < 20
    assert line.queue.get(jobs[1].id).queue_s == jobs[1].queue_s
    assert all(0 <= seconds < 20 for seconds in line.queue.durations.last)


def test_a_scratch_folder_that_was_cleaned_away_is_made_again(tuned: Opener) -> None:
    line = tuned()
    shutil.rmtree(line.queue.delivery.scratch)
    assert line.ended(line.ask()) == ["done"]


def test_an_expired_file_that_cloud_storage_keeps_is_deleted_later(
    tuned: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, bucket = tuned(output_ttl_s=3600.0), Bucket()
    monkeypatch.setattr(line.queue.delivery, "cloud", bucket)
    job = line.ask()
    line.ended(job)
    monkeypatch.setattr(queue, "wall", lambda: (job.completed_at or 0.0) + 3601)
    bucket.broken = True
    line.queue.expire()
    assert line.queue.get(job.id).expired and bucket.objects
    line.queue.update(job.id, starred=True)
    bucket.broken = False
    line.queue.expire()
    assert bucket.objects == {} and line.queue.store.expired(1e12) == []
    assert line.queue.get(job.id).starred


def test_a_file_is_marked_as_gone_before_it_is(tuned: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    line, seen = tuned(output_ttl_s=3600.0), list[bool]()
    job = line.ask()
    line.ended(job)
    monkeypatch.setattr(queue, "wall", lambda: (job.completed_at or 0.0) + 3601)
    remove = line.queue.delivery.remove

    def looking(told: Job) -> bool:
        seen.append(line.queue.get(told.id).expired)
        line.queue.update(told.id, starred=True)  # a user, meanwhile
        return remove(told)

    with monkeypatch.context() as patch:
        patch.setattr(line.queue.delivery, "remove", looking)
        line.queue.expire()
    kept = line.queue.get(job.id)
    assert seen == [True] and (kept.expired, kept.removed, kept.starred) == (True, True, True)


def test_objects_in_the_cloud_go_when_a_job_fails(tuned: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    line, bucket = tuned(), Bucket()
    monkeypatch.setattr(line.queue.delivery, "cloud", bucket)
    job = line.ask("slow", steps=3, n=2)
    line.until(lambda: len(job.artifacts) == 1)
    assert bucket.objects
    line.queue.ended(job.id, "generation_failed", "x")
    line.until(lambda: not bucket.objects)


def test_what_the_worker_says_late_or_twice(tuned: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress of an earlier step changes no percentage; a lost output stops its siblings."""
    line = tuned()
    job = line.ask("slow", n=2)
    line.until(lambda: job.percent >= 5)
    before, sent = job.percent, list[tuple[str, Any]]()
    told = {"job": job.id, "index": 0, "step": 0, "steps": 20, "stage": "denoising", "eta_s": 1.0}
    with line.queue.lock:
        before = job.percent
        line.queue.progressed(told, b"")
        assert (job.percent, job.step) == (before, 0)
        send = line.queue.supervisor.send
        monkeypatch.setattr(
            line.queue.supervisor, "send", lambda op, **more: (sent.append((op, more.get("job"))), send(op, **more))
        )
        line.queue.ended(job.id, "generation_failed", "x")
    assert sent == [("cancel", job.id)]


def test_a_cancel_that_comes_after_the_worker_was_faster(tuned: Opener, tmp_path: Path) -> None:
    """The worker has answered with an output, and will not answer again."""
    line = tuned()
    job = line.ask("slow")
    raw = tmp_path / "late.raw"
    raw.write_bytes(b"x")
    with line.queue.lock:
        assert line.queue.cancel(job.id).status == "running"
        line.queue.drawn({"job": job.id, "path": str(raw), "index": 0})
        assert (job.status, job.artifacts, raw.exists()) == ("cancelled", [], False)
