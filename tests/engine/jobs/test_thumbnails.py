"""Small pictures of finished outputs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.jobs import Job
from engine.jobs.delivery import Delivery
from engine.jobs.job import new_id
from engine.jobs.thumbnails import SIDE, Thumbnails
from engine.types import Request
from tests.engine.test_settings_text import RECIPE


@pytest.fixture
def delivery(tmp_path: Path) -> Delivery:
    return Delivery(tmp_path / "outputs", tmp_path / "scratch")


@pytest.fixture
def thumbnails(delivery: Delivery, tmp_path: Path) -> Thumbnails:
    return Thumbnails(delivery, tmp_path / "thumbnails")


def drawn(delivery: Delivery, fmt: str = "png", frames: int = 1, size: tuple[int, int] = (600, 800)) -> Job:
    request = Request(prompt="x", output_format=fmt, fps=4)
    job = Job(new_id("img"), "image", "m", "m", request, request, status="done")
    pixels = np.zeros((frames, *size, 3), np.uint8)
    pixels[0, ..., 0] = 255  # the first frame is red
    job.artifacts = [delivery.deliver(job, 0, pixels, RECIPE)]
    return job


@pytest.mark.parametrize(("fmt", "frames"), [("png", 1), ("jpeg", 1), ("webp", 1), ("gif", 3), ("mp4", 3)])
def test_the_first_frame_small(delivery: Delivery, thumbnails: Thumbnails, fmt: str, frames: int) -> None:
    job = drawn(delivery, fmt, frames)
    assert thumbnails.find(job, 0) is None
    path = thumbnails.get(job, 0)
    assert path is not None and path == thumbnails.find(job, 0)
    with Image.open(path) as image:
        assert (image.format, image.size) == ("WEBP", (SIDE, SIDE * 600 // 800))
        red, green, blue = image.convert("RGB").getpixel((100, 100))  # type: ignore[misc]
    assert red > 220 and green < 30 and blue < 30
    assert b"a red boat" not in path.read_bytes()  # no recipe


def test_it_is_made_once(delivery: Delivery, thumbnails: Thumbnails) -> None:
    job = drawn(delivery)
    path = thumbnails.get(job, 0)
    assert path is not None
    path.write_bytes(b"kept")
    assert thumbnails.get(job, 0) == path and path.read_bytes() == b"kept"


def test_what_is_gone_or_damaged_has_none(delivery: Delivery, thumbnails: Thumbnails) -> None:
    gone, damaged, expired = drawn(delivery), drawn(delivery), drawn(delivery)
    Path(gone.artifacts[0].location).unlink()
    Path(damaged.artifacts[0].location).write_bytes(b"\x89PNG\r\n\x1a\n and nothing")
    expired.expired = True
    assert [thumbnails.get(job, 0) for job in (gone, damaged, expired)] == [None, None, None]
    assert thumbnails.get(drawn(delivery), 7) is None


def test_it_goes_with_its_job(delivery: Delivery, thumbnails: Thumbnails) -> None:
    one, other = drawn(delivery), drawn(delivery)
    thumbnails.get(one, 0)
    thumbnails.get(other, 0)
    delivery.remove(one)
    assert thumbnails.find(one, 0) is None and thumbnails.find(other, 0) is not None
    delivery.remove_named(other.id)
    assert list(thumbnails.folder.iterdir()) == []


def test_there_are_never_too_many(delivery: Delivery, tmp_path: Path) -> None:
    few = Thumbnails(delivery, tmp_path / "few", most=4, kept=2)
    jobs = [drawn(delivery, size=(8, 8)) for _ in range(5)]
    for age, job in enumerate(jobs):
        path = few.get(job, 0)
        if path is not None and path.exists():
            os.utime(path, (1000 + age, 1000 + age))
    assert [few.find(job, 0) is not None for job in jobs] == [False, False, False, True, True]
