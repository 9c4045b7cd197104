"""Jobs of every door: /v1/jobs with filters, previews, events, cancel, priority and stars."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from engine import schema
from engine.errors import listed, shown, suggest
from engine.jobs import Job
from engine.jobs.job import KINDS, STATUSES
from engine.profiler import monotonic
from sgdiff_app.server import body, content, lists
from sgdiff_app.server.errors import NO_STORE, gone, invalid
from sgdiff_app.server.service import Line, Service, service_of
from sgdiff_app.server.streaming import HEADERS, KEEP_ALIVE_S

router = APIRouter()

LOOK_S = 1.0  # so often a stream looks by itself whether its job has ended
PREVIEW_S = 5.0  # the longest wait for a preview; most come after the step in hand
MOST_URGENT = 1_000_000
CHANGEABLE = ("priority", "starred")
# Fields of a request that hold files of the server, and what clients see in place of them.
INPUTS = {"image_path": "image", "mask_path": "mask", "video_path": "video"}


@router.get("/v1/jobs")
async def listing(http: Request) -> Response:
    """List jobs, the newest first unless asked otherwise."""
    wanted = {}
    for name, known in (("kind", KINDS), ("status", STATUSES)):
        value = http.query_params.get(name) or None
        if value is not None and value not in known:
            message = f"{name}: must be one of {listed(known)}, got '{shown(value)}'"
            raise invalid(f"invalid_{name}", message, name)
        wanted[name] = value
    return JSONResponse(await lists.page(service_of(http), http, public, **wanted))


@router.get("/v1/jobs/{job_id}")
async def retrieve(http: Request, job_id: str) -> Response:
    """Show a job."""
    service = service_of(http)
    return _shown(service, await service.aside(service.queue.get, job_id))


@router.get("/v1/jobs/{job_id}/preview")
async def preview(http: Request, job_id: str) -> Response:
    """Give a picture of what a running job draws at the moment; looking has it made."""
    service, end = service_of(http), monotonic() + PREVIEW_S
    async with service.following(job_id, preview=True) as (job, line):
        picture = job.preview
        while job.status == "running" and (left := end - monotonic()) > 0:
            if await line.next(left) == "preview":
                picture = job.preview or picture
                break
    if picture is None:
        raise gone("preview_not_available", f"there is no preview: the job is {job.status}", "id")
    return Response(picture, media_type="image/jpeg", headers=NO_STORE)


@router.get("/v1/jobs/{job_id}/events")
async def events(http: Request, job_id: str) -> Response:
    """Tell of every change of a job until it ends; leaving does nothing to it."""
    service = service_of(http)
    await service.aside(service.queue.get, job_id)  # an unknown one is refused before the stream begins
    return StreamingResponse(_told(service, job_id), media_type="text/event-stream", headers=HEADERS)


@router.post("/v1/jobs/{job_id}/cancel")
async def cancel(http: Request, job_id: str) -> Response:
    """Cancel a job; one that is finished stays as it is."""
    service = service_of(http)
    return _shown(service, await service.aside(service.queue.cancel, job_id))


@router.patch("/v1/jobs/{job_id}")
async def change(http: Request, job_id: str) -> Response:
    """Change when a job starts, or mark it."""
    service = service_of(http)
    values = await body.parsed(http)
    for name in values:
        if name not in CHANGEABLE:
            message = f"{shown(name)}: unknown name{suggest(shown(name), CHANGEABLE)}; known: {listed(CHANGEABLE)}"
            raise invalid("unknown_parameter", message, name)
    if not values:
        raise invalid("missing_parameter", f"one of {listed(CHANGEABLE)} is required")
    priority, starred = (values.get(name) for name in CHANGEABLE)
    whole = isinstance(priority, int) and not isinstance(priority, bool)
    if priority is not None and not (whole and abs(priority) <= MOST_URGENT):
        message = f"priority: must be an integer from -{MOST_URGENT} to {MOST_URGENT}"
        raise invalid("invalid_priority", message, "priority")
    if starred is not None and not isinstance(starred, bool):
        raise invalid("invalid_starred", "starred: must be true or false", "starred")

    def update() -> Job:
        return service.queue.update(job_id, priority=priority, starred=starred)

    return _shown(service, await service.aside(update))


@router.delete("/v1/jobs/{job_id}")
async def delete(http: Request, job_id: str) -> Response:
    """Cancel a job that is not finished, and remove its record and its files."""
    service = service_of(http)
    await service.aside(service.queue.delete, job_id)
    return JSONResponse({"id": job_id, "object": "job.deleted", "deleted": True})


def public(service: Service, job: Job) -> dict[str, Any]:
    """Return what clients see of a job: no file of the server is named in it."""
    ended = job.finished  # read first: it is what changes last when a job ends
    return {
        "id": job.id,
        "object": "job",
        "kind": job.kind,
        "model": job.model,
        "status": job.status,
        "priority": job.priority,
        "starred": job.starred,
        "progress": {
            "percent": job.percent if ended else min(job.percent, 99),
            "stage": job.stage,
            "step": job.step,
            "steps": job.steps,
            "eta_s": None if job.eta_s is None else round(job.eta_s, 3),
        },
        "created_at": int(job.created_at),
        "started_at": _seconds(job.started_at),
        "completed_at": _seconds(job.completed_at),
        "expires_at": _seconds(job.expires_at),
        "request": _asked(job),
        "recipe": list(job.recipes) or None,
        "artifacts": _artifacts(service, job),
        "error": job.error,
    }


def _asked(job: Job) -> dict[str, Any]:
    """Return what was asked, with names in place of the files that were kept of it."""
    asked: dict[str, Any] = schema.plain(job.request)
    for field, name in INPUTS.items():
        if field in asked:
            several = isinstance(asked[field], list)
            asked[field] = [f"{name}-{i}" for i in range(len(asked[field]))] if several else name
    return asked


def _artifacts(service: Service, job: Job) -> list[dict[str, Any]]:
    there = service.queue.delivery.keeps and not job.expired and job.status == "done"
    return [
        {
            "index": index,
            "url": content.path_of(service, job, index) if there else None,
            "media_type": artifact.media_type,
            "width": artifact.width,
            "height": artifact.height,
            "frames": artifact.frames,
            "seed": artifact.seed,
        }
        for index, artifact in enumerate(job.artifacts)
    ]


def _seconds(moment: float | None) -> int | None:
    return None if moment is None else int(moment)


def _shown(service: Service, job: Job) -> Response:
    return JSONResponse(public(service, job))


async def _told(service: Service, job_id: str) -> AsyncIterator[str]:
    """Yield an event for every change of a job that shows, and comments while there is none."""
    async with service.following(job_id, preview=True) as (job, line):
        last, quiet_since = None, monotonic()
        while True:
            ended = job.finished  # before it is looked at: what is told last is its end
            state = (job.status, job.percent, job.stage, job.step)
            if state != last:
                name = "progress" if last is not None and last[0] == job.status else "status"
                last, quiet_since = state, monotonic()
                yield f"event: {name}\ndata: {json.dumps({'type': name, **public(service, job)})}\n\n"
            if ended:
                return
            if monotonic() - quiet_since >= KEEP_ALIVE_S:
                quiet_since = monotonic()
                yield ": waiting\n\n"
            await _changed(line)


async def _changed(line: Line) -> None:
    """Wait for a change, and take those that have come with it as one; a deleted job may end without a word."""
    await line.next(LOOK_S)
    await asyncio.sleep(0)
    while not line.changes.empty():
        line.changes.get_nowait()
