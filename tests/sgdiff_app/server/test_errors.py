"""Errors over HTTP: the status, type and headers of each, and one envelope for all."""

from __future__ import annotations

import json

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
    [("worker_died", 503), ("draining", 503), ("upload_failed", 502), ("out_of_memory", 500), ("timeout", 500)],
)
def test_the_end_of_a_job_as_an_error(code: str, status: int) -> None:
    error = errors.of_job({"code": code, "message": "m"})
    assert (error.code, error.message, errors.status_of(error)[0]) == (code, "m", status)
