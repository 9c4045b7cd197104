"""Several jobs in one ZIP file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from engine import recipe_file
from engine.errors import NotFound, OutputError
from engine.jobs import Job, archive
from engine.jobs.delivery import Delivery
from engine.jobs.job import new_id
from engine.types import Request
from tests.engine.test_settings_text import RECIPE


@pytest.fixture
def delivery(tmp_path: Path) -> Delivery:
    return Delivery(tmp_path / "outputs", tmp_path / "scratch")


def drawn(
    delivery: Delivery, prompt: str | None = "A red boat, at sunset; by the sea and more words", count: int = 1
) -> Job:
    request = Request(prompt=prompt, num_outputs_per_prompt=count)
    job = Job(new_id("img"), "image", "m", "m", request, request, status="done")
    frames = np.zeros((1, 8, 8, 3), np.uint8)
    job.artifacts = [delivery.deliver(job, index, frames, RECIPE) for index in range(count)]
    return job


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as found:
        assert found.testzip() is None
        return found.namelist()


def test_names_tell_the_prompt_and_never_clash(delivery: Delivery, tmp_path: Path) -> None:
    jobs = [drawn(delivery, count=2), drawn(delivery), drawn(delivery, None), drawn(delivery, "../../猫")]
    assert archive.write(jobs, delivery, tmp_path / "x.zip") == 5
    a, b, c, d = (job.id for job in jobs)
    stem = "a-red-boat-at-sunset-by-the-sea-and-mo"
    assert names(tmp_path / "x.zip") == [
        f"{stem}-{a}.png",
        f"{stem}-{a}_1.png",
        f"{stem}-{b}.png",
        f"{c}.png",
        f"{d}.png",
    ]


def test_recipes_come_along_unless_they_are_not_wanted(delivery: Delivery, tmp_path: Path) -> None:
    job = drawn(delivery)
    for plain in (False, True):
        archive.write([job], delivery, tmp_path / "x.zip", plain=plain)
        [name] = names(tmp_path / "x.zip")
        with zipfile.ZipFile(tmp_path / "x.zip") as found:
            found.extract(name, tmp_path)
        assert bool(recipe_file.read_texts(tmp_path / name)) is not plain


def test_what_is_gone_is_passed_over(delivery: Delivery, tmp_path: Path) -> None:
    here, gone, expired = (drawn(delivery) for _ in range(3))
    Path(gone.artifacts[0].location).unlink()
    expired.expired = True
    for plain in (False, True):
        assert archive.write([gone, here, expired], delivery, tmp_path / "x.zip", plain=plain) == 1
        with pytest.raises(NotFound, match="none of these jobs has files any more"):
            archive.write([gone, expired], delivery, tmp_path / "none.zip", plain=plain)
    assert sorted(path.name for path in tmp_path.glob("*")) == ["outputs", "x.zip"]


def test_a_place_that_cannot_be_written_is_told(delivery: Delivery, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        archive.write([drawn(delivery)], delivery, tmp_path / "file" / "x.zip")
