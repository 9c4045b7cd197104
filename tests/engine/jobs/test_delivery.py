"""Frames to files: their names and kinds, cloud storage, and that nothing is left of what is removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.errors import OutputError, UploadFailed
from engine.jobs import Job
from engine.jobs import delivery as module
from engine.jobs.delivery import Delivery
from engine.jobs.job import new_id
from engine.types import Request

RECIPE: dict[str, Any] = {"sgdiff": 1, "request": {"seed": 9, "prompt": "x"}, "engine": {}, "inputs": {}}
RED = np.full((1, 8, 12, 3), (255, 0, 0), np.uint8)


class Bucket:
    """Cloud storage in a dict; `broken` takes nothing."""

    def __init__(self, broken: bool = False) -> None:
        self.broken, self.objects = broken, dict[str, bytes]()

    def upload(self, path: Path, media_type: str) -> str:
        if self.broken:
            raise UploadFailed("the upload to cloud storage failed: AccessDenied")
        self.objects[path.name] = path.read_bytes()
        return path.name

    def read(self, key: str) -> bytes:
        return self.objects[key]

    def delete(self, key: str) -> None:
        if self.broken:
            raise OutputError("cloud storage did not delete an output: AccessDenied")
        self.objects.pop(key, None)


def job(**fields: Any) -> Job:
    request = Request(prompt="x", seed=9, width=12, height=8, **fields)
    return Job(new_id("img"), "image", "m", "m", request, request)


def delivery(folder: Path | None, scratch: Path, cloud: Bucket | None = None) -> Delivery:
    return Delivery(folder, scratch, cloud)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fmt", "suffix", "kind"),
    [(None, "png", "image/png"), ("jpeg", "jpg", "image/jpeg"), ("webp", "webp", "image/webp")],
)
def test_an_output_is_a_file_named_after_its_job(tmp_path: Path, fmt: str | None, suffix: str, kind: str) -> None:
    to, asked = delivery(tmp_path / "new" / "outputs", tmp_path), job(output_format=fmt)
    first, second = (to.deliver(asked, index, RED, RECIPE) for index in (0, 1))
    assert [Path(entry.location).name for entry in (first, second)] == [
        f"{asked.id}.{suffix}",
        f"{asked.id}_1.{suffix}",
    ]
    assert (first.media_type, first.width, first.height, first.frames, first.seed) == (kind, 12, 8, 1, 9)
    assert (first.fps, first.key) == (None, None)
    with Image.open(first.location) as image:
        assert image.size == (12, 8) and image.convert("RGB").getpixel((3, 3))[0] > 250  # type: ignore[index]
    assert to.read(first) == Path(first.location).read_bytes()


def test_a_video_tells_its_rate(tmp_path: Path) -> None:
    made = delivery(tmp_path, tmp_path).deliver(job(output_format="mp4", fps=7), 0, np.repeat(RED, 5, 0), RECIPE)
    assert (made.media_type, made.frames, made.fps) == ("video/mp4", 5, 7)
    assert Path(made.location).read_bytes()[4:8] == b"ftyp"


def test_without_a_folder_outputs_are_in_the_scratch_folder(tmp_path: Path) -> None:
    to = delivery(None, tmp_path)
    assert Path(to.deliver(job(), 0, RED, RECIPE).location).parent == tmp_path and not to.keeps


def test_a_folder_that_vanishes_is_made_again(tmp_path: Path) -> None:
    to = delivery(tmp_path / "outputs", tmp_path)
    Path(to.deliver(job(), 0, RED, RECIPE).location).unlink()
    (tmp_path / "outputs").rmdir()
    assert Path(to.deliver(job(), 0, RED, RECIPE).location).exists()


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("x")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        delivery(tmp_path / "outputs", tmp_path).deliver(job(), 0, RED, RECIPE)
    asked, to = job(), delivery(tmp_path / "fine", tmp_path)
    with pytest.raises(KeyError):
        to.deliver(asked, 0, RED, {"request": {}})
    to.remove(asked)
    assert list((tmp_path / "fine").iterdir()) == []


@pytest.mark.parametrize("stored", [True, False])
def test_an_upload_keeps_the_file_only_where_outputs_are_stored(tmp_path: Path, stored: bool) -> None:
    cloud = Bucket()
    to = delivery(tmp_path / "outputs" if stored else None, tmp_path, cloud)
    made = to.deliver(job(), 0, RED, RECIPE)
    assert to.keeps and made.key in cloud.objects
    assert [path.name for path in tmp_path.rglob("*.png")] == ([made.key] if stored else [])
    assert bool(made.location) is stored
    assert to.read(made) == cloud.objects[made.key]


def test_a_failed_upload_leaves_the_file_where_outputs_are_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = delivery(tmp_path, tmp_path, Bucket(broken=True)).deliver(job(), 0, RED, RECIPE)
    assert made.key is None and Path(made.location).exists()
    assert "AccessDenied; the file stays here" in caplog.text


def test_a_failed_upload_with_nothing_stored_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UploadFailed):
        delivery(None, tmp_path, Bucket(broken=True)).deliver(job(), 0, RED, RECIPE)
    assert list(tmp_path.iterdir()) == []


def test_a_removed_job_leaves_nothing_anywhere(tmp_path: Path) -> None:
    cloud, asked = Bucket(), job(num_outputs_per_prompt=3)
    to = delivery(tmp_path / "outputs", tmp_path / "scratch", cloud)
    upload = tmp_path / "in.png"
    upload.write_bytes(b"x")
    asked.inputs = (str(upload),)
    asked.artifacts = [to.deliver(asked, index, RED, RECIPE) for index in (0, 1)]
    to.deliver(asked, 2, RED, RECIPE)  # written, and the process ended before it was told of
    assert to.add(asked, f"{asked.id}.thumb.webp", b"x").exists() and len(asked.files) == 1
    cloud.objects.pop(f"{asked.id}_2.png")
    to.remove(asked)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [] and cloud.objects == {}
    to.remove(asked)  # what is gone already is fine


def test_a_bucket_that_does_not_delete_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cloud, asked = Bucket(), job()
    to = delivery(tmp_path, tmp_path, cloud)
    asked.artifacts = [to.deliver(asked, 0, RED, RECIPE)]
    cloud.broken = True
    to.remove(asked)
    assert "did not delete" in caplog.text and list(tmp_path.iterdir()) == []


def test_a_file_that_somebody_removed(tmp_path: Path) -> None:
    to = delivery(tmp_path, tmp_path)
    made = to.deliver(job(), 0, RED, RECIPE)
    Path(made.location).unlink()
    with pytest.raises(OutputError, match="cannot be read"):
        to.read(made)


def test_what_only_a_repeated_request_can_fetch_goes_after_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = delivery(None, tmp_path)
    sent, kept = (to.deliver(job(), 0, RED, RECIPE) for _ in range(2))
    to.discard([sent])
    now = module.monotonic()
    monkeypatch.setattr(module, "monotonic", lambda: now + module.REMEMBERED_S - 10)
    to.tidy()
    late = to.deliver(job(), 0, RED, RECIPE)
    assert Path(kept.location).exists()
    monkeypatch.setattr(module, "monotonic", lambda: now + module.REMEMBERED_S + 10)
    to.tidy()
    assert list(tmp_path.iterdir()) == [Path(late.location)] and list(to.brief) == [late.location]


def test_outputs_that_are_stored_stay(tmp_path: Path) -> None:
    to = delivery(tmp_path / "outputs", tmp_path)
    to.deliver(job(), 0, RED, RECIPE)
    assert to.brief == {}
