"""From the body of POST /v1/videos, or of a remix, to a job in the queue: everything is checked before."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from engine.catalog import ModelSpec
from engine.errors import InputError, UsageError, listed
from engine.jobs import Job
from engine.media import FPS
from engine.types import Request
from sgdiff_app.server import webhooks
from sgdiff_app.server.body import Body
from sgdiff_app.server.errors import invalid
from sgdiff_app.server.fields import IGNORED, VIDEOS, VideoFields, read, renamed
from sgdiff_app.server.inputs import Given, Inputs, sources
from sgdiff_app.server.service import Service

REFERENCE = "input_reference"
FROM_INPUT = ("I2V", "TI2V", "V2V")  # tasks that need an input
LINKS = ("reference_url", "video_url")


async def queued(service: Service, body: Body, job_id: str, source: Job | None = None) -> Job:
    """Put what a body asks for into the queue; with a source, whatever it does not say is as it was there.

    Raises UsageError or ApiError that name the field, and what `Service.submit` raises.
    """
    request, fields = await body.aside(read, VIDEOS, body, service.options, service.data)
    service.check_model(fields.model)
    _check_server(service, fields)
    spec = await service.spec()
    request = timed(request, fields, source.resolved.fps if source is not None else None, spec)
    if source is not None:
        request = remixed(source, request, given(body, fields))
    reference = _reference(body, fields)
    check_task(spec, fields.task_type, reference is not None or bool(request.image_path))
    _check_even(request)
    inputs, taken = Inputs(service, job_id), False
    try:
        if reference is not None:
            name, input_given = reference
            request = request.replace(image_path=(await inputs.image(input_given, name),))
        elif request.image_path:
            request = request.replace(image_path=await service.aside(copied, request.image_path, inputs))
        notes = {"quality": request.quality, "remixed_from": source and source.id, "webhook_url": fields.webhook_url}
        kept = {name: value for name, value in notes.items() if value not in (None, "auto")}
        job = await service.submit(request, "video", inputs=inputs.saved, notes=kept, job_id=job_id)
        taken = True
        return job
    except UsageError as error:
        raise renamed(VIDEOS, error) from error
    finally:
        if not taken:
            inputs.drop()


def _check_server(service: Service, fields: VideoFields) -> None:
    """Refuse what this server is not set up for."""
    if not service.queue.delivery.keeps:
        message = "this server keeps no outputs (--output-path is empty, and there is no cloud storage), so no videos"
        raise invalid("storage_disabled", message)
    if fields.webhook_url is not None:
        if service.webhooks is None:
            raise webhooks.refusal(fields.webhook_url)
        service.webhooks.check(fields.webhook_url)


def check_task(spec: ModelSpec, task: str | None, has_input: bool) -> None:
    """Raise ApiError `unsupported_task` or `missing_parameter` unless the model can do what is asked."""
    if not spec.is_video:
        message = f"{spec.id} draws pictures, not videos; POST /v1/images/generations"
        raise invalid("unsupported_task", message, "model")
    if task is not None and task not in spec.tasks:
        message = f"task_type: {spec.id} does not do {task}; it does {listed(spec.tasks)}"
        raise invalid("unsupported_task", message, "task_type")
    able = spec.tasks if task is None else (task,)
    if has_input and not set(able) & set(FROM_INPUT):
        raise invalid("unsupported_task", f"{REFERENCE} is not supported for {listed(able)} models", REFERENCE)
    if not has_input and set(able) <= set(FROM_INPUT):
        raise invalid("missing_parameter", f"{REFERENCE}: {spec.id} needs one for {listed(able)}", REFERENCE)


def timed(request: Request, fields: VideoFields, fps: int | None, spec: ModelSpec) -> Request:
    """Return a request with as many frames as its seconds have, unless it says how many itself.

    `fps` is what it has when it names none, before the model's own.
    """
    if fields.seconds is None or request.num_frames is not None:
        return request
    rate = request.fps or fps or int(spec.defaults.get("fps", FPS))
    return request.replace(num_frames=int(fields.seconds) * rate)


def _check_even(request: Request) -> None:
    sides = (request.width, request.height)
    if any(side is not None and side % 2 for side in sides):
        width, height = (side or "..." for side in sides)
        message = f"size: the sides of a video must be even numbers, got {width}x{height}"
        raise UsageError(message, param="size")


def _reference(body: Body, fields: VideoFields) -> tuple[str, Given] | None:
    """Return the input and the field that it was given in; there is one at most. Raises ApiError."""
    if isinstance(fields.input_reference, dict) and "file_id" in fields.input_reference:
        message = f'{REFERENCE}: files are not kept under ids here; send the file, or {{"image_url": …}}'
        raise invalid(f"invalid_{REFERENCE}", message, REFERENCE)
    found: list[tuple[str, Given]] = [(REFERENCE, upload) for upload in body.uploads.get(REFERENCE, ())]
    for name in (REFERENCE, *LINKS):
        value = getattr(fields, name)
        if value is not None:
            found += [(name, source) for source in sources([value], name)]
    if len(found) > 1:
        message = f"{REFERENCE}: give one input, as a file, a URL or a data URI, in one field"
        raise invalid(f"invalid_{REFERENCE}", message, REFERENCE)
    return found[0] if found else None


def given(body: Body, fields: VideoFields) -> set[str]:
    """Return which fields of Request a body says something about, whatever it calls them."""
    found = [VIDEOS.known[key] for key in body.values if key not in IGNORED]
    names = {entry.name for cls, entry in found if cls is Request}
    if fields.size not in (None, "auto"):
        names |= {"width", "height"}
    if fields.seconds is not None:
        names.add("num_frames")
    if any(value is not None for value in (fields.lora_path, fields.lora_nickname, fields.lora_scale)):
        names.add("loras")
    return names


def remixed(source: Job, request: Request, names: set[str]) -> Request:
    """Return what a video was drawn from, with some fields of another request, the prompt always among them."""
    changes = {name: getattr(request, name) for name in names}
    before = source.resolved
    if "quality" in names and "num_inference_steps" not in names:
        changes["num_inference_steps"] = None  # the word decides how many
    if isinstance(before.seed, tuple) and "num_outputs_per_prompt" in names and "seed" not in names:
        changes["seed"] = before.seed[0]
    quality = source.notes.get("quality", "auto")
    return before.replace(**{"quality": quality if "num_inference_steps" not in names else "auto", **changes})


def copied(paths: Sequence[str], inputs: Inputs) -> tuple[str, ...]:
    """Return copies of the inputs of another job, which may be deleted at any time. Raises InputError."""
    found = []
    for index, path in enumerate(map(Path, paths)):
        copy = path.with_name(f"{inputs.job_id}_{index}{path.suffix}")
        inputs.saved.append(str(copy))
        try:
            shutil.copyfile(path, copy)
        except OSError as error:
            message = f"{REFERENCE}: the input of the source is not there any more; give one"
            raise InputError(message, code="missing_parameter", param=REFERENCE) from error
        found.append(str(copy))
    return tuple(found)
