"""/v1/videos: the whole life of a video over HTTP, with the openai SDK where it has the method."""

from __future__ import annotations

import io
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import imageio_ffmpeg
import pytest
from openai import NotFoundError, OpenAI
from PIL import Image
from starlette.testclient import TestClient

from engine import env, video
from sgdiff_app import config, serve
from sgdiff_app.server.app import create
from tests.sgdiff_app.server.folders import video_model
from tests.sgdiff_app.server.serving import WORKER, Running, Server

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")
SMALL: dict[str, Any] = {"size": "64x48", "num_frames": 5, "fps": 4}
KEYS = {
    "id", "object", "model", "status", "progress", "created_at", "completed_at", "expires_at", "prompt", "size",
    "seconds", "quality", "remixed_from_video_id", "error", "num_frames", "fps", "seed", "num_outputs",
    "queue_position", "eta_s", "url", "urls", "inference_time_s", "queue_time_s", "peak_memory_mb", "revised_prompt",
}  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with a text-to-video model, one job at a time."""
    folder = tmp_path_factory.mktemp("clips")
    with Server("--model-path", video_model(folder, "T2V"), "--max-running", "1", folder=folder) as running:
        yield running


@pytest.fixture(scope="module")
def sdk(clips: Running) -> OpenAI:
    return OpenAI(base_url=f"{clips.url}/v1", api_key="x", max_retries=0)


def post(server: Running, prompt: str = "a boat", **fields: Any) -> dict[str, Any]:
    answer = server.client.post("/v1/videos", json={"prompt": prompt, **SMALL, **fields})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def wait(server: Running, video_id: str, *words: str) -> dict[str, Any]:
    """Return a video as soon as its status is one of the words; by default when it has ended."""
    words = words or ("completed", "failed")
    end = time.monotonic() + 10
    while (told := server.client.get(f"/v1/videos/{video_id}").json())["status"] not in words:
        assert time.monotonic() < end, told
        time.sleep(0.01)
    return dict(told)


def made(server: Running, prompt: str = "a boat", **fields: Any) -> dict[str, Any]:
    told = wait(server, post(server, prompt, **fields)["id"])
    assert told["status"] == "completed", told
    return told


def refused(answer: httpx.Response, status: int, code: str, param: str | None = None) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["code"], error["type"]) == (code, "invalid_request_error")
    assert param is None or error["param"] == param
    return str(error["message"])


# --- making one


def test_the_sdk_makes_and_polls_a_video(clips: Running, sdk: OpenAI) -> None:
    video = sdk.videos.create_and_poll(prompt="a slow boat", extra_body=SMALL)
    assert (video.status, video.progress, video.seconds, video.size) == ("completed", 100, "1", "64x48")
    assert video.completed_at is not None
    assert "openai-poll-after-ms" not in clips.client.get(f"/v1/videos/{video.id}").headers
    begun = clips.client.post("/v1/videos", json={"prompt": "a slow boat", **SMALL})
    assert 250 <= int(begun.headers["openai-poll-after-ms"]) <= 2000
    assert begun.headers["cache-control"] == "no-store"
    clips.client.delete(f"/v1/videos/{begun.json()['id']}")


def test_a_video_has_every_key_in_every_state(clips: Running) -> None:
    running, waiting = post(clips, "slow one", seed=7), post(clips, quality="low", n=2)
    assert running.keys() == waiting.keys() == KEYS
    running = wait(clips, running["id"], "in_progress")
    waiting = wait(clips, waiting["id"], "queued")
    assert (running["object"], running["prompt"], running["seed"]) == ("video", "slow one", 7)
    assert (running["num_frames"], running["fps"], running["size"]) == (5, 4, "64x48")
    assert 0 <= running["progress"] <= 99
    assert running["queue_position"] is running["url"] is running["completed_at"] is running["error"] is None
    assert (waiting["status"], waiting["progress"], waiting["queue_position"]) == ("queued", 0, 0)
    assert (waiting["quality"], waiting["num_outputs"]) == ("low", 2)
    done = wait(clips, waiting["id"])
    assert (done["status"], done["progress"], done["quality"]) == ("completed", 100, "low")
    assert len(done["urls"]) == 2
    assert done["url"] == done["urls"][0]
    assert all(clips.client.get(url).status_code == 200 for url in done["urls"])
    assert done["inference_time_s"] > 0
    assert done.keys() == KEYS


def test_the_content_is_an_mp4_as_the_object_says(clips: Running, sdk: OpenAI, tmp_path: Path) -> None:
    told = made(clips, n=2, seed=3)
    data = sdk.videos.download_content(told["id"]).read()
    assert data[4:8] == b"ftyp"
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    said = subprocess.run([video.executable(), "-i", path], capture_output=True, text=True, check=False).stderr
    assert f", {told['size']}" in said
    assert f" {told['fps']} fps" in said
    assert imageio_ffmpeg.count_frames_and_secs(str(path))[0] == told["num_frames"] == 5
    answer = clips.client.get(f"/v1/videos/{told['id']}/content?variant=0")
    assert (answer.content, answer.headers["content-type"]) == (data, "video/mp4")
    assert ".mp4" in answer.headers["content-disposition"]
    second = clips.client.get(f"/v1/videos/{told['id']}/content?variant=1").content
    assert second[4:8] == b"ftyp"
    assert second != data


@pytest.mark.parametrize(
    ("given", "frames", "fps", "seconds"),
    [
        ({"seconds": "2", "fps": 4}, 9, 4, "2"),  # 8 frames, but the model draws 4k + 1
        ({"seconds": 3, "fps": 4}, 13, 4, "3"),
        ({"seconds": "1"}, 17, 16, "1"),
        ({"num_frames": 21, "seconds": "9"}, 21, 16, "1"),
        ({}, 81, 16, "5"),
    ],
)
def test_seconds_and_frames(clips: Running, given: dict[str, Any], frames: int, fps: int, seconds: str) -> None:
    for body in (
        {"json": {"prompt": "a", "size": "64x48", **given}},
        {"files": form(prompt="a", size="64x48", **given)},
    ):
        told = clips.client.post("/v1/videos", **body).json()
        assert (told["num_frames"], told["fps"], told["seconds"]) == (frames, fps, seconds)


def form(**fields: Any) -> list[tuple[str, tuple[None, str]]]:
    """The parts of a multipart form."""
    return [(name, (None, str(value))) for name, value in fields.items()]


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"size": "65x48"}, "invalid_size", "size"),
        ({"size": "0x10"}, "invalid_size", "size"),
        ({"seconds": "0"}, "invalid_seconds", "seconds"),
        ({"seconds": "1.5"}, "invalid_seconds", "seconds"),
        ({"fps": 121}, "invalid_fps", "fps"),
        ({"n": 11}, "invalid_n", "n"),
        ({"model": "nope"}, None, "model"),
        ({"output_format": "gif"}, "unsupported_parameter", None),
        ({"stream": True}, "unknown_parameter", None),
        ({"image_path": "/etc/passwd"}, "parameter_not_allowed", None),
        ({"webhook_url": "https://a.example/"}, "invalid_webhook_url", "webhook_url"),
        ({"task_type": "I2V"}, "unsupported_task", "task_type"),
        ({"task_type": "T2I"}, "unsupported_task", "task_type"),
        ({"guidance_scale_2": 2.0}, "unsupported_parameter", "guidance_scale_2"),
        ({"enable_frame_interpolation": True, "frame_interpolation_exp": 1}, "unsupported_parameter", None),
        ({"enable_upscaling": True, "upscaling_scale": 2}, "unsupported_parameter", None),
    ],
)
def test_what_cannot_be_made_is_refused_before_it_is_queued(
    clips: Running, fields: dict[str, Any], code: str | None, param: str | None
) -> None:
    before = clips.client.get("/v1/videos").json()["first_id"]
    answer = clips.client.post("/v1/videos", json={"prompt": "a boat", **SMALL, **fields})
    refused(answer, 404 if code is None else 400, code or "model_not_found", param)
    assert clips.client.get("/v1/videos").json()["first_id"] == before


def test_a_clip_that_is_too_long_is_refused_with_the_longest_there_is(clips: Running) -> None:
    asked = {"prompt": "a boat", "size": "64x48", "fps": 4, "seconds": 999_999}
    message = refused(clips.client.post("/v1/videos", json=asked), 400, "invalid_size", "size")
    assert re.search(r"of this size it may have at most \d+ frames$", message)


def test_a_form_without_prompt(clips: Running) -> None:
    refused(clips.client.post("/v1/videos", files=form(size="64x48")), 400, "missing_parameter", "prompt")


def test_a_picture_model_makes_no_videos(server: Running) -> None:
    answer = server.client.post("/v1/videos", json={"prompt": "a boat"})
    assert "POST /v1/images/generations" in refused(answer, 400, "unsupported_task", "model")


def test_where_nothing_is_kept_no_video_is_made(clips: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips.service.queue.delivery, "folder", None)
    answer = clips.client.post("/v1/videos", json={"prompt": "a boat", **SMALL})
    assert "--output-path" in refused(answer, 400, "storage_disabled")


def test_a_video_is_queued_while_the_model_is_being_loaded(tmp_path: Path) -> None:
    argv = ["--headless", "--data-dir", str(tmp_path / "data"), "--output-path", str(tmp_path / "outputs")]
    argv += ["--model-path", video_model(tmp_path, "T2V")]
    service = serve.build(config.load(argv, "serve"), env.read(), WORKER)
    client = TestClient(create(service), "http://127.0.0.1")
    assert client.get("/health").json() == {"status": "loading"}
    first, second = (client.post("/v1/videos", json={"prompt": "a boat", **SMALL}).json() for _ in range(2))
    assert (first["status"], first["queue_position"]) == ("queued", 0)
    assert (second["status"], second["queue_position"]) == ("queued", 1)
    refused(client.post("/v1/videos", json={"prompt": "a boat", "size": "1x1"}), 400, "invalid_size")
    service.queue.close()


# --- from an image


def picture(width: int = 80, height: int = 48) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(stream, "PNG")
    return stream.getvalue()


def uri() -> str:
    import base64

    return f"data:image/png;base64,{base64.b64encode(picture()).decode()}"


def test_a_text_to_video_model_takes_no_input(clips: Running, sdk: OpenAI) -> None:
    answer = clips.client.post("/v1/videos", data={"prompt": "a"}, files={"input_reference": ("a.png", picture())})
    assert "input_reference is not supported for T2V models" in refused(answer, 400, "unsupported_task")
    for field in ("reference_url", "video_url", "input_reference"):
        answer = clips.client.post("/v1/videos", json={"prompt": "a", field: uri()})
        refused(answer, 400, "unsupported_task", "input_reference")


@pytest.fixture(scope="module")
def animator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with an image-to-video model."""
    folder = tmp_path_factory.mktemp("animator")
    with Server("--model-path", video_model(folder, "I2V"), folder=folder) as running:
        yield running


def test_an_image_becomes_a_video(animator: Running) -> None:
    sdk = OpenAI(base_url=f"{animator.url}/v1", api_key="x", max_retries=0)
    frames = {"num_frames": 5, "fps": 4}
    video = sdk.videos.create(prompt="a", input_reference=("a.png", picture()), size="64x48", extra_body=frames)  # type: ignore[arg-type]
    assert wait(animator, video.id)["status"] == "completed"
    for given in ({"reference_url": uri()}, {"input_reference": {"image_url": uri()}}, {"video_url": uri()}):
        answer = animator.client.post("/v1/videos", json={"prompt": "a", **SMALL, **given})
        assert wait(animator, answer.json()["id"])["status"] == "completed"
    shaped = animator.client.post("/v1/videos", json={"prompt": "a", "reference_url": uri(), "num_frames": 5}).json()
    width, height = map(int, shaped["size"].split("x"))
    assert width / height == pytest.approx(80 / 48, rel=0.05)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, "missing_parameter"),
        ({"input_reference": {"file_id": "file_1"}}, "invalid_input_reference"),
        ({"input_reference": uri(), "reference_url": uri()}, "invalid_input_reference"),
        ({"input_reference": "/etc/passwd"}, "invalid_url"),
        ({"input_reference": "data:image/png;base64,aGVsbG8="}, "invalid_image"),
        ({"input_reference": "http://127.0.0.1/a.png"}, "image_fetch_failed"),
    ],
)
def test_inputs_are_read_before_the_video_is_queued(animator: Running, given: dict[str, Any], code: str) -> None:
    answer = animator.client.post("/v1/videos", json={"prompt": "a", **SMALL, **given})
    refused(answer, 400, code, "input_reference")


def test_what_is_refused_late_leaves_no_input_behind(animator: Running, tmp_path: Path) -> None:
    folder = Path(animator.service.options.input_save_path)
    before = set(folder.glob("*"))
    answer = animator.client.post("/v1/videos", json={"prompt": "a", **SMALL, "reference_url": uri(), "strength": 0.5})
    refused(answer, 400, "unsupported_parameter", "strength")
    assert set(folder.glob("*")) == before


def test_the_inputs_go_with_the_video_and_a_remix_has_its_own(animator: Running) -> None:
    folder = Path(animator.service.options.input_save_path)
    first = made(animator, reference_url=uri())
    second = animator.client.post(f"/v1/videos/{first['id']}/remix", json={"prompt": "b"}).json()
    assert wait(animator, second["id"])["status"] == "completed"
    assert len(list(folder.glob(f"{first['id']}*"))) == len(list(folder.glob(f"{second['id']}*"))) == 1
    animator.client.delete(f"/v1/videos/{first['id']}")
    assert not list(folder.glob(f"{first['id']}*"))
    third = animator.client.post(f"/v1/videos/{second['id']}/remix", json={"prompt": "c"})
    assert wait(animator, third.json()["id"])["status"] == "completed"
    for path in folder.glob(f"{second['id']}*"):
        path.unlink()
    answer = animator.client.post(f"/v1/videos/{second['id']}/remix", json={"prompt": "d"})
    assert "is not there any more" in refused(answer, 400, "missing_parameter", "input_reference")


# --- failing, cancelling, deleting


def test_a_failed_video_can_be_looked_at_and_the_next_one_is_made(clips: Running) -> None:
    told = wait(clips, post(clips, "FAULT")["id"])
    assert (told["status"], told["error"]["code"]) == ("failed", "generation_failed")
    assert told["error"]["message"]
    assert told["progress"] < 100
    refused(clips.client.get(f"/v1/videos/{told['id']}/content"), 404, "video_failed")
    assert wait(clips, post(clips, "OOM")["id"])["error"]["code"] == "out_of_memory"
    made(clips)


def test_an_unknown_video(clips: Running, sdk: OpenAI) -> None:
    for call in (sdk.videos.retrieve, sdk.videos.delete, sdk.videos.download_content):
        with pytest.raises(NotFoundError) as caught:
            call("video_nope")
        assert caught.value.code == "not_found"
    refused(clips.client.post("/v1/videos/video_nope/cancel"), 404, "not_found")
    refused(clips.client.post("/v1/videos/video_nope/remix", json={"prompt": "a"}), 404, "not_found")


def test_a_deleted_video_is_gone_with_its_files(clips: Running, sdk: OpenAI) -> None:
    video_id = made(clips)["id"]
    for variant in ("thumbnail", "spritesheet"):
        assert clips.client.get(f"/v1/videos/{video_id}/content?variant={variant}").status_code == 200
    folder = clips.service.queue.delivery.folder
    assert folder is not None
    assert len(list(folder.glob(f"*{video_id}*"))) == 3
    told = sdk.videos.delete(video_id)
    assert (told.object, told.deleted, told.id) == ("video.deleted", True, video_id)
    assert told.model_extra == {"status": "deleted"}
    assert not list(folder.glob(f"*{video_id}*"))
    refused(clips.client.get(f"/v1/videos/{video_id}"), 404, "not_found")
    refused(clips.client.delete(f"/v1/videos/{video_id}"), 404, "not_found")


def test_deleting_a_running_video_lets_the_next_one_start(clips: Running, sdk: OpenAI) -> None:
    running, waiting = post(clips, "slow"), post(clips)
    wait(clips, running["id"], "in_progress")
    assert wait(clips, waiting["id"], "queued")["queue_position"] == 0
    assert sdk.videos.delete(running["id"]).deleted
    refused(clips.client.get(f"/v1/videos/{running['id']}"), 404, "not_found")
    refused(clips.client.delete(f"/v1/videos/{running['id']}"), 404, "not_found")
    begin = time.monotonic()
    assert wait(clips, waiting["id"])["status"] == "completed"
    assert time.monotonic() - begin < 0.7  # the whole of the other one takes a second


def test_a_cancelled_video_has_failed(clips: Running) -> None:
    running, waiting = post(clips, "slow"), post(clips, "slow")
    wait(clips, running["id"], "in_progress")
    told = clips.client.post(f"/v1/videos/{waiting['id']}/cancel").json()
    assert (told["status"], told["error"]["code"]) == ("failed", "cancelled")
    assert clips.client.post(f"/v1/videos/{running['id']}/cancel", json={}).status_code == 200
    told = wait(clips, running["id"])
    assert (told["status"], told["error"]["code"]) == ("failed", "cancelled")
    assert clips.client.post(f"/v1/videos/{running['id']}/cancel").json() == told
    done = made(clips)
    assert clips.client.post(f"/v1/videos/{done['id']}/cancel").json() == done


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "edits"),
        ("POST", "extensions"),
        ("POST", "characters"),
        ("GET", "characters/char_1"),
    ],
)
def test_routes_that_are_not_offered(clips: Running, method: str, path: str) -> None:
    refused(clips.client.request(method, f"/v1/videos/{path}"), 404, "unsupported_endpoint")


# --- content


def test_variants(clips: Running) -> None:
    told = made(clips, size="1040x16", n=2)
    place = f"/v1/videos/{told['id']}/content"
    for index in ("", "&index=1"):
        answer = clips.client.get(f"{place}?variant=thumbnail{index}")
        image = Image.open(io.BytesIO(answer.content))
        assert (answer.headers["content-type"], image.format, max(image.size)) == ("image/webp", "WEBP", 512)
        again = clips.client.get(f"{place}?variant=thumbnail{index}")
        assert (again.content, again.headers["etag"]) == (answer.content, answer.headers["etag"])
    answer = clips.client.get(f"{place}?variant=spritesheet")
    image = Image.open(io.BytesIO(answer.content))
    assert (answer.headers["content-type"], image.format, image.size) == ("image/jpeg", "JPEG", (3 * 256, 2 * 4))
    assert clips.client.get(f"{place}?variant=video").content == clips.client.get(f"{place}?variant=0").content
    refused(clips.client.get(f"{place}?variant=7"), 404, "variant_not_found")
    refused(clips.client.get(f"{place}?variant=thumbnail&index=2"), 404, "variant_not_found")
    refused(clips.client.get(f"{place}?variant=thumbnail&index=x"), 400, "invalid_index", "index")
    message = refused(clips.client.get(f"{place}?variant=foo"), 400, "invalid_variant", "variant")
    assert "video, thumbnail, spritesheet" in message


def test_byte_ranges_and_heads(clips: Running) -> None:
    place = f"/v1/videos/{made(clips)['id']}/content"
    whole = clips.client.get(place)
    part = clips.client.get(place, headers={"range": "bytes=0-99"})
    assert (part.status_code, part.content) == (206, whole.content[:100])
    head = clips.client.head(place)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(whole.content)
    part = clips.client.get(f"{place}?variant=thumbnail", headers={"range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"RIFF")


def test_what_is_not_ready_has_no_content(clips: Running) -> None:
    told = post(clips, "slow")
    for variant in ("video", "thumbnail"):
        refused(clips.client.get(f"/v1/videos/{told['id']}/content?variant={variant}"), 404, "video_not_ready")
    clips.client.delete(f"/v1/videos/{told['id']}")


def test_files_that_somebody_removed(clips: Running) -> None:
    told, folder = made(clips), clips.service.queue.delivery.folder
    assert folder is not None
    (folder / f"{told['id']}.mp4").unlink()
    for variant in ("video", "thumbnail", "spritesheet"):
        message = refused(
            clips.client.get(f"/v1/videos/{told['id']}/content?variant={variant}"), 404, "content_not_stored"
        )
        assert str(folder) not in message


def test_an_expired_video_keeps_its_record(clips: Running) -> None:
    job = clips.service.queue.get(made(clips)["id"])
    job.expires_at = job.completed_at
    clips.service.queue.keep(job)
    clips.service.queue.expire()
    told = clips.client.get(f"/v1/videos/{job.id}").json()
    assert (told["status"], told["url"], told["urls"]) == ("completed", None, None)
    assert told["expires_at"] == told["completed_at"]
    for variant in ("video", "thumbnail"):
        refused(clips.client.get(f"/v1/videos/{job.id}/content?variant={variant}"), 404, "content_expired")
    refused(clips.client.get(f"/v1/videos/{job.id}/content?variant=foo"), 400, "invalid_variant")


# --- lists and remixes


def test_a_list_visits_every_video_once_in_both_orders(clips: Running, sdk: OpenAI) -> None:
    ids = [made(clips)["id"] for _ in range(3)]
    known = [entry["id"] for entry in clips.client.get("/v1/videos?limit=100&order=asc").json()["data"]]
    assert known[-3:] == ids
    assert [video.id for video in sdk.videos.list(limit=7)] == known[::-1]
    assert [video.id for video in sdk.videos.list(limit=1, order="asc", after=known[-5])] == known[-4:]
    page = clips.client.get(f"/v1/videos?limit=1&after={ids[2]}").json()
    assert (page["object"], page["first_id"], page["last_id"], page["has_more"]) == ("list", ids[1], ids[1], True)
    assert page["data"] == [clips.client.get(f"/v1/videos/{ids[1]}").json()]
    clips.client.delete(f"/v1/videos/{ids[1]}")
    assert [entry["id"] for entry in clips.client.get(f"/v1/videos?limit=1&after={ids[1]}").json()["data"]] == [ids[0]]
    last = clips.client.get(f"/v1/videos?after={known[0]}").json()
    assert last == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("limit=0", "invalid_limit", "limit"),
        ("limit=101", "invalid_limit", "limit"),
        ("limit=ten", "invalid_limit", "limit"),
        ("order=up", "invalid_order", "order"),
        ("after=nope", "invalid_cursor", "after"),
    ],
)
def test_lists_that_cannot_be(clips: Running, query: str, code: str, param: str) -> None:
    refused(clips.client.get(f"/v1/videos?{query}"), 400, code, param)


def test_a_remix_takes_over_what_is_not_said(clips: Running, sdk: OpenAI) -> None:
    source = made(clips, seed=11, quality="low", num_inference_steps=4)
    video = sdk.videos.remix(source["id"], prompt="a balloon", extra_body={"seconds": "3"})
    assert (video.remixed_from_video_id, video.prompt) == (source["id"], "a balloon")
    told = wait(clips, video.id)
    same = ("seed", "size", "fps", "quality")
    assert {name: told[name] for name in same} == {name: source[name] for name in same}
    assert told["num_frames"] == 13
    job = clips.service.queue.get(video.id)
    assert (job.resolved.num_inference_steps, job.resolved.seed) == (4, 11)
    again = clips.client.post(f"/v1/videos/{video.id}/remix", json={"prompt": "a balloon", "seed": 12, "size": "32x32"})
    assert (again.json()["seed"], again.json()["size"], again.json()["num_frames"]) == (12, "32x32", 13)
    steps = clips.client.post(f"/v1/videos/{video.id}/remix", json={"prompt": "a", "quality": "max"}).json()
    assert clips.service.queue.get(steps["id"]).resolved.num_inference_steps == 75


def test_only_what_is_completed_can_be_remixed(clips: Running) -> None:
    running = post(clips, "slow")
    answer = clips.client.post(f"/v1/videos/{running['id']}/remix", json={"prompt": "a"})
    refused(answer, 400, "video_not_completed")
    clips.client.delete(f"/v1/videos/{running['id']}")
    done = made(clips)
    refused(clips.client.post(f"/v1/videos/{done['id']}/remix", json={}), 400, "missing_parameter", "prompt")
