"""Errors over HTTP: the status, type and headers of each, and one envelope for all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.errors import (
    Draining,
    GenerationError,
    InputError,
    ModelError,
    NotAvailable,
    NotFound,
    OutOfMemory,
    QueueFull,
    SgdiffError,
    UploadFailed,
    UsageError,
    WorkerDied,
)
from sgdiff_app.server import errors
from sgdiff_app.server.errors import ApiError, gone, invalid
from sgdiff_app.server.fields import GENERATIONS
from tests.sgdiff_app.server.serving import Running

AGAIN = "retry-after"
NEVER = {"x-should-retry": "false"}


@pytest.mark.parametrize(
    ("error", "status", "kind", "code", "headers"),
    [
        (UsageError("m", param="size"), 400, "invalid_request_error", "invalid_size", {}),
        (UsageError("m"), 400, "invalid_request_error", "invalid_value", {}),
        (UsageError("m", code="conflicting_size", param="size"), 400, "invalid_request_error", "conflicting_size", {}),
        (NotAvailable("m", param="x"), 400, "invalid_request_error", "unsupported_parameter", {}),
        (InputError("m"), 400, "invalid_request_error", "invalid_image", {}),
        (ModelError("m"), 404, "invalid_request_error", "model_not_found", {}),
        (ModelError("m", code="lora_file_not_found"), 404, "invalid_request_error", "lora_file_not_found", {}),
        (NotFound("m"), 404, "invalid_request_error", "not_found", {}),
        (gone("video_not_ready", "m"), 404, "invalid_request_error", "video_not_ready", {}),
        (invalid("invalid_json", "m"), 400, "invalid_request_error", "invalid_json", {}),
        (ApiError(401, "invalid_api_key", "m"), 401, "authentication_error", "invalid_api_key", {}),
        (ApiError(403, "host_not_allowed", "m"), 403, "permission_error", "host_not_allowed", {}),
        (QueueFull("m", retry_after=7), 429, "rate_limit_error", "queue_full", {AGAIN: "7"}),
        (GenerationError("m"), 500, "server_error", "generation_failed", NEVER),
        (OutOfMemory("m"), 500, "server_error", "out_of_memory", NEVER),
        (SgdiffError("m"), 500, "server_error", "internal_error", NEVER),
        (UploadFailed("m"), 502, "server_error", "upload_failed", NEVER),
        (Draining("m"), 503, "server_error", "draining", {AGAIN: "30"}),
        (WorkerDied("m"), 503, "server_error", "worker_died", {AGAIN: "15"}),
        (WorkerDied("m", final=True), 503, "server_error", "worker_died", NEVER),
    ],
)
def test_each_error(error: SgdiffError, status: int, kind: str, code: str, headers: dict[str, str]) -> None:
    answer = errors.response(error)
    assert answer.status_code == status
    body = json.loads(bytes(answer.body))
    assert body == {"error": {"message": "m", "type": kind, "param": error.param, "code": code}}
    given = {name: answer.headers[name] for name in (AGAIN, *NEVER) if name in answer.headers}
    assert given == headers
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("worker_died", 503),
        ("draining", 503),
        ("upload_failed", 502),
        ("out_of_memory", 500),
        ("timeout", 500),
        ("cancelled", 400),
    ],
)
def test_the_end_of_a_job_as_an_error(code: str, status: int) -> None:
    error = errors.of_job({"code": code, "message": "m"})
    assert (error.code, error.message, errors.status_of(error)[0]) == (code, "m", status)


def test_what_somebody_has_cancelled_is_not_tried_again() -> None:
    answer = errors.response(errors.of_job({"code": "cancelled", "message": "m"}))
    assert answer.headers["x-should-retry"] == "false"


LONG = "x" * 30_000
BODY = {"prompt": "a boat", "size": "64x48"}


@pytest.mark.parametrize("value", [LONG, [LONG], {LONG: 1}, [{"path": LONG}], [{"name": LONG}], [{LONG: 1}], 10**4000])
def test_no_field_is_repeated_at_length(server: Running, value: Any) -> None:
    """Whatever a client sends, the answer is short and the fault is the client's."""
    for name in sorted(GENERATIONS.known.keys() - {"prompt", "negative_prompt"}):
        answer = server.client.post("/v1/images/generations", json={**BODY, name: value})
        if answer.status_code != 200:
            assert answer.status_code < 500 and len(answer.content) < 500, (name, answer.text[:300])


@pytest.mark.parametrize(
    ("method", "path", "body", "headers"),
    [
        ("GET", f"/v1/models/{LONG}", None, {}),
        ("GET", f"/v1/jobs/{LONG}", None, {}),
        ("GET", f"/v1/jobs?after={LONG}", None, {}),
        ("GET", f"/v1/jobs?kind={LONG}", None, {}),
        ("GET", f"/v1/videos/{LONG}", None, {}),
        ("GET", f"/v1/images/{LONG}/content", None, {}),
        ("GET", f"/{LONG}", None, {}),
        ("DELETE", f"/v1/models/{LONG}", None, {}),
        ("PATCH", "/v1/jobs/x", {LONG: 1}, {}),
        ("POST", "/v1/models/load", {"model": LONG}, {}),
        ("POST", "/v1/models/load", {LONG: "a"}, {}),
        ("POST", "/v1/images/generations", {**BODY, LONG: 1}, {}),
        ("POST", "/v1/images/edits", BODY, {"content-type": LONG}),
        ("POST", "/v1/set_lora", {"lora_nickname": LONG}, {}),
        ("POST", "/v1/set_lora", {"lora_nickname": "a", "target": LONG}, {}),
        ("POST", "/v1/set_lora", {LONG: 1}, {}),
    ],
)
def test_no_place_is_repeated_at_length(
    server: Running, method: str, path: str, body: dict[str, Any] | None, headers: dict[str, str]
) -> None:
    answer = server.client.request(method, path, json=body, headers=headers)
    assert 400 <= answer.status_code < 500
    assert len(answer.content) < 700 and "x" * 50 in answer.text and "x" * 81 not in answer.text


def test_a_message_has_a_bound_whoever_words_it() -> None:
    told = json.loads(bytes(errors.response(UsageError("a " * 9999, param="p" * 999)).body))["error"]
    assert (len(told["message"]), len(told["param"])) == (1000, 80)
