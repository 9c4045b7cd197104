"""Raw frames to artifacts of a job that may have ended meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import OutputError, SgdiffError, UploadFailed
from engine.jobs.delivery import Delivery
from engine.jobs.encoding import MOST_STEPS, Encoding
from engine.jobs.job import Job, new_id
from engine.types import Artifact, Request

TIMINGS = {"total_ms": 500.0, "stages": [["denoising", 2.0]], "peak_memory_mb": 7.0, "tokens": {"text": 3}}
TIMINGS["denoise_steps"] = [1.04, 0.96] * 100


class Queue:
    """What encoding knows of a queue."""

    def __init__(self) -> None:
        self.lock, self.alive = threading.RLock(), True
        self.given: list[int] = []
        self.failed: list[tuple[str, str]] = []

    def runs(self, job: Job) -> bool:
        return self.alive

    def delivered(self, job: Job) -> None:
        self.given.append(len(job.artifacts))

    def ended(self, job_id: str, code: str, message: str) -> None:
        self.failed.append((code, message))


class Bench:
    """An encoding whose threads are done when asked for."""

    def __init__(self, folder: Path) -> None:
        self.queue, self.folder = Queue(), folder
        self.delivery = Delivery(folder / "outputs", folder)
        self.encoding = Encoding(self.queue, self.delivery)  # type: ignore[arg-type]
        request = Request(prompt="x", seed=4, width=8, height=8, num_outputs_per_prompt=3)
        self.job = Job(new_id("img"), "image", "m", "m", request, request)

    def put(self, index: int) -> None:
        raw = self.folder / f"{index}.raw"
        np.zeros((1, 8, 8, 3), np.uint8).tofile(raw)
        recipe: dict[str, Any] = {"sgdiff": 1, "request": {"seed": 4 + index}, "engine": {}, "inputs": {}}
        told = {"index": index, "path": str(raw), "shape": (1, 8, 8, 3), "recipe": recipe, "timings": TIMINGS}
        self.encoding._deliver(self.job, told)

    def files(self) -> list[str]:
        return [path.name for path in self.folder.rglob("*") if path.is_file()]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    found = Bench(tmp_path)
    yield found
    found.encoding.close()


def test_outputs_are_given_in_order_however_they_come(bench: Bench) -> None:
    bench.put(2)
    bench.put(1)
    assert (bench.queue.given, bench.job.artifacts) == ([], [])
    bench.put(0)
    assert bench.queue.given == [1, 2, 3]
    assert [artifact.seed for artifact in bench.job.artifacts] == [4, 5, 6]
    assert (bench.job.inference_s, bench.job.peak_memory_mb, bench.job.usage) == (1.5, 7.0, {"text": 9})
    assert bench.job.stages == {"denoising": 6.0} and len(bench.files()) == 3
    assert bench.job.steps_ms == [1.0] * MOST_STEPS  # of the first two outputs, and of half of the third


def test_what_waits_for_an_earlier_output_is_given_back_when_the_job_ends(bench: Bench) -> None:
    bench.put(1)
    [artifact] = bench.encoding.forget(bench.job)
    assert artifact.seed == 5 and bench.encoding.forget(bench.job) == []


def test_a_job_that_has_ended_is_not_encoded(bench: Bench) -> None:
    bench.queue.alive = False
    bench.put(0)
    assert (bench.files(), bench.job.artifacts) == ([], [])


def test_a_job_that_ends_while_it_is_encoded_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver = bench.delivery.deliver

    def ending(*arguments: Any) -> Artifact:
        bench.queue.alive = False
        return deliver(*arguments)

    monkeypatch.setattr(bench.delivery, "deliver", ending)
    bench.put(0)
    assert (bench.files(), bench.job.artifacts, bench.queue.given) == ([], [], [])


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UploadFailed("the upload failed: AccessDenied"), "upload_failed", "the upload failed: AccessDenied"),
        (OutputError("some/place: no space left"), "generation_failed", "the output cannot be stored"),
        (ValueError("some/place"), "generation_failed", "the output cannot be stored"),
        (SgdiffError("some/place"), "generation_failed", "the output cannot be stored"),
    ],
)
def test_what_cannot_be_stored_fails_the_job_and_shows_no_place(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str, message: str
) -> None:
    def broken(*arguments: Any) -> Artifact:
        raise error

    monkeypatch.setattr(bench.delivery, "deliver", broken)
    bench.put(0)
    [(found, text)] = bench.queue.failed
    assert found == code and text.startswith(message) and "place" not in text
    assert bench.files() == []


def test_an_output_that_cannot_be_given_fails_the_job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong, nobody waits for a thread that has forgotten the job."""

    def broken(job: Job) -> None:
        raise RuntimeError("unexpected")

    monkeypatch.setattr(bench.queue, "delivered", broken)
    bench.put(0)
    assert [code for code, _ in bench.queue.failed] == ["generation_failed"] and bench.files() == []


def test_what_is_done_aside_tells_the_log_of_its_failure(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise RuntimeError("unexpected")

    bench.encoding.aside(broken)
    bench.encoding.close()
    bench.encoding.aside(broken)
    assert "broken failed" in caplog.text and "broken: not done" in caplog.text
