"""The LoRA routes: what they take, what they refuse and in which words."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.sgdiff_app.server.conftest import Starter
from tests.sgdiff_app.server.serving import Running

FORM = {"content-type": "application/x-www-form-urlencoded"}  # what curl says of -d


def post(server: Running, name: str, **body: Any) -> Any:
    return server.client.post(f"/v1/{name}", json=body)


def active(server: Running) -> list[str]:
    found = server.client.get("/v1/list_loras").json()["active"]
    return [entry["nickname"] for entry in found.get("transformer", [])]


def draw(server: Running) -> str:
    body = {"prompt": "a red cube", "seed": 1, "size": "64x64"}
    return str(server.client.post("/v1/images/generations", json=body).json()["data"][0]["b64_json"])


def test_set_list_unmerge_and_merge(server: Running) -> None:
    """Conformance cases 28 and 31, as far as a worker without a model shows them."""
    base = draw(server)
    answer = post(server, "set_lora", lora_nickname="a", lora_path="/weights/a.safetensors", strength=0.5).json()
    assert answer == {"status": "ok", "message": "LoRA set: a on all, strength 0.5", "warnings": []}
    listed = server.client.get("/v1/list_loras").json()
    assert listed["loaded_adapters"] == [{"nickname": "a", "path": "/weights/a.safetensors"}]
    assert active(server) == ["a"]
    with_a = draw(server)
    assert with_a != base
    assert post(server, "unmerge_lora_weights", target="all").json()["status"] == "ok"
    assert active(server) == []
    assert draw(server) == base
    merged = post(server, "merge_lora_weights", target="transformer", strength=0.5).json()
    assert merged["message"] == "LoRA merged: a on transformer, strength 0.5"
    assert draw(server) == with_a
    again = post(server, "set_lora", lora_nickname=["b", "a"], lora_path=["some-org/b", None]).json()
    assert again["message"] == "LoRA set: b on all, strength 1; a on all, strength 1"
    assert active(server) == ["b", "a"]


def test_json_whatever_its_type(server: Running) -> None:
    """Conformance case 49."""
    raw = json.dumps({"lora_nickname": "a", "lora_path": "some-org/a"})
    assert server.client.post("/v1/set_lora", content=raw, headers=FORM).status_code == 200
    assert server.client.post("/v1/unmerge_lora_weights").status_code == 200
    assert server.client.post("/v1/merge_lora_weights", headers=FORM).status_code == 200
    assert server.client.post("/v1/unmerge_lora_weights", content=b"", headers=FORM).status_code == 200


def test_a_target_that_the_model_lacks_is_a_warning(server: Running) -> None:
    """Conformance case 30."""
    body = {"lora_nickname": ["a", "b"], "lora_path": ["some-org/a", "some-org/b"]}
    answer = post(server, "set_lora", **body, strength=[0.5, 0.5], target=["transformer", "transformer_2"])
    assert (answer.status_code, answer.json()["warnings"]) == (200, ["b: the model has no transformer_2, skipped"])


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({}, 400, "missing_parameter", "lora_nickname: required"),
        ({"lora_nickname": None}, 400, "missing_parameter", "lora_nickname: required"),
        ({"lora_nickname": []}, 400, "missing_parameter", "lora_nickname: required"),
        ({"lora_nickname": 3}, 400, "invalid_type", "lora_nickname: must be a text or a list of them, got 3"),
        ({"lora_nickname": ["a", None]}, 400, "invalid_type", "lora_nickname: must be a text"),
        ({"lora_nickname": "a", "strength": "0.5"}, 400, "invalid_type", "strength: must be a number or a list of th"),
        ({"lora_nickname": "a", "strength": True}, 400, "invalid_type", "got true"),
        ({"lora_nickname": "a", "strength": 1e9}, 400, "invalid_strength", "must be from -1000000 to 1000000"),
        ({"lora_nickname": "a", "lora_path": {}}, 400, "invalid_type", "lora_path: must be a text"),
        ({"lora_nickname": "a", "lora_alpha": 1.5}, 400, "invalid_type", "lora_alpha: must be an integer"),
        ({"lora_nickname": "a", "lora_alpha": 0}, 400, "invalid_lora_alpha", "must be greater than 0"),
        ({"lora_nickname": "a", "merge_mode": "late"}, 400, "invalid_merge_mode", "one of auto, merge, dynamic"),
        ({"lora_nickname": "a", "target": "vae"}, 400, "invalid_lora_target", "one of all, transformer"),
        ({"lora_nickname": "a", "lora_name": "b"}, 400, "unknown_parameter", "did you mean 'lora_nickname'?"),
        ({"lora_nickname": ["a", "a"]}, 400, "invalid_lora_nickname", "'a' is there twice"),
        ({"lora_nickname": "x" * 65}, 400, "invalid_lora_nickname", "1 to 64 characters"),
        ({"lora_nickname": ["a", "b"], "lora_path": "p/q"}, 400, "lora_length_mismatch", "one path for 2 nicknames"),
        ({"lora_nickname": ["a", "b"], "strength": [1, 1, 1]}, 400, "lora_length_mismatch", "3 values for 2 adapters"),
        ({"lora_nickname": "nobody"}, 404, "lora_not_found", "'nobody' is not loaded"),
    ],
)
def test_a_wrong_set(server: Running, body: dict[str, Any], status: int, code: str, says: str) -> None:
    """Among them conformance case 32: the message is there as `detail` too, and nothing has changed."""
    post(server, "set_lora", lora_nickname="kept", lora_path="some-org/kept")
    answer = post(server, "set_lora", **body)
    told = answer.json()
    assert (answer.status_code, told["error"]["code"]) == (status, code)
    assert told["error"].keys() == {"message", "type", "param", "code"}
    assert says in told["error"]["message"] == told["detail"]
    assert active(server) == ["kept"]


def test_wrong_merges(start: Starter) -> None:
    server = start()
    for name in ("merge_lora_weights", "unmerge_lora_weights"):
        assert post(server, name, target="vae").json()["error"]["code"] == "invalid_lora_target"
        assert post(server, name, target=["all"]).json()["error"]["code"] == "invalid_type"
        assert post(server, name, nickname="a").json()["error"]["code"] == "unknown_parameter"
    assert post(server, "merge_lora_weights", strength=1e9).json()["error"]["code"] == "invalid_strength"
    nothing = post(server, "merge_lora_weights")
    assert (nothing.status_code, nothing.json()["error"]["code"]) == (400, "no_lora_set")


@pytest.mark.parametrize("raw", [b"{", b"[]", b"lora_nickname=a", b"\xff", b'{"a":' * 2000, b'{"strength": NaN}'])
def test_no_json(server: Running, raw: bytes) -> None:
    answer = server.client.post("/v1/set_lora", content=raw, headers=FORM)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")
    assert answer.json()["detail"] == answer.json()["error"]["message"]


def test_allowed_folders(start: Starter, tmp_path: Path) -> None:
    inside = tmp_path / "weights"
    inside.mkdir()
    (inside / "a.safetensors").touch()
    (tmp_path / "b.safetensors").touch()
    server = start("--lora-allowed-dirs", str(inside))
    answer = post(server, "set_lora", lora_nickname="b", lora_path=str(inside / ".." / "b.safetensors"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_lora_path")
    for path in (str(inside / "a.safetensors"), "some-org/repo"):
        assert post(server, "set_lora", lora_nickname="a", lora_path=path).status_code == 200, path


def test_while_the_worker_is_dead(start: Starter) -> None:
    server = start()
    post(server, "set_lora", lora_nickname="a", lora_path="some-org/a")
    child = server.service.queue.supervisor.child
    assert child is not None
    os.kill(child.process.pid, signal.SIGKILL)
    end = time.monotonic() + 10
    while server.service.queue.health != "unhealthy":
        assert time.monotonic() < end
        time.sleep(0.005)
    refused = post(server, "unmerge_lora_weights")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "worker_died")
    assert refused.json()["detail"]
    assert refused.headers["retry-after"] == "15"
    assert server.client.get("/v1/list_loras").status_code == 200


def test_what_is_refused_before_a_route_has_a_say_carries_detail_too(start: Starter) -> None:
    server = start("--api-key", "k", "--max-body-mb", "1")
    key = {"authorization": "Bearer k"}
    answers = [
        server.client.post(path, content=content, headers=headers)
        for path, content, headers in (
            ("/v1/set_lora", b"", {}),
            ("/v1/list_loras", b"", key),
            ("/v1/set_lora", b"x" * 1_100_000, key),
            ("/v1/set_lora", b"", {**key, "host": "elsewhere.example"}),
            ("/v1/set_lora", b"", {**key, "origin": "https://elsewhere.example"}),
        )
    ]
    server.service.queue.draining = True
    answers.append(server.client.post("/v1/unmerge_lora_weights", headers=key))
    assert [answer.status_code for answer in answers] == [401, 405, 413, 403, 403, 503]
    for answer in answers:
        assert answer.json()["detail"] == answer.json()["error"]["message"]
    assert "detail" not in server.client.post("/v1/videos", headers=key).json()
