"""Idempotency-Key: what is sent twice is done once."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from engine.jobs.job import Status
from tests.sgdiff_app.server.folders import video_model
from tests.sgdiff_app.server.serving import Running, Server

SMALL: dict[str, Any] = {"prompt": "a boat", "size": "64x48", "num_frames": 5, "fps": 4}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("clips")
    with Server("--model-path", video_model(folder, "T2V"), folder=folder) as running:
        yield running


def post(server: Running, key: str, path: str = "/v1/videos", **fields: Any) -> httpx.Response:
    return server.client.post(path, json={**SMALL, **fields}, headers={"Idempotency-Key": key})


def count(server: Running) -> int:
    return len(server.client.get("/v1/videos?limit=100").json()["data"])


def test_the_same_request_twice_is_one_video(clips: Running) -> None:
    before = count(clips)
    first, second = post(clips, "one"), post(clips, "one")
    assert first.status_code == second.status_code == 200
    assert first.json()["id"] == second.json()["id"]
    assert count(clips) == before + 1
    assert post(clips, "two").json()["id"] != first.json()["id"]


def test_the_first_answer_is_queued_and_the_next_what_has_come_of_it(
    clips: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, submit = clips.service.queue, clips.service.queue.submit

    def slowly(*given: Any, **named: Any) -> Any:
        job = submit(*given, **named)
        while not job.finished:
            time.sleep(0.01)
        return job

    monkeypatch.setattr(queue, "submit", slowly)
    told = [post(clips, "by then").json() for _ in range(2)]
    shown = [(one["status"], one["progress"], one["queue_position"]) for one in told]
    assert shown == [("queued", 0, 0), ("completed", 100, None)]


def test_another_body_or_route_under_the_same_key_is_refused(clips: Running) -> None:
    first = post(clips, "three").json()
    while clips.client.get(f"/v1/videos/{first['id']}").json()["status"] != "completed":
        time.sleep(0.01)
    before = count(clips)
    for changes in ({"prompt": "a balloon"}, {"path": f"/v1/videos/{first['id']}/remix"}):
        answer = post(clips, "three", **changes)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "idempotency_mismatch")
    assert count(clips) == before
    assert post(clips, "three").json()["id"] == first["id"]


def test_a_form_is_the_same_whatever_its_boundary_is(clips: Running) -> None:
    parts = [(name, (None, str(value))) for name, value in SMALL.items()]
    ids = {
        clips.client.post("/v1/videos", files=parts, headers={"Idempotency-Key": "form"}).json()["id"] for _ in range(2)
    }
    assert len(ids) == 1


def test_at_the_same_time(clips: Running) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(clips, "at once"), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_a_request_that_came_to_nothing_leaves_its_key_free(clips: Running) -> None:
    assert post(clips, "four", size="65x48").status_code == 400
    assert post(clips, "four").status_code == 200


def test_after_its_video_was_deleted_a_key_makes_another(clips: Running) -> None:
    first = post(clips, "five").json()["id"]
    clips.client.delete(f"/v1/videos/{first}")
    again = post(clips, "five").json()["id"]
    assert again != first
    assert post(clips, "five").json()["id"] == again


def draw(server: Running, key: str, **fields: Any) -> httpx.Response:
    body = {"prompt": "a fox", "size": "64x64", "num_inference_steps": 1, **fields}
    return httpx.post(f"{server.url}/v1/images/generations", json=body, headers={"Idempotency-Key": key}, timeout=20)


def test_the_same_picture_twice_is_drawn_once(server: Running) -> None:
    first, second = draw(server, "picture"), draw(server, "picture")
    assert (first.status_code, first.json()) == (200, second.json())
    refused = draw(server, "picture", seed=4)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "idempotency_mismatch")


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_what_a_crash_has_ended_is_done_again(server: Running, status: Status) -> None:
    queue = server.service.queue
    first = draw(server, f"crash {status}").json()["id"]
    job = queue.get(first)
    job.status, job.error, job.artifacts = status, {"code": "server_restart", "message": "stopped"}, []
    queue.store.save(job)
    again = draw(server, f"crash {status}")
    assert again.status_code == 200
    assert again.json()["id"] != first
    assert draw(server, f"crash {status}").json()["id"] == again.json()["id"]


def test_a_video_that_failed_stays_the_answer(clips: Running) -> None:
    first = post(clips, "fault", prompt="FAULT").json()["id"]
    while clips.client.get(f"/v1/videos/{first}").json()["status"] != "failed":
        time.sleep(0.01)
    assert post(clips, "fault", prompt="FAULT").json()["id"] == first


def running(server: Running) -> list[dict[str, Any]]:
    return list(server.client.get("/v1/jobs?status=running").json()["data"])


@contextmanager
def waiting(server: Running, key: str, stream: bool, count: int = 1) -> Iterator[None]:
    """A connection that waits for a slow picture; it is closed at the end."""
    content = json.dumps({"prompt": "slow", "size": "64x64", "stream": stream, "num_inference_steps": 20}).encode()
    head = f"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: {key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + content)
        while sum(server.service.waiters.values()) < count:
            time.sleep(0.01)
        yield


@pytest.mark.parametrize("stream", [False, True])
def test_a_retry_outlives_the_connection_before_it(server: Running, stream: bool) -> None:
    key = f"follow {stream}"
    with ThreadPoolExecutor(1) as pool:
        with waiting(server, key, stream):
            again = pool.submit(draw, server, key, prompt="slow", stream=stream, num_inference_steps=20)
            while sum(server.service.waiters.values()) < 2:
                time.sleep(0.01)
            [job] = running(server)
        answer = again.result()
    assert answer.status_code == 200
    assert server.client.get(f"/v1/jobs/{job['id']}").json()["status"] == "done"
    assert job["id"] in answer.text


@pytest.mark.parametrize("stream", [False, True])
def test_the_last_connection_takes_the_picture_with_it(server: Running, stream: bool) -> None:
    key = f"leave {stream}"
    with waiting(server, key, stream), waiting(server, key, stream, 2):
        [job] = running(server)
    while (status := server.client.get(f"/v1/jobs/{job['id']}").json()["status"]) == "running":
        time.sleep(0.01)
    assert status == "cancelled"
    assert not server.service.waiters


def test_a_key_of_any_length_is_refused(clips: Running) -> None:
    answer = post(clips, "k" * 256)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_idempotency_key")
    assert post(clips, "k" * 255).status_code == 200
