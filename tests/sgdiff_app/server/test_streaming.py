"""Images as events: order and names, previews, failures, clients that leave."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest
from openai import APIError

from sgdiff_app.server import streaming
from tests.sgdiff_app.server.conftest import Sdk
from tests.sgdiff_app.server.pictures import SMALL, data_uri, decoded, error_of, picture
from tests.sgdiff_app.server.serving import Running

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
SLOW = {**SMALL, "prompt": "slow", "num_inference_steps": 9, "stream": True}
KEYS = {"type", "b64_json", "created_at", "size", "quality", "background", "output_format"}


def events(response: httpx.Response) -> list[tuple[str, Any]]:
    """The events of a stream, and its comments."""
    found: list[tuple[str, Any]] = []
    for block in response.text.split("\n\n")[:-1]:
        if block.startswith(":"):
            found.append(("comment", block))
            continue
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def stream(server: Running, **values: Any) -> list[tuple[str, Any]]:
    response = server.client.post(GENERATIONS, json={**SLOW, **values})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    return events(response)


def told(server: Running, **values: Any) -> list[tuple[str, Any]]:
    """The events without the comments."""
    return [(name, data) for name, data in stream(server, **values) if name != "comment"]


def test_case_35_through_the_official_client(server: Running, sdk: Sdk) -> None:
    extra = {"num_inference_steps": 9, "seed": 7}
    found = list(
        sdk(server).images.generate(  # type: ignore[call-overload]
            prompt="slow", size="64x64", stream=True, partial_images=2, extra_body=extra
        )
    )
    kinds = ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [event.type for event in found] == kinds
    assert [event.partial_image_index for event in found[:2]] == [0, 1]
    assert found[2].usage.total_tokens == found[2].usage.input_tokens + found[2].usage.output_tokens
    plain = server.client.post(GENERATIONS, json={**SLOW, "stream": False}).json()
    assert found[2].b64_json == plain["data"][0]["b64_json"]


def test_events_hold_what_is_promised(server: Running) -> None:
    partial, completed = told(server, partial_images=1)
    assert set(partial[1]) == KEYS | {"partial_image_index"}
    assert set(completed[1]) == KEYS | {"usage", "seed", "output_index", "id"}
    assert all(name == data["type"] for name, data in (partial, completed))
    assert decoded(completed[1]).size == (64, 64)
    assert (completed[1]["size"], completed[1]["output_format"]) == ("64x64", "png")
    assert (completed[1]["seed"], completed[1]["output_index"]) == (7, 0)


def test_partials_part_the_steps_evenly(server: Running) -> None:
    at = [
        name if name != "comment" else int(data.split()[2].partition("/")[0])
        for name, data in stream(server, partial_images=2)
    ]
    steps = [at[i - 1] for i, name in enumerate(at) if name == "image_generation.partial_image"]
    assert steps == [3, 6]
    few = told(server, partial_images=3, num_inference_steps=2)
    assert 1 <= len(few) - 1 <= 2
    assert [data["partial_image_index"] for _, data in few[:-1]] == list(range(len(few) - 1))


def test_without_partials_there_are_steps_and_the_picture(server: Running) -> None:
    found = stream(server)
    assert [name for name, _ in found if name != "comment"] == ["image_generation.completed"]
    assert ("comment", ": step 3/9") in found


def test_several_outputs_come_in_their_order(server: Running) -> None:
    found = told(server, n=3, partial_images=1, num_inference_steps=3)
    assert [name.partition(".")[2] for name, _ in found] == ["partial_image"] + ["completed"] * 3
    assert [(data["output_index"], data["seed"]) for _, data in found[1:]] == [(0, 7), (1, 8), (2, 9)]
    assert [data["usage"]["output_tokens"] for _, data in found[1:]] == [16] * 3


def test_case_36_edits(server: Running, sdk: Sdk) -> None:
    answer = sdk(server).images.edit(  # type: ignore[call-overload]
        image=("a.png", picture()), prompt="slow", size="64x64", stream=True, partial_images=1,
        extra_body={"num_inference_steps": 6},
    )  # fmt: skip
    assert [event.type for event in answer] == ["image_edit.partial_image", "image_edit.completed"]


def test_case_37_failures_are_events(server: Running, sdk: Sdk) -> None:
    with pytest.raises(APIError) as caught:
        list(
            sdk(server).images.generate(  # type: ignore[call-overload]
                prompt="OOM", size="64x64", stream=True, partial_images=1
            )
        )
    assert caught.value.code == "out_of_memory"
    found = told(server, prompt="FAULT")
    assert [name for name, _ in found] == ["error"]
    assert set(found[0][1]["error"]) == {"message", "type", "param", "code"}
    assert found[0][1]["error"]["code"] == "generation_failed"
    assert told(server)[-1][0] == "image_generation.completed"


def test_what_is_wrong_before_the_first_event_is_an_ordinary_error(server: Running) -> None:
    for values, code in (({"size": "abc"}, "invalid_size"), ({"seed": [1, 2]}, "invalid_seed")):
        error = error_of(server.client.post(GENERATIONS, json={**SLOW, **values}))
        assert error["code"] == code
    body = {**SLOW, "image": data_uri(b"junk")}
    assert error_of(server.client.post(EDITS, json=body))["code"] == "invalid_image"


def test_closing_the_stream_cancels(server: Running) -> None:
    queue = server.service.queue
    with server.client.stream("POST", GENERATIONS, json={**SLOW, "num_inference_steps": 20}) as response:
        assert next(response.iter_text()).startswith(": step")
    end = time.monotonic() + 2
    while queue.running and time.monotonic() < end:
        time.sleep(0.005)
    assert queue.page(limit=1)[0][0].status == "cancelled"


def test_a_silent_job_keeps_the_connection_alive(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "KEEP_ALIVE_S", 0.01)
    assert ("comment", ": waiting") in stream(server, num_inference_steps=3)


def test_a_cancelled_job_ends_the_stream(server: Running) -> None:
    queue = server.service.queue
    with server.client.stream("POST", GENERATIONS, json={**SLOW, "num_inference_steps": 20}) as response:
        lines = response.iter_lines()
        next(lines)
        queue.cancel(queue.page(limit=1)[0][0].id)
        last = [line for line in lines if line.startswith("data: ")]
    assert json.loads(last[0].removeprefix("data: "))["error"]["code"] == "cancelled"


def test_a_stream_under_a_key_is_drawn_once(server: Running) -> None:
    headers, body = {"idempotency-key": "stream"}, {**SLOW, "num_inference_steps": 2}
    ids = set()
    for _ in range(2):
        found = events(server.client.post(GENERATIONS, json=body, headers=headers))
        ids.add(found[-1][1]["id"])
    assert len(ids) == 1


def test_nothing_stays_of_a_stream_where_nothing_is_kept(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    delivery = server.service.queue.delivery
    monkeypatch.setattr(delivery, "folder", None)
    assert decoded(told(server)[-1][1]).size == (64, 64)
    time.sleep(0.05)
    assert list(delivery.scratch.rglob("*.png")) == []
