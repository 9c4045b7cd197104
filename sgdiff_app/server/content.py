"""Finished files over HTTP: where they are, with byte ranges, from the disk or by a way to cloud storage."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, RedirectResponse, Response

from engine.errors import OutputError, shown
from engine.jobs import Job
from engine.types import Artifact
from sgdiff_app.server.errors import ApiError, gone, invalid
from sgdiff_app.server.service import Service, service_of

router = APIRouter()

KINDS = {"img": ("image", "edit"), "video": ("video",)}
FOLDERS = {"image": "images", "edit": "images", "video": "videos"}
RANGES = re.compile(r"bytes=\s*([0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})(\s*,\s*([0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18}))*")


@router.api_route("/v1/images/{image_id}/content", methods=["GET", "HEAD"])
async def image_content(http: HttpRequest, image_id: str) -> Response:
    """Give a picture."""
    service = service_of(http)
    variant = http.query_params.get("variant", "0")
    if not (variant.isascii() and variant.isdecimal() and len(variant) <= 4):
        raise invalid("invalid_variant", f"variant: must be the number of an output, got '{shown(variant)}'", "variant")
    job = await find(service, image_id, "image", "edit")
    if not job.finished:
        raise gone("image_not_ready", "the image is not finished", "id")
    if job.status != "done":
        raise gone("image_failed", "the image was not drawn, so there is no content", "id")
    return await output(service, http, job, int(variant))


async def find(service: Service, job_id: str, *kinds: str) -> Job:
    """Return a job of one of some kinds. Raises NotFound."""
    job = await service.aside(service.queue.get, job_id)
    if job.kind not in kinds:
        raise gone("not_found", f"no {kinds[0]} '{shown(job_id)}'", "id")
    return job


def path_of(service: Service, job: Job, index: int) -> str:
    """Return the path, or with --public-base-url the URL, at which an output of a job is."""
    root = service.options.root_path.strip("/")
    base = (service.options.public_base_url or (root and f"/{root}")).rstrip("/")
    variant = f"?variant={index}" if job.resolved.num_outputs_per_prompt > 1 else ""
    return f"{base}/v1/{FOLDERS[job.kind]}/{job.id}/content{variant}"


def url_of(service: Service, job: Job, index: int) -> str:
    """Return where an output can be fetched: an object in cloud storage, or a path of this server."""
    artifact, cloud = job.artifacts[index], service.queue.delivery.cloud
    if artifact.key is not None and cloud is not None:
        return str(cloud.url(artifact.key))
    return path_of(service, job, index)


async def output(service: Service, http: HttpRequest, job: Job, index: int) -> Response:
    """Give an output of a finished job. Raises ApiError when it is not there, or not any more."""
    check_there(job, index)
    artifact, cloud = job.artifacts[index], service.queue.delivery.cloud
    if artifact.key is not None and cloud is not None:
        target = await service.aside(cloud.url, artifact.key)
        return RedirectResponse(target, 302, {"cache-control": "no-store"})
    if not service.queue.delivery.keeps:
        raise not_stored()
    return await file(service, http, Path(artifact.location), artifact.media_type)


def check_there(job: Job, index: int) -> None:
    """Raise ApiError when a finished job has no such output, or has it no more."""
    if job.expired:
        raise gone(
            "content_expired", "the files of this job were removed when their time was over (--output-ttl)", "id"
        )
    if index >= len(job.artifacts):
        raise gone("variant_not_found", f"there are {len(job.artifacts)} outputs, numbered from 0", "variant")


async def file(service: Service, http: HttpRequest, path: Path, media_type: str) -> Response:
    """Give a stored file: whole, or the ranges that were asked for. Raises ApiError `content_not_stored`."""
    try:
        found = await service.aside(os.stat, path)
    except (OSError, ValueError):
        found = None
    if found is None or not stat.S_ISREG(found.st_mode):
        raise not_stored()
    _check_range(http, found.st_size)
    return FileResponse(
        path, media_type=media_type, filename=path.name, stat_result=found, content_disposition_type="inline"
    )


def bytes_of(service: Service, artifact: Artifact) -> bytes:
    """Return the bytes of an output, wherever it is. Raises ApiError `content_not_stored`."""
    try:
        return service.queue.delivery.read(artifact)
    except OutputError as error:  # which names the file
        raise not_stored() from error


def not_stored() -> ApiError:
    """Return the error for a file that is not, or no more, on the disk of this server."""
    return gone("content_not_stored", "this server keeps no outputs, or the file was removed", "id")


def _check_range(http: HttpRequest, size: int) -> None:
    """Leave out of account what is no range of bytes, as HTTP demands. Raises ApiError for one outside the file."""
    wanted = http.headers.get("range")
    if wanted is None:
        return
    parts = [part.strip().partition("-") for part in wanted.partition("=")[2].split(",")]
    backwards = any(start and end and int(start) > int(end) for start, _, end in parts if (start + end).isdecimal())
    if not RANGES.fullmatch(wanted) or backwards:
        http.scope["headers"] = [(name, value) for name, value in http.scope["headers"] if name != b"range"]
        return
    if any(int(start) >= size if start else int(end) == 0 or size == 0 for start, _, end in parts):
        headers = {"content-range": f"bytes */{size}"}
        raise ApiError(416, "invalid_range", f"range: the file has {size} bytes, got '{shown(wanted)}'", None, headers)
