"""Health and what is served: /health, /models, /model_info, /server_info, /v1/models."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sgdiff_app.server.service import service_of

router = APIRouter()


@router.get("/liveness")
async def liveness() -> Response:
    """Say that the process serves HTTP."""
    return JSONResponse({"status": "ok"})


@router.get("/health")
@router.get("/ready")
@router.get("/health_generate")
async def health(http: Request) -> Response:
    """Say whether requests can run, from what is known, never through the queue."""
    queue = service_of(http).queue
    state = queue.health
    if state == "ready":
        return JSONResponse({"status": "ok"})
    body = {"status": state} | ({"error": queue.supervisor.error} if state == "unhealthy" else {})
    return JSONResponse(body, 503)
