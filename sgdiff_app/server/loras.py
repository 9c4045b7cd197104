"""Adapters of all requests: /v1/set_lora, /v1/merge_lora_weights, /v1/unmerge_lora_weights, /v1/list_loras."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.errors import UsageError, listed, shown, suggest
from engine.lora import refs
from sgdiff_app.server import body, places
from sgdiff_app.server.errors import invalid
from sgdiff_app.server.service import Service, service_of

router = APIRouter()


@dataclass(frozen=True, slots=True)
class Argument:
    """What one field of a body may be. In a list, each entry is of the type, or null where that says something."""

    type: type
    noun: str
    many: bool = False
    gaps: bool = False  # entries of a list may be null
    choices: tuple[str, ...] = ()


MERGE_MODES = ("auto", "merge", "dynamic")
SET: Mapping[str, Argument] = {
    "lora_nickname": Argument(str, "a text", many=True),
    "lora_path": Argument(str, "a text", many=True, gaps=True),
    "target": Argument(str, "a text", many=True),
    "strength": Argument(float, "a number", many=True),
    "merge_mode": Argument(str, "a text", choices=MERGE_MODES),
    "lora_alpha": Argument(int, "an integer", many=True, gaps=True),
    "weight_name": Argument(str, "a text", many=True, gaps=True),
}
MERGE: Mapping[str, Argument] = {"target": Argument(str, "a text"), "strength": Argument(float, "a number")}
UNMERGE: Mapping[str, Argument] = {"target": MERGE["target"]}


@router.post("/v1/set_lora")
async def set_lora(http: Request) -> Response:
    """Have these adapters, in this order, in all requests that come after the answer."""
    service = service_of(http)
    given = _read(SET, await body.parsed(http))
    if "lora_nickname" not in given:
        raise invalid("missing_parameter", "lora_nickname: required", "lora_nickname")
    columns = (given.get(name) for name in ("lora_path", "target", "strength", "weight_name", "lora_alpha"))
    path, target, strength, weight_name, alpha = columns
    wanted = refs.of_call(
        given["lora_nickname"],
        path,
        refs.ALL if target is None else target,
        1.0 if strength is None else strength,
        weight_name,
        alpha,
    )
    for ref in wanted:
        if ref.path is not None:
            await service.aside(places.check_lora, ref.path, ref.weight_name, service.options.lora_allowed_dirs)
    warnings = await _call(service, "set_lora", given)
    said = (f"{refs.nickname(ref)} on {ref.target}, strength {ref.scale:g}" for ref in wanted)
    return _done(f"LoRA set: {'; '.join(said)}", warnings)


@router.post("/v1/merge_lora_weights")
async def merge(http: Request) -> Response:
    """Have the adapters that were set in effect again."""
    given = {"target": refs.ALL, "strength": 1.0, **_read(MERGE, await body.parsed(http))}
    refs.check_target(given["target"])
    refs.check_strength(given["strength"])
    service = service_of(http)
    await _call(service, "merge_lora", given)
    names = listed(refs.nickname(ref) for ref in service.queue.supervisor.loras)
    return _done(f"LoRA merged: {names} on {given['target']}, strength {given['strength']:g}")


@router.post("/v1/unmerge_lora_weights")
async def unmerge(http: Request) -> Response:
    """Draw with base weights; the adapters stay loaded."""
    given = {"target": refs.ALL, **_read(UNMERGE, await body.parsed(http))}
    refs.check_target(given["target"])
    await _call(service_of(http), "unmerge_lora", given)
    return _done(f"LoRA unmerged on {given['target']}")


@router.get("/v1/list_loras")
async def list_loras(http: Request) -> Response:
    """Tell which adapters are loaded, and which are in effect where. Waits for a worker in place of one that died."""
    service = service_of(http)
    if service.queue.health in ("loading", "warming"):
        await service.ready()
    answer = await asyncio.wrap_future(service.queue.call("list_loras"))
    return JSONResponse(answer["result"])


async def _call(service: Service, name: str, arguments: Mapping[str, Any]) -> list[str]:
    """Have the worker change the adapters; return warnings when it is in effect."""
    await service.ready()
    answer = await asyncio.wrap_future(service.queue.call(name, **arguments))
    return list(answer["result"] or ())


def _done(message: str, warnings: list[str] | None = None) -> Response:
    return JSONResponse({"status": "ok", "message": message, "warnings": warnings or []})


def _read(known: Mapping[str, Argument], values: dict[str, Any]) -> dict[str, Any]:
    """Return what a body says, JSON whatever its declared type, every value checked. Raises ApiError."""
    for name, value in values.items():
        if name not in known:
            message = f"{shown(name)}: unknown name{suggest(shown(name), known)}; known: {listed(known)}"
            raise invalid("unknown_parameter", message, name)
        _check(name, value, known[name])
    return values


def _check(name: str, value: Any, wanted: Argument) -> None:
    """Raise ApiError `invalid_type` for a value of another type, UsageError for one that is not among the choices."""
    entries = value if wanted.many and isinstance(value, list) else [value]
    if not all(_is(entry, wanted.type) or (wanted.gaps and entry is None) for entry in entries):
        noun = f"{wanted.noun} or a list of them" if wanted.many else wanted.noun
        raise invalid("invalid_type", f"{name}: must be {noun}, got {shown(json.dumps(value))}", name)
    if wanted.choices and value not in wanted.choices:
        text = shown(value)
        message = f"{name}: must be one of {listed(wanted.choices)}, got '{text}'{suggest(text, wanted.choices)}"
        raise UsageError(message, param=name)


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)
