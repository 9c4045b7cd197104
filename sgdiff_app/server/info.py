"""Health and what is served: /health, /models, /model_info, /server_info, /v1/models; switching the model."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine import schema
from engine.catalog import ModelSpec
from engine.errors import Draining, shown
from engine.passes.precision import DENOISERS
from engine.profiler import wall
from sgdiff_app import __version__
from sgdiff_app.server import body, places
from sgdiff_app.server.errors import ApiError, invalid
from sgdiff_app.server.service import Service, service_of

router = APIRouter()
WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@router.get("/liveness")
async def liveness() -> Response:
    """Say that the process serves HTTP."""
    return JSONResponse({"status": "ok"})


@router.get("/health")
@router.get("/ready")
@router.get("/health_generate")
async def health(http: Request) -> Response:
    """Say whether requests can run, from what is known, never through the queue."""
    service = service_of(http)
    queue, headers = service.queue, {"x-instance-id": service.instance}
    state = queue.health
    if state == "ready":
        return JSONResponse({"status": "ok"}, headers=headers)
    answer = {"status": state} | ({"error": queue.supervisor.error} if state == "unhealthy" else {})
    return JSONResponse(answer, 503, headers)


@router.get("/models")
async def serving(http: Request) -> Response:
    """Describe the model that is served."""
    service = service_of(http)
    spec, config, known = service.queue.spec, service.queue.served, described(service)
    answer = {
        "model_path": service.path,
        **known,
        "pipeline_name": WORD.sub("_", spec.pipeline).lower() if spec is not None else None,
        "vae_decode_precision": config.vae_decode_precision or known["vae_precision"],
        "defaults": _defaults(spec) if spec is not None else {},
    }
    return JSONResponse(answer)


@router.get("/model_info")
async def model_info(http: Request) -> Response:
    """Say what kind of model is served."""
    service = service_of(http)
    spec, known = service.queue.spec, described(service)
    tasks = known["supported_task_types"]
    answer = {
        "model_path": service.path,
        "is_generation": True,
        "model_type": "diffusion",
        "architectures": [spec.pipeline] if spec is not None else [],
        "has_image_understanding": any(task.startswith(("I2", "TI2")) for task in tasks),
        "has_audio_understanding": False,
        "task_type": known["task_type"],
        "supported_task_types": tasks,
        "output_types": sorted({"video" if task.endswith("V") else "image" for task in tasks}),
        "is_image_gen": any(task.endswith("I") for task in tasks),
    }
    return JSONResponse(answer)


@router.get("/server_info")
async def server_info(http: Request) -> Response:
    """Say how the server was started, and what it has to do."""
    service = service_of(http)
    queue = service.queue
    config = queue.served
    answer = {
        "model_path": service.path,
        "served_model_name": service.name,
        "tp_size": config.tp_size,
        "dp_size": config.dp_size,
        "sp_degree": config.sp_degree or 1,
        "num_gpus": config.num_gpus,
        "version": __version__,
        "lora_enabled": queue.supervisor.told.get("takes_loras", True),  # until that is known, a call tells
        "instance_id": service.instance,
        "uptime_s": round(wall() - service.created, 3),
        "queue": {"waiting": len(queue.waiting), "running": len(queue.running)},
    }
    return JSONResponse(answer)


@router.get("/v1/model_info")
async def path_of_model(http: Request) -> Response:
    """Name the model that is served."""
    return JSONResponse({"model_path": service_of(http).path})


@router.get("/v1/models")
async def cards(http: Request) -> Response:
    """List the card of the model that is served."""
    return JSONResponse({"object": "list", "data": [card(service_of(http))]})


@router.get("/v1/models/{id:path}")
async def one_card(http: Request) -> Response:
    """Return the card of a model by any name that means it."""
    service = service_of(http)
    service.check_model(http.path_params["id"])
    return JSONResponse(card(service))


@router.post("/v1/models/load")
async def load(http: Request) -> Response:
    """Serve another model; answer when it serves."""
    service = service_of(http)
    name = await _wanted(http)
    queue = service.queue
    if not service.options.model_switch:
        raise invalid("model_switch_disabled", "this server keeps its model (--no-model-switch)")
    if queue.draining:
        raise Draining("the server is being stopped and takes no new requests")
    if service.is_served(name):
        path = queue.served.model_path
    elif name in (service.first.model_path, service.first.model_id, service.options.served_model_name):
        path = service.first.model_path
    else:
        path = await service.aside(places.model_path, name, service.data)
    await asyncio.wrap_future(await service.aside(queue.switch, path))
    return JSONResponse({"status": "ok", "model": service.name})


async def _wanted(http: Request) -> str:
    """Return the name in the body of a request to load a model. Raises ApiError."""
    values = await body.parsed(http)
    for key in values:
        if key != "model":
            raise ApiError(400, "unknown_parameter", f"{shown(key)}: unknown name; known: model", key)
    name = values.get("model")
    if name is None:
        raise invalid("missing_parameter", "model: required", "model")
    if not isinstance(name, str) or not name:
        raise invalid("invalid_model", "model: must be the name of a model", "model")
    return name


def card(service: Service) -> dict[str, Any]:
    """Return what clients of OpenAI's API read about a model, and what those of other servers read there."""
    known = described(service)
    return {
        "id": service.name,
        "object": "model",
        "created": service.created,
        "owned_by": "sgdiff",
        "root": service.path,
        "parent": None,
        "max_model_len": None,
        **known,
        "pipeline_name": known["pipeline_class"],
    }


def described(service: Service) -> dict[str, Any]:
    """Return what is known of the served model. While one loads that no catalog has, some of it is not: None."""
    queue, spec = service.queue, service.queue.spec
    dit, vae = _precisions(service, spec)
    return {
        "task_type": spec.tasks[0] if spec is not None else None,
        "supported_task_types": list(spec.tasks) if spec is not None else [],
        "pipeline_class": spec.pipeline if spec is not None else None,
        "num_gpus": queue.served.num_gpus,
        "dit_precision": dit,
        "vae_precision": vae,
    }


def _precisions(service: Service, spec: ModelSpec | None) -> tuple[str, str]:
    """Return the precision of the denoiser and of the VAE: as the worker has told, before that as it will be."""
    config, told = service.queue.served, service.queue.supervisor.told
    of_it = bool(told) and spec is not None and told["spec"]["id"] == spec.id  # not of the one served before
    loaded = told["recipe"]["precisions"] if of_it else {}
    denoiser = next((name for name in loaded if name.startswith(DENOISERS)), "transformer")
    planned = spec.default_precision if spec is not None else lambda component: "bf16"
    return (
        loaded.get(denoiser) or config.dit_precision or planned(denoiser),
        loaded.get("vae") or config.vae_precision or planned("vae"),
    )


def _defaults(spec: ModelSpec) -> dict[str, Any]:
    """Return what a request without these fields gets."""
    values = spec.defaults
    size = f"{values['width']}x{values['height']}" if {"width", "height"} <= values.keys() else None
    found = {
        "size": size,
        "num_frames": values.get("num_frames"),
        "fps": values.get("fps"),
        "num_inference_steps": values.get("num_inference_steps"),
        "guidance_scale": values.get("guidance_scale", values.get(spec.cfg_scale or "")),
    }
    return {name: schema.plain(value) for name, value in found.items() if value is not None}
