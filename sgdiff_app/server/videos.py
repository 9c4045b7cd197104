"""Videos: /v1/videos as the OpenAI API has it, with a way to cancel, and content in several variants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from engine.clips import PICTURES
from engine.errors import listed, shown
from engine.jobs import Job
from engine.jobs.job import PREFIXES, new_id
from sgdiff_app.options import MB
from sgdiff_app.server import content, lists, video_pictures
from sgdiff_app.server.body import reading
from sgdiff_app.server.errors import NO_STORE, gone, invalid
from sgdiff_app.server.idempotency import HEADER, once
from sgdiff_app.server.service import Service, service_of
from sgdiff_app.server.video_object import accepted, poll_headers, video
from sgdiff_app.server.video_request import queued

router = APIRouter()
Look = Callable[[Service, Job], dict[str, Any]]


@router.post("/v1/videos")
async def create(http: HttpRequest) -> Response:
    """Queue a video."""
    return await _answer(http, None)


# Before the routes with an id, which would take these words for one.
@router.post("/v1/videos/edits")
@router.post("/v1/videos/extensions")
@router.post("/v1/videos/characters")
@router.get("/v1/videos/characters/{name}")
async def not_offered(http: HttpRequest) -> Response:
    """Say that a route of the OpenAI API is not offered."""
    message = f"{http.method} {shown(http.url.path)}: not offered; POST /v1/videos makes a video, its /remix another"
    raise gone("unsupported_endpoint", message)


@router.get("/v1/videos")
async def listing(http: HttpRequest) -> Response:
    """List videos, the newest first unless asked otherwise."""
    return JSONResponse(await lists.page(service_of(http), http, video, kind="video"), headers=NO_STORE)


@router.get("/v1/videos/{video_id}")
async def retrieve(http: HttpRequest, video_id: str) -> Response:
    """Show a video, in whatever state it is."""
    service = service_of(http)
    return await _shown(service, await content.find(service, video_id, "video"))


@router.delete("/v1/videos/{video_id}")
async def delete(http: HttpRequest, video_id: str) -> Response:
    """Cancel a video that is not finished, and remove its record and its files."""
    service = service_of(http)
    job = await content.find(service, video_id, "video")
    await service.aside(service.queue.delete, job.id)
    told = {"id": job.id, "object": "video.deleted", "deleted": True, "status": "deleted"}
    return JSONResponse(told, headers=NO_STORE)


@router.post("/v1/videos/{video_id}/cancel")
async def cancel(http: HttpRequest, video_id: str) -> Response:
    """Cancel a video; one that is finished stays as it is."""
    service = service_of(http)
    job = await content.find(service, video_id, "video")
    return await _shown(service, await service.aside(service.queue.cancel, job.id))


@router.post("/v1/videos/{video_id}/remix")
async def remix(http: HttpRequest, video_id: str) -> Response:
    """Queue a video with the settings and the seed of a finished one, but for what the body says."""
    source = await content.find(service_of(http), video_id, "video")
    if source.status != "done":
        raise invalid("video_not_completed", f"the video '{source.id}' is not completed, so it cannot be remixed", "id")
    return await _answer(http, source)


@router.api_route("/v1/videos/{video_id}/content", methods=["GET", "HEAD"])
async def video_content(http: HttpRequest, video_id: str) -> Response:
    """Give the file of a finished video, or a picture of it."""
    service, query = service_of(http), http.query_params
    variant = query.get("variant") or "video"
    if variant not in ("video", *PICTURES) and number(variant) is None:
        allowed = listed(("video", *PICTURES))
        message = f"variant: must be {allowed} or the number of an output, got '{shown(variant)}'"
        raise invalid("invalid_variant", message, "variant")
    job = await content.find(service, video_id, "video")
    if not job.finished:
        raise gone("video_not_ready", f"the video is {'queued' if job.status == 'queued' else 'in progress'}", "id")
    if job.status != "done":
        raise gone("video_failed", "the video was not made, so there is no content", "id")
    if variant not in PICTURES:
        return await content.output(service, http, job, number(variant) or 0)
    index = number(query.get("index") or "0")
    if index is None:
        raise invalid(
            "invalid_index", f"index: must be the number of an output, got '{shown(query['index'])}'", "index"
        )
    return await video_pictures.answer(service, http, job, index, variant)


def number(text: str) -> int | None:
    """Return the number of an output that a query names; None when it is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 4 else None


async def _shown(service: Service, job: Job, look: Look = video) -> Response:
    told = await service.aside(look, service, job)
    return JSONResponse(told, headers={**NO_STORE, **poll_headers(told)})


async def _answer(http: HttpRequest, source: Job | None) -> Response:
    service, job_id = service_of(http), new_id(PREFIXES["video"])
    async with reading(http, service.options.max_body_mb * MB) as body:
        said = await service.aside(body.content) if HEADER in http.headers else None
        async with once(service, http, said, job_id) as earlier:
            job = earlier or await queued(service, body, job_id, source)
        return await _shown(service, job, accepted if earlier is None else video)
