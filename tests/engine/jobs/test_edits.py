"""Edited clips belong to their job: found with it, packed with it, deleted with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine import editing, env, recipe_file
from engine.config import EngineConfig
from engine.errors import NotFound, UsageError
from engine.jobs import Job, JobQueue, JobStore, archive, edits
from engine.jobs.delivery import Delivery
from engine.jobs.job import new_id
from engine.types import Request
from tests.engine.test_settings_text import RECIPE


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[JobQueue]:
    """A queue whose worker is never started."""
    delivery = Delivery(tmp_path / "outputs", tmp_path / "scratch")
    found = JobQueue(EngineConfig(), env.read(), JobStore(tmp_path / "jobs.sqlite3"), delivery)
    yield found
    found.close()


def drawn(queue: JobQueue, frames: int = 9, fmt: str = "mp4") -> Job:
    request = Request(prompt="x", fps=8, output_format=fmt)  # type: ignore[arg-type]
    job = Job(new_id("video"), "video", "m", "m", request, request, status="done")
    job.artifacts = [queue.delivery.deliver(job, 0, np.zeros((frames, 16, 16, 3), np.uint8), RECIPE)]
    queue.store.add(job)
    return job


def test_a_clip_is_cut_and_kept_with_its_job(queue: JobQueue, tmp_path: Path) -> None:
    job = drawn(queue)
    path = edits.trim(queue, job.id, 0.25, 0.75)
    assert path.name == f"{job.id}_edit1.mp4"
    assert editing.probe(path).frames == 4
    assert edits.edited(queue.get(job.id)) == (path,)
    assert recipe_file.read_recipe(path)["edited"] == [{"trim": {"start_s": 0.25, "end_s": 0.75}}]
    gif = edits.to_gif(queue, job.id, fps=4, which=path.name)
    assert gif.name == f"{job.id}_edit2.gif"
    assert archive.write([queue.get(job.id)], queue.delivery, tmp_path / "x.zip") == 3
    queue.delete(job.id)
    assert queue.delivery.folder is not None and not list(queue.delivery.folder.iterdir())


def test_an_edit_never_takes_the_place_of_another(queue: JobQueue) -> None:
    job = drawn(queue)
    names = [edits.trim(queue, job.id, 0.5).name for _ in range(2)]
    assert names == [f"{job.id}_edit1.mp4", f"{job.id}_edit2.mp4"]
    found = queue.get(job.id)
    found.files = found.files[1:]  # the first one was removed
    queue.keep(found)
    assert edits.trim(queue, job.id, 0.5).name == f"{job.id}_edit3.mp4"


def test_clips_of_several_jobs_are_joined_with_the_first(queue: JobQueue) -> None:
    first, second = drawn(queue), drawn(queue)
    cut = edits.trim(queue, second.id, 0.5)
    path = edits.join(queue, [(first.id, 0), (second.id, cut.name)], crossfade_s=0.25)
    assert path.name.startswith(first.id)
    assert editing.probe(path).frames == 9 + 5 - 2
    assert edits.edited(queue.get(second.id)) == (cut,)


def test_what_is_not_there_or_no_clip_is_told(queue: JobQueue) -> None:
    job = drawn(queue)
    picture = drawn(queue, 1, "png")
    for wrong, error, words in (
        (lambda: edits.trim(queue, "img_x", 0), NotFound, "no job 'img_x'"),
        (lambda: edits.trim(queue, job.id, 0, which=3), NotFound, "has no output 3"),
        (
            lambda: edits.trim(queue, job.id, 0, which="../x_edit1.mp4"),
            NotFound,
            "no edited clip '../x_edit1.mp4'",
        ),
        (lambda: edits.to_gif(queue, picture.id), UsageError, "is no video in an MP4 file, but image/png"),
        (lambda: edits.trim(queue, job.id, 9), UsageError, "start: must be"),
        (lambda: edits.join(queue, []), UsageError, "choose a clip"),
    ):
        with pytest.raises(error, match=words):
            wrong()
    assert queue.get(job.id).files == ()


def test_a_job_that_is_deleted_meanwhile_leaves_nothing(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    job = drawn(queue)

    def deleted(*given: object) -> editing.Clip:
        queue.delete(job.id)
        given[1].write_bytes(b"x")  # type: ignore[attr-defined]
        return editing.Clip(1, 1, 1, 1)

    monkeypatch.setattr(editing, "trim", deleted)
    with pytest.raises(NotFound):
        edits.trim(queue, job.id, 0)
    assert queue.delivery.folder is not None and not list(queue.delivery.folder.iterdir())
