"""Conformance over HTTP with models that draw clips and edit pictures. Numbers are those of the contract's cases."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine import video
from tests.conformance.program import Program, data_uri, model, pixels, png

CLIP = {"size": "64x64", "num_inference_steps": 2, "num_frames": 5, "fps": 4, "seed": 7}


def serving(folder: Path, family: str, **variables: str) -> Iterator[Program]:
    running = Program(folder / "server", model(family, folder), **variables)
    running.until_healthy()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    yield from serving(tmp_path_factory.mktemp("clips"), "wan-ti2v", SGDIFF_TEST_FAULT="error@2")


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    yield from serving(tmp_path_factory.mktemp("editor"), "qwen-image-edit-2509")


def made(program: Program, **fields: Any) -> dict[str, Any]:
    answer = program.post("/v1/videos", {"prompt": "a boat", **CLIP, **fields})
    assert answer.status_code == 200, answer.text
    return program.ended(answer.json()["id"])


def streams(path: Path) -> str:
    """What ffmpeg says of a file."""
    return subprocess.run([video.executable(), "-i", str(path)], capture_output=True, text=True, check=False).stderr


def test_case_19_content(clips: Program, tmp_path: Path) -> None:
    clip = made(clips)
    assert (clip["status"], clip["progress"], clip["num_frames"], clip["fps"]) == ("completed", 100, 5, 4)
    content = clips.client.get(f"/v1/videos/{clip['id']}/content")
    assert content.content[4:8] == b"ftyp"
    (tmp_path / "clip.mp4").write_bytes(content.content)
    said = streams(tmp_path / "clip.mp4")
    assert re.search(r"h264.*yuv420p.*64x64", said)
    assert re.search(r"4 fps", said)
    part = clips.client.get(f"/v1/videos/{clip['id']}/content", headers={"range": "bytes=0-99"})  # case 46
    assert (part.status_code, len(part.content)) == (206, 100)


def test_case_22_delete(clips: Program) -> None:
    clip = made(clips)
    deleted = clips.client.delete(f"/v1/videos/{clip['id']}").json()
    assert deleted == {"id": clip["id"], "object": "video.deleted", "deleted": True, "status": "deleted"}
    assert clips.client.get(f"/v1/videos/{clip['id']}").status_code == 404
    assert clips.client.delete(f"/v1/videos/{clip['id']}").status_code == 404
    assert not list((clips.folder / "outputs").glob(f"{clip['id']}*"))


def test_case_24_image_to_video(clips: Program) -> None:
    form = {name: str(value) for name, value in CLIP.items()} | {"prompt": "a boat"}
    first = clips.client.post("/v1/videos", data=form, files={"input_reference": ("a.png", png())})
    second = clips.post("/v1/videos", {"prompt": "a boat", **CLIP, "reference_url": data_uri()})
    for answer in (first, second):
        assert answer.status_code == 200, answer.text
        assert clips.ended(answer.json()["id"])["status"] == "completed"
    contents = [clips.client.get(f"/v1/videos/{answer.json()['id']}/content").content for answer in (first, second)]
    assert contents[0] == contents[1]
    alone = made(clips)["id"]
    assert clips.client.get(f"/v1/videos/{alone}/content").content != contents[0], "the picture makes no difference"


def test_case_27_a_failure_fails_one_job(clips: Program) -> None:
    failed = made(clips, prompt="FAULT", num_inference_steps=4)
    assert failed["status"] == "failed"
    assert failed["error"]["code"] == "generation_failed"
    assert failed["error"]["message"]
    assert made(clips)["status"] == "completed"


def test_case_42_deleting_a_running_video_frees_the_device(clips: Program) -> None:
    long = clips.post("/v1/videos", {"prompt": "a boat", **CLIP, "num_inference_steps": 900}).json()
    end = time.monotonic() + 20
    while clips.job(long["id"])["status"] != "running":
        assert time.monotonic() < end
    clips.client.delete(f"/v1/videos/{long['id']}")
    assert made(clips)["status"] == "completed"


def test_case_44_polling_with_the_sdk(clips: Program) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        extra = {name: value for name, value in CLIP.items() if name != "size"}
        clip = clips.sdk.videos.create_and_poll(prompt="a boat", size="64x64", extra_body=extra)  # type: ignore[arg-type]
        assert clip.status == "completed"
        assert clips.sdk.videos.download_content(clip.id).read()[4:8] == b"ftyp"
    waiting = clips.post("/v1/videos", {"prompt": "a boat", **CLIP})
    assert 250 <= int(waiting.headers["openai-poll-after-ms"]) <= 2000
    clips.ended(waiting.json()["id"])


def test_case_45_variants(clips: Program) -> None:
    clip, kinds = made(clips)["id"], {"thumbnail": "WEBP", "spritesheet": "JPEG"}
    for variant, kind in kinds.items():
        answer = clips.client.get(f"/v1/videos/{clip}/content?variant={variant}")
        assert Image.open(io.BytesIO(answer.content)).format == kind
        assert answer.headers["content-type"] == f"image/{kind.lower()}"
    whole, first = (clips.client.get(f"/v1/videos/{clip}/content?variant={name}").content for name in ("video", "0"))
    assert whole == first
    assert clips.client.get(f"/v1/videos/{clip}/content?variant=7").status_code == 404
    assert clips.client.get(f"/v1/videos/{clip}/content?variant=foo").status_code == 400


def test_case_58_preview_and_events(clips: Program) -> None:
    long = clips.post("/v1/videos", {"prompt": "a boat", **CLIP, "num_inference_steps": 150}).json()["id"]
    end, picture = time.monotonic() + 30, b""
    while not picture:
        answer = clips.client.get(f"/v1/jobs/{long}/preview")
        picture = answer.content if answer.status_code == 200 else b""
        assert time.monotonic() < end
    assert max(Image.open(io.BytesIO(picture)).size) <= 256
    seen: list[tuple[int, str]] = []
    with clips.client.stream("GET", f"/v1/jobs/{long}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                percent = re.search(r'"percent": ?(\d+)', line)
                status = re.search(r'"status": ?"(\w+)"', line)
                assert percent is not None
                assert status is not None
                seen.append((int(percent[1]), status[1]))
    assert seen == sorted(seen, key=lambda entry: entry[0])
    assert seen[-1] == (100, "done")


def test_cases_14_and_15_edits_through_the_sdk(editor: Program) -> None:
    for files in (png(), [png(64, "red"), png(64, "blue")]):
        answer = editor.sdk.images.edit(
            image=files, prompt="a boat", size="64x64", extra_body={"num_inference_steps": 2, "seed": 1}
        )  # type: ignore[call-overload]
        assert pixels(answer.data[0].b64_json).shape == (64, 64, 3)


def test_case_36_a_stream_of_an_edit(editor: Program) -> None:
    stream = editor.sdk.images.edit(
        image=png(), prompt="a boat", size="64x64", stream=True, extra_body={"num_inference_steps": 2}
    )  # type: ignore[call-overload]
    assert {event.type.partition(".")[0] for event in stream} == {"image_edit"}


def test_an_edit_by_json_is_the_same(editor: Program) -> None:
    fields = {"prompt": "a boat", "size": "64x64", "num_inference_steps": 2, "seed": 3}
    by_json = editor.post("/v1/images/edits", {**fields, "image": data_uri()}).json()
    form = {name: str(value) for name, value in fields.items()}
    by_form = editor.client.post("/v1/images/edits", data=form, files={"image": ("x.png", png())}).json()
    assert by_json["data"][0]["b64_json"] == by_form["data"][0]["b64_json"]
    assert base64.b64decode(by_json["data"][0]["b64_json"]).startswith(b"\x89PNG")
