"""Thumbnails and sheets of frames of finished videos: made when first asked for, kept beside the video."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from engine.clips import PICTURES
from engine.errors import OutputError
from engine.jobs import Job
from sgdiff_app.server import content
from sgdiff_app.server.service import Service


async def answer(service: Service, http: HttpRequest, job: Job, index: int, variant: str) -> Response:
    """Give a picture of one output of a finished video. Raises ApiError when there is none."""
    content.check_there(job, index)
    _, media_type, _ = PICTURES[variant]
    try:
        path = await service.apart(_made, service, job, index, variant)
    except OutputError as error:
        raise content.not_stored() from error
    return await content.file(service, http, path, media_type)


def _made(service: Service, job: Job, index: int, variant: str) -> Path:
    """Return where a picture is; make it when it is not there yet. Raises OutputError and NotFound."""
    make, _, suffix = PICTURES[variant]
    queue, artifact = service.queue, job.artifacts[index]
    name = f"{job.id}_{index}_{variant}.{suffix}"
    known = next((Path(path) for path in job.files if Path(path).name == name), None)
    if known is not None and known.exists():
        return known
    with queue.delivery.local(artifact) as path:
        picture = make(path, artifact.width, artifact.height, artifact.frames)
    with queue.lock:  # the job may have been deleted meanwhile, or may have got another picture
        now = queue.get(job.id)
        path = queue.delivery.add(now, name, picture)
        queue.keep(now)
    return path
