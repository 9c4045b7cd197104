"""Errors over HTTP: one envelope, the status that each code has, what the client may try again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine import log
from engine.errors import (
    Draining,
    ModelError,
    NotFound,
    OutOfMemory,
    QueueFull,
    SgdiffError,
    UploadFailed,
    UsageError,
    WorkerDied,
    shown,
)
from sgdiff_app.server.request_log import request_id

logger = log.get(__name__)

INVALID, AUTH, PERMISSION = "invalid_request_error", "authentication_error", "permission_error"
LIMIT, SERVER = "rate_limit_error", "server_error"
NEVER_AGAIN = {"x-should-retry": "false"}
NOT_THERE = (
    "not_found", "variant_not_found", "model_not_found", "lora_not_found", "lora_file_not_found", "video_not_ready",
    "video_failed", "content_expired", "content_not_stored", "preview_not_available", "unsupported_endpoint",
)  # fmt: skip
ASKED_WRONG = ("lora_", "invalid_", "unsupported_", "missing_", "too_many_")  # codes that a worker has for requests
TOO_LARGE = ("body_too_large", "image_too_large")
# Routes whose errors carry `detail` too, which clients of other servers read.
DETAILED = ("/v1/set_lora", "/v1/merge_lora_weights", "/v1/unmerge_lora_weights", "/v1/list_loras")
NO_STORE = {"cache-control": "no-store"}
LONGEST = 1000  # characters of a message, whatever of the request it repeats
CLIENT_GONE = 499  # of the log alone: nobody is there who could read it


class ApiError(SgdiffError):
    """An error that only HTTP knows, with its status."""

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, code=code, param=param)
        self.status, self.headers = status, dict(headers or {})


def invalid(code: str, message: str, param: str | None = None) -> ApiError:
    """Return an error of the client's."""
    return ApiError(400, code, message, param)


def gone(code: str, message: str, param: str | None = None) -> ApiError:
    """Return an error for what is not there."""
    return ApiError(404, code, message, param)


def type_of(status: int) -> str:
    """Return the `type` of the envelope."""
    kinds = {401: AUTH, 403: PERMISSION, 429: LIMIT}
    return kinds.get(status, INVALID if status < 500 else SERVER)


def envelope(error: SgdiffError) -> dict[str, Any]:
    """Return the body of an error; all four keys are always there."""
    status, _ = status_of(error)
    code, param = code_of(error), error.param and shown(error.param)
    return {"error": {"message": message_of(error), "type": type_of(status), "param": param, "code": code}}


def message_of(error: SgdiffError) -> str:
    """Return what a client is told, of bounded length."""
    text = error.message
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def code_of(error: SgdiffError) -> str:
    """Return the code of an error: a wrong value is named after its field."""
    if error.code == UsageError.code and error.param:
        return f"invalid_{shown(error.param)}"
    return error.code


def status_of(error: SgdiffError) -> tuple[int, dict[str, str]]:
    """Return the status and the headers of an error."""
    match error:
        case ApiError():
            return error.status, error.headers
        case QueueFull():
            return 429, {"retry-after": str(error.retry_after)}
        case Draining():
            return 503, {"retry-after": "30"}
        case WorkerDied():
            return 503, dict(NEVER_AGAIN) if error.final else {"retry-after": "15"}
        case UploadFailed():
            return 502, dict(NEVER_AGAIN)
        case NotFound():
            return 404, {}
        case UsageError() | ModelError():
            if error.code in NOT_THERE:
                return 404, {}
            return 413 if error.code in TOO_LARGE and "decoded" not in error.message else 400, {}
        case OutOfMemory():
            return 500, dict(NEVER_AGAIN)
    return 500, dict(NEVER_AGAIN)


def response(error: SgdiffError, path: str = "") -> Response:
    """Return the answer that tells of an error of a request for a path."""
    status, headers = status_of(error)
    detail = {"detail": message_of(error)} if path.endswith(DETAILED) else {}
    return JSONResponse({**detail, **envelope(error)}, status, {**NO_STORE, **headers})


def of_job(error: Mapping[str, str]) -> SgdiffError:
    """Return the error that a job ended with."""
    code, message = error["code"], error["message"]
    kinds: Mapping[str, SgdiffError] = {
        "worker_died": WorkerDied(message),
        "draining": Draining(message),
        "upload_failed": UploadFailed(message),
        "cancelled": ApiError(400, code, message, headers=NEVER_AGAIN),
    }
    asked_wrong = UsageError(message, code=code) if code.startswith(ASKED_WRONG) else None
    return kinds.get(code) or asked_wrong or SgdiffError(message, code=code)


async def known(request: Request, error: Exception) -> Response:
    """Answer for an error with a message for the user."""
    assert isinstance(error, SgdiffError)
    request.scope["error_code"] = code_of(error)
    return response(error, request.url.path)


async def left(request: Request, error: Exception) -> Response:
    """Answer a client that has closed the connection: for the log alone."""
    return Response(status_code=CLIENT_GONE)


async def of_framework(request: Request, error: Exception) -> Response:
    """Answer for an unknown route or a wrong method."""
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method_not_allowed"}
    place = f"{request.method} {shown(request.url.path)}"
    texts = {404: f"there is no route {place}", 405: f"{place}: this method is not allowed here"}
    text = texts.get(error.status_code, str(error.detail))
    code = request.scope["error_code"] = codes.get(error.status_code, "invalid_request")
    return response(ApiError(error.status_code, code, text, headers=error.headers), request.url.path)


async def unknown(request: Request, error: Exception) -> Response:
    """Answer for a bug of ours; the log has the traceback, the client does not."""
    logger.error("%s %s %s failed", request_id.get(), request.method, request.url.path, exc_info=error)
    return response(unexplained(), request.url.path)


def unexplained() -> SgdiffError:
    """Return the error that stands for a bug of ours."""
    return SgdiffError("the server failed to answer; its log says why")
