"""Idempotency-Key: what is sent twice is done once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

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


def test_a_key_of_any_length_is_refused(clips: Running) -> None:
    answer = post(clips, "k" * 256)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_idempotency_key")
    assert post(clips, "k" * 255).status_code == 200
