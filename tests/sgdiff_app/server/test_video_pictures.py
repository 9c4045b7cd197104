"""Pictures of a video: made once, of whatever place the video is in, and gone with it."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine import clips, video
from engine.jobs import Job
from sgdiff_app.server import video_pictures
from tests.sgdiff_app.server.folders import video_model
from tests.sgdiff_app.server.serving import Running, Server


class Bucket:
    """Cloud storage in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def upload(self, path: Path, media_type: str) -> str:
        self.objects[path.name] = path.read_bytes()
        return path.name

    def url(self, key: str) -> str:
        return f"https://bucket.example/{key}"

    def read(self, key: str) -> bytes:
        return self.objects[key]

    def delete(self, key: str) -> None:
        del self.objects[key]

    def close(self) -> None:
        pass


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that frames were read from."""
    names: list[str] = []
    read = video.read_frames

    def counted(path: Path, *rest: Any) -> Any:
        names.append(path.name)
        return read(path, *rest)

    monkeypatch.setattr(video, "read_frames", counted)
    return names


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("clips")
    with Server("--model-path", video_model(folder, "T2V"), folder=folder) as running:
        yield running


def finished(server: Running) -> Job:
    told = server.client.post("/v1/videos", json={"prompt": "a", "size": "64x48", "num_frames": 5}).json()
    while server.client.get(f"/v1/videos/{told['id']}").json()["status"] != "completed":
        time.sleep(0.01)
    return server.service.queue.get(told["id"])


def get(server: Running, job: Job, variant: str) -> bytes:
    answer = server.client.get(f"/v1/videos/{job.id}/content?variant={variant}")
    assert answer.status_code == 200, answer.text
    return answer.content


def test_a_picture_is_made_once(server: Running, made: list[str]) -> None:
    job = finished(server)
    assert {get(server, job, "thumbnail") for _ in range(3)} == {get(server, job, "thumbnail")}
    assert made == [f"{job.id}.mp4"]
    assert len(server.service.queue.get(job.id).files) == 1


def test_pictures_that_are_made_at_the_same_time_are_all_known(server: Running) -> None:
    job = finished(server)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda variant: get(server, job, variant), ["thumbnail", "spritesheet"] * 2))
    known = {Path(path).name for path in server.service.queue.get(job.id).files}
    assert known == {f"{job.id}_0_thumbnail.webp", f"{job.id}_0_spritesheet.jpg"}


def test_a_picture_that_somebody_removed_is_made_again(server: Running) -> None:
    job = finished(server)
    before = get(server, job, "thumbnail")
    Path(server.service.queue.get(job.id).files[0]).unlink()
    assert get(server, job, "thumbnail") == before


def test_a_video_that_is_deleted_meanwhile_stays_deleted(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    job, folder = finished(server), server.service.queue.delivery.folder
    assert folder is not None

    def deleting(*_: Any) -> bytes:
        server.service.queue.delete(job.id)
        return b"picture"

    monkeypatch.setattr(video_pictures, "PICTURES", {**clips.PICTURES, "thumbnail": (deleting, "image/webp", "webp")})
    answer = server.client.get(f"/v1/videos/{job.id}/content?variant=thumbnail")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert not list(folder.glob(f"*{job.id}*"))
    assert server.client.get(f"/v1/videos/{job.id}").status_code == 404


@pytest.mark.parametrize("kept", [True, False])
def test_a_video_in_the_cloud_has_pictures_too(server: Running, monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    bucket, delivery = Bucket(), server.service.queue.delivery
    monkeypatch.setattr(delivery, "cloud", bucket)
    if not kept:
        monkeypatch.setattr(delivery, "folder", None)
        monkeypatch.setattr(delivery, "probed", False)
    job = finished(server)
    assert bool(job.artifacts[0].location) is kept
    for variant, kind in (("thumbnail", "WEBP"), ("spritesheet", "JPEG")):
        assert Image.open(io.BytesIO(get(server, job, variant))).format == kind
    answer = server.client.get(f"/v1/videos/{job.id}/content")
    assert (answer.status_code, answer.headers["location"]) == (302, f"https://bucket.example/{job.id}.mp4")
    assert server.client.get(f"/v1/videos/{job.id}").json()["url"] == answer.headers["location"]
    files = server.service.queue.get(job.id).files
    assert len(files) == 2
    assert server.client.delete(f"/v1/videos/{job.id}").status_code == 200
    assert bucket.objects == {}
    assert not any(Path(path).exists() for path in files)
