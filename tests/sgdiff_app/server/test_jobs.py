"""/v1/jobs: lists, previews, events, and what a client may change."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.jobs.job import new_id
from sgdiff_app.server import jobs
from tests.sgdiff_app.server.conftest import Starter
from tests.sgdiff_app.server.folders import video_model
from tests.sgdiff_app.server.serving import Running, Server

KEYS = {
    "id", "object", "kind", "model", "status", "priority", "starred", "progress", "created_at", "started_at",
    "completed_at", "expires_at", "request", "recipe", "artifacts", "error",
}  # fmt: skip
SMALL: dict[str, Any] = {"size": "64x48", "num_frames": 5, "fps": 4}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with a text-to-video model, one job at a time."""
    folder = tmp_path_factory.mktemp("clips")
    with Server("--model-path", video_model(folder, "T2V"), "--max-running", "1", folder=folder) as running:
        yield running


def post(server: Running, prompt: str = "a boat", **fields: Any) -> str:
    answer = server.client.post("/v1/videos", json={"prompt": prompt, **SMALL, **fields})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def get(server: Running, job_id: str) -> dict[str, Any]:
    return dict(server.client.get(f"/v1/jobs/{job_id}").json())


def wait(server: Running, job_id: str, *statuses: str) -> dict[str, Any]:
    statuses = statuses or ("done", "failed", "cancelled")
    end = time.monotonic() + 10
    while (job := get(server, job_id))["status"] not in statuses:
        assert time.monotonic() < end, job
        time.sleep(0.01)
    return job


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_job_that_has_not_ended_is_never_whole(clips: Running) -> None:
    """Its percent changes before its status does."""
    job = clips.service.queue.get(wait(clips, post(clips))["id"])
    assert jobs.public(clips.service, job)["progress"]["percent"] == 100
    job.status = "running"
    assert jobs.public(clips.service, job)["progress"]["percent"] == 99


def test_a_job(clips: Running) -> None:
    job = wait(clips, post(clips, seed=7, num_outputs_per_prompt=2))
    assert job.keys() == KEYS
    assert (job["object"], job["kind"], job["status"], job["progress"]["percent"]) == ("job", "video", "done", 100)
    assert job["request"]["prompt"] == "a boat"
    assert [recipe["request"]["seed"] for recipe in job["recipe"]] == [7, 8]
    first, second = job["artifacts"]
    url = f"/v1/videos/{job['id']}/content?variant=1"
    shape = {"media_type": "video/mp4", "width": 64, "height": 48, "frames": 5}
    assert second == {"index": 1, "url": url, "seed": 8, **shape}
    assert clips.client.get(first["url"]).content[4:8] == b"ftyp"
    assert job["created_at"] <= job["started_at"] <= job["completed_at"]
    assert clips.client.get(f"/v1/videos/{job['id']}").json()["id"] == job["id"]  # one record
    assert clips.client.get(f"/v1/jobs/{job['id']}").headers["cache-control"] == "no-store"


def test_filters_and_cursor(clips: Running) -> None:
    """Conformance case 57, the first part."""
    done = [wait(clips, post(clips))["id"] for _ in range(3)]
    failed = wait(clips, post(clips, "FAULT"))
    assert (failed["status"], failed["error"]["code"]) == ("failed", "generation_failed")
    query: dict[str, Any] = {"kind": "video", "status": "done", "limit": 1}
    seen = list[str]()
    while True:
        page = clips.client.get("/v1/jobs", params=query).json()
        assert page["object"] == "list"
        assert page["first_id"] == page["last_id"] == page["data"][0]["id"]
        seen.append(page["last_id"])
        query["after"] = page["last_id"]
        if not page["has_more"]:
            break
    assert seen[:3] == done[::-1]
    assert failed["id"] not in seen
    assert len(seen) == len(set(seen))
    assert clips.client.get("/v1/jobs", params={"kind": "image"}).json()["data"] == []
    oldest = clips.client.get("/v1/jobs", params={"order": "asc", "limit": 100, "status": "done"}).json()
    assert [job["id"] for job in oldest["data"]] == seen[::-1]


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("kind", "movie", "invalid_kind"),
        ("status", "completed", "invalid_status"),
        ("after", "nonsense", "invalid_cursor"),
        ("limit", "0", "invalid_limit"),
        ("limit", "101", "invalid_limit"),
        ("order", "up", "invalid_order"),
    ],
)
def test_wrong_queries(clips: Running, name: str, value: str, code: str) -> None:
    assert code_of(clips.client.get("/v1/jobs", params={name: value})) == (400, code)


def test_unknown_jobs(clips: Running) -> None:
    for name in ("video_nope", new_id("video"), "a%2Fb"):
        for method, tail in (("GET", ""), ("GET", "/preview"), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")):
            assert code_of(clips.client.request(method, f"/v1/jobs/{name}{tail}")) == (404, "not_found"), (name, tail)
        assert code_of(clips.client.patch(f"/v1/jobs/{name}", json={"starred": True})) == (404, "not_found")


def test_cancel_star_and_delete(clips: Running) -> None:
    """Conformance case 57, the rest."""
    job_id = post(clips, "slow", num_inference_steps=20)
    wait(clips, job_id, "running")
    starred = clips.client.patch(f"/v1/jobs/{job_id}", json={"starred": True, "priority": None}).json()
    assert (starred["starred"], starred["priority"]) == (True, 0)
    assert clips.client.post(f"/v1/jobs/{job_id}/cancel", json={}).status_code == 200
    cancelled = wait(clips, job_id)
    assert (cancelled["status"], cancelled["error"]["code"]) == ("cancelled", "cancelled")
    assert cancelled["starred"] is True
    assert clips.client.post(f"/v1/jobs/{job_id}/cancel").json() == cancelled
    gone = {"id": job_id, "object": "job.deleted", "deleted": True}
    assert clips.client.delete(f"/v1/jobs/{job_id}").json() == gone
    assert code_of(clips.client.get(f"/v1/jobs/{job_id}")) == (404, "not_found")
    assert code_of(clips.client.get(f"/v1/videos/{job_id}")) == (404, "not_found")


def test_the_urgent_go_first(clips: Running) -> None:
    running = post(clips, "slow", num_inference_steps=6)
    wait(clips, running, "running")
    usual, urgent = post(clips), post(clips)
    assert clips.client.patch(f"/v1/jobs/{urgent}", json={"priority": 5}).json()["priority"] == 5
    last, first = wait(clips, usual), wait(clips, urgent)
    jobs = [clips.service.queue.get(job["id"]) for job in (first, last)]
    started = [job.started_at for job in jobs]
    assert started[0] is not None and started[1] is not None and started[0] < started[1]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "missing_parameter"),
        ({"priority": "1"}, "invalid_priority"),
        ({"priority": True}, "invalid_priority"),
        ({"priority": 10**30}, "invalid_priority"),
        ({"starred": 1}, "invalid_starred"),
        ({"stared": True}, "unknown_parameter"),
        ({"status": "done"}, "unknown_parameter"),
    ],
)
def test_wrong_changes(clips: Running, body: dict[str, Any], code: str) -> None:
    job_id = wait(clips, post(clips))["id"]
    assert code_of(clips.client.patch(f"/v1/jobs/{job_id}", json=body)) == (400, code)
    assert get(clips, job_id)["starred"] is False


def test_previews(clips: Running) -> None:
    """Conformance case 58, the first part."""
    running = post(clips, "slow", num_inference_steps=20)
    wait(clips, running, "running")
    answer = clips.client.get(f"/v1/jobs/{running}/preview")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.content.startswith(b"\xff\xd8")
    queued = post(clips)
    assert code_of(clips.client.get(f"/v1/jobs/{queued}/preview")) == (404, "preview_not_available")
    assert not clips.service.queue.listeners.get(running)  # nobody looks any more
    clips.client.post(f"/v1/jobs/{running}/cancel")
    wait(clips, queued)
    assert code_of(clips.client.get(f"/v1/jobs/{queued}/preview")) == (404, "preview_not_available")


def test_events(clips: Running) -> None:
    """Conformance case 58, the rest."""
    job_id = post(clips, "slow", num_inference_steps=6)
    told = list[dict[str, Any]]()
    with clips.client.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert (stream.headers["cache-control"], stream.headers["x-accel-buffering"]) == ("no-store", "no")
        for line in stream.iter_lines():
            if line.startswith("data: "):
                told.append(json.loads(line.removeprefix("data: ")))
    percents = [event["progress"]["percent"] for event in told]
    assert percents == sorted(percents)
    assert len(set(percents)) > 3
    assert all(event["progress"]["percent"] < 100 for event in told if event["status"] == "running")
    assert (told[-1]["status"], told[-1]["type"]) == ("done", "status")
    assert told[-1].keys() == KEYS | {"type"}
    with clips.client.stream("GET", f"/v1/jobs/{job_id}/events") as again:  # of a finished job: its end
        assert [line for line in again.iter_lines() if line.startswith("event")] == ["event: status"]


def test_leaving_the_events_leaves_the_job(clips: Running) -> None:
    job_id = post(clips, "slow", num_inference_steps=6)
    with clips.client.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
        next(stream.iter_lines())
    assert wait(clips, job_id)["status"] == "done"


def test_the_events_of_a_deleted_job_end(clips: Running) -> None:
    job_id = post(clips, "slow", num_inference_steps=20)
    wait(clips, job_id, "running")
    with clips.client.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
        lines = stream.iter_lines()
        next(lines)
        clips.client.delete(f"/v1/jobs/{job_id}")
        assert json.loads([line for line in lines if line.startswith("data")][-1][6:])["status"] == "cancelled"


def test_a_deleted_image_is_answered(server: Running) -> None:
    """A client that waits for an image hears when somebody deletes its job."""
    answers = list[Any]()
    body = {"prompt": "slow", "num_inference_steps": 20, "size": "64x64"}
    thread = threading.Thread(target=lambda: answers.append(server.client.post("/v1/images/generations", json=body)))
    thread.start()
    end = time.monotonic() + 10
    while not (jobs := server.client.get("/v1/jobs", params={"status": "running"}).json()["data"]):
        assert time.monotonic() < end
    assert jobs[0]["kind"] == "image"
    server.client.delete(f"/v1/jobs/{jobs[0]['id']}")
    thread.join(10)
    assert code_of(answers[0]) == (400, "cancelled")
    assert answers[0].headers["x-should-retry"] == "false"


def test_an_edit_names_no_file_of_the_server(start: Starter, tmp_path: Path) -> None:
    from io import BytesIO

    from PIL import Image

    server, picture = start("--public-base-url", "https://pictures.example"), BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "png")
    files = {"image": picture.getvalue(), "mask": picture.getvalue()}
    answer = server.client.post("/v1/images/edits", data={"prompt": "blue"}, files=files)
    assert answer.status_code == 200, answer.text
    job = get(server, answer.json()["id"])
    assert (job["kind"], job["request"]["image_path"], job["request"]["mask_path"]) == ("edit", ["image-0"], "mask")
    assert job["artifacts"][0]["url"] == f"https://pictures.example/v1/images/{job['id']}/content"
    shown = {name: value for name, value in job.items() if name != "recipe"}
    assert str(tmp_path) not in json.dumps(shown)


def test_after_a_restart(tmp_path: Path) -> None:
    """Conformance case 43, what the list says."""
    flags = ("--model-path", video_model(tmp_path, "T2V"), "--max-running", "1")
    with Server(*flags, folder=tmp_path) as before:
        done = wait(before, post(before))
        running, queued = post(before, "slow", num_inference_steps=20), post(before)
        wait(before, running, "running")
    with Server(*flags, folder=tmp_path) as after:
        wait(after, queued, "done")
        assert get(after, done["id"]) == done
        failed = get(after, running)
        assert (failed["status"], failed["error"]["code"]) == ("failed", "server_restart")
        listed = after.client.get("/v1/jobs").json()["data"]
        assert [job["id"] for job in listed] == [queued, running, done["id"]]
        assert after.client.get(done["artifacts"][0]["url"]).status_code == 200
