"""POST /v1/images/generations and /v1/images/edits: draw, wait, answer with pictures, URLs or events."""

from __future__ import annotations

import base64
import json
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from engine.catalog import IMG2IMG, INPAINT, ModelSpec
from engine.errors import SgdiffError, UsageError, listed
from engine.jobs import Job, Kind
from engine.jobs.job import new_id
from engine.types import Request
from sgdiff_app.options import MB
from sgdiff_app.server import content
from sgdiff_app.server.body import Body, reading
from sgdiff_app.server.errors import NO_STORE, gone, invalid, of_job
from sgdiff_app.server.fields import EDITS, GENERATIONS, MAX_IMAGES, Door, EditFields, ImageFields, read, renamed
from sgdiff_app.server.idempotency import HEADER, once
from sgdiff_app.server.inputs import Given, Inputs, sources
from sgdiff_app.server.service import Line, Service, ending, finished, service_of
from sgdiff_app.server.streaming import Events, Trail, look, usage

router = APIRouter()

SMALL = 256 * 256  # pixels that are read and written faster than another thread is woken
ALPHA = "alpha"  # a feature of a model that draws transparency


@router.post("/v1/images/generations")
async def generations(http: HttpRequest) -> Response:
    """Draw a prompt."""
    return await _answer(http, GENERATIONS, "image")


@router.post("/v1/images/edits")
async def edits(http: HttpRequest) -> Response:
    """Draw a prompt over one or several images."""
    return await _answer(http, EDITS, "edit")


@router.post("/v1/images/variations")
async def variations() -> Response:
    """Say what to use instead."""
    raise gone("unsupported_endpoint", "variations are not offered; POST /v1/images/edits draws over an image")


async def _answer(http: HttpRequest, door: Door[Any], kind: Kind) -> Response:
    service = service_of(http)
    async with reading(http, service.options.max_body_mb * MB) as body:
        request, fields = await body.aside(read, door, body, service.options, service.data)
        service.check_model(fields.model)
        _check(service, fields)
        await service.ready()
        given, masks = _inputs(body, fields) if isinstance(fields, EditFields) else ([], [])
        check_task(await service.spec(), kind, fields, len(given), bool(masks))
        key, job_id = http.headers.get(HEADER), new_id("img")
        said = await service.aside(body.content) if key else None
        follow = Trail.begin(fields.partial_images) if fields.stream else ending()
        async with once(service, http, said, job_id) as first:
            job = first or await _submit(service, door, kind, request, fields, follow, job_id, given, masks)
            service.hold(job)
    try:
        if first is not None:
            job = await service.aside(service.queue.listen, first.id, follow.hear, fields.partial_images > 0)
    except SgdiffError:  # deleted meanwhile
        service.let_go(job)
        raise
    if isinstance(follow, Trail):
        return Events(service, job, follow, bound=key is not None)
    return await _finish(service, http, job, follow, fields, bound=key is not None)


def _check(service: Service, fields: ImageFields) -> None:
    """Refuse what no model changes. Raises ApiError."""
    url = fields.response_format == "url"
    if url and fields.stream:
        raise invalid("invalid_response_format", "response_format: a stream carries b64_json alone", "response_format")
    if url and not service.queue.delivery.keeps:
        message = "response_format: this server keeps no outputs (--output-path), so there is no URL; use b64_json"
        raise invalid("storage_disabled", message, "response_format")
    if fields.partial_images and not fields.stream:
        raise invalid("invalid_partial_images", "partial_images: needs stream", "partial_images")


def check_task(spec: ModelSpec, kind: Kind, fields: ImageFields, images: int, masked: bool) -> None:
    """Raise ApiError for what a model cannot do."""
    name, tasks = spec.id, set(spec.tasks)
    if spec.is_video:
        raise invalid("unsupported_task", f"{name} draws videos; POST /v1/videos")
    if kind == "image" and tasks <= {"I2I"}:
        raise invalid("unsupported_task", f"{name} draws over images alone; POST /v1/images/edits")
    if kind == "edit" and not (tasks & {"I2I", "TI2I"} or {IMG2IMG, INPAINT} & set(spec.features)):
        raise invalid("unsupported_task", f"{name} draws from a prompt alone; POST /v1/images/generations")
    if fields.task_type is not None and fields.task_type not in tasks:
        message = f"task_type: {name} can do {listed(spec.tasks)}, not {fields.task_type}"
        raise invalid("unsupported_task", message, "task_type")
    if kind == "edit" and not images:
        message = "image: required, as a file, or as a URL or data URI in image or url"
        raise invalid("missing_parameter", message, "image")
    if images > spec.max_images:
        allowed = "one image" if spec.max_images == 1 else f"at most {spec.max_images} images"
        raise invalid("too_many_images", f"image: {name} takes {allowed}, got {images}", "image")
    if masked and INPAINT not in spec.features:
        raise invalid("mask_not_supported", f"mask: {name} takes none", "mask")
    if fields.background == "transparent" and (ALPHA not in spec.features or fields.output_format == "jpeg"):
        message = f"background: {name} draws no transparent {fields.output_format}; use auto or opaque"
        raise invalid("invalid_background", message, "background")


def _inputs(body: Body, fields: EditFields) -> tuple[list[tuple[str, Given]], list[Given]]:
    """Return the images of an edit, files first, each with its field, and the mask, if there is one."""
    uploads = [*body.uploads.get("image", ()), *body.uploads.get("images", ())]
    named = (
        ("image", uploads),
        ("image", sources(fields.image or (), "image")),
        ("url", sources(fields.url or (), "url")),
    )
    images = [(name, given) for name, several in named for given in several]
    if len(images) > MAX_IMAGES:
        raise invalid("too_many_images", f"image: at most {MAX_IMAGES} images, got {len(images)}", "image")
    masks: list[Given] = [*body.uploads.get("mask", ())]
    masks += sources([fields.mask], "mask") if fields.mask is not None else []
    if len(masks) > 1:
        raise invalid("invalid_mask", f"mask: one at most, got {len(masks)}", "mask")
    return images, masks


async def _submit(
    service: Service,
    door: Door[Any],
    kind: Kind,
    request: Request,
    fields: ImageFields,
    follow: Line,
    job_id: str,
    images: list[tuple[str, Given]],
    masks: list[Given],
) -> Job:
    """Keep the input images and put the request into the queue; what was kept goes when that fails."""
    inputs, job = Inputs(service, job_id), None
    try:
        if images:
            kept = [await inputs.image(given, name) for name, given in images]
            request = request.replace(image_path=tuple(kept))
        if masks:
            request = request.replace(mask_path=await inputs.image(masks[0], "mask"))
        looked = fields.partial_images > 0
        job = await service.submit(
            request, kind, line=follow, preview=looked, detached=False, inputs=inputs.saved, job_id=job_id
        )
        return job
    except UsageError as error:
        raise renamed(door, error) from error
    finally:
        if job is None:
            inputs.drop()


async def _finish(
    service: Service, http: HttpRequest, job: Job, follow: Line, fields: ImageFields, *, bound: bool
) -> Response:
    """Wait for a job and answer with what was drawn."""
    try:
        await finished(job, follow, http)
    finally:
        service.let_go(job)
    if job.error is not None:
        raise of_job(job.error)
    as_url = fields.response_format == "url"
    if as_url or sum(artifact.width * artifact.height for artifact in job.artifacts) <= SMALL:
        answer = _rendered(service, job, as_url)
    else:
        answer = await service.aside(_rendered, service, job, as_url)
    if not service.queue.delivery.keeps and not bound:
        service.queue.delivery.discard(job.artifacts)
    return Response(answer, media_type="application/json", headers=NO_STORE)


def _rendered(service: Service, job: Job, as_url: bool) -> bytes:
    """Return the answer for a job that is done."""
    data = []
    for index, artifact in enumerate(job.artifacts):
        picture = None if as_url else base64.b64encode(content.bytes_of(service, artifact)).decode("ascii")
        url = content.url_of(service, job, index) if as_url else None
        data.append({"b64_json": picture, "url": url, "revised_prompt": None, "seed": artifact.seed})
    answer = {
        "id": job.id,
        "created": int(job.created_at),
        "model": job.model,
        "data": data,
        **look(job),
        "usage": usage(job),
        "inference_time_s": round(job.inference_s, 3),
        "queue_time_s": round(job.queue_s, 3),
        "peak_memory_mb": round(job.peak_memory_mb, 1),
    }
    return json.dumps(answer, separators=(",", ":")).encode()
