"""The description of the API: its routes as they are, requests from the fields of the nouns, answers beside them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute

from engine import schema
from engine.jobs.job import KINDS, STATUSES
from engine.lora import refs
from sgdiff_app import __version__
from sgdiff_app.server import lists, loras
from sgdiff_app.server.answers import ANSWERS, FLAG, INTEGER, MAP, TEXT, Schema, named, one_of
from sgdiff_app.server.body import WRAPPERS
from sgdiff_app.server.fields import EDITS, GENERATIONS, IGNORED, VIDEOS, Door
from sgdiff_app.server.idempotency import HEADER, LONGEST
from sgdiff_app.server.jobs import MOST_URGENT

JSON, FORM, EVENTS = "application/json", "multipart/form-data", "text/event-stream"
IMAGE_KINDS, VIDEO_KINDS = ("image/png", "image/jpeg", "image/webp"), ("video/mp4", "image/webp", "image/jpeg")
SIZE: Schema = {"type": "string", "pattern": "^(auto|[1-9][0-9]{0,5}x[1-9][0-9]{0,5})$"}
BINARY: Schema = {"type": "string", "format": "binary"}
# Every route may answer so: keys and hosts, a body that is too large, a fault of ours.
ALWAYS = (400, 401, 403, 413, 500)
DRAWS = (404, 429, 502, 503)
WHY = {
    200: "Done", 206: "A part of it", 302: "Where it is", 400: "Something is wrong",
    401: "No valid key", 403: "Origin or host refused", 404: "Not there",
    413: "Too large", 416: "No such bytes", 429: "Too many requests wait", 500: "Failed",
    502: "Cloud storage failed", 503: "Not now",
}  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """What a route takes and gives, beside what its code says.

    `answer` is one of ANSWERS, `media` the types of an answer that is no JSON. `statuses` are those of errors.
    """

    answer: str = ""
    media: tuple[str, ...] = ()
    body: Mapping[str, Schema] | None = None  # by content type
    query: Mapping[str, Schema] | None = None
    headers: Mapping[str, Schema] | None = None
    statuses: tuple[int, ...] = ()
    needed: bool = True  # the body
    error: str = "Error"


def fields_of(door: Door[Any], form: bool) -> Schema:
    """Return the schema of the body of one kind of request: as JSON, or as a form with files."""
    properties = dict[str, Schema]()
    for name, (cls, field) in door.known.items():
        found = {**schema.json_schema(cls, field.name), "description": field.opt.help}
        if field.opt.later is True:
            found["description"] += " (not available yet)"
        if field.default is not None and field.kind not in ("list", "map", "group"):
            found["default"] = False if name in ("embed_recipe", "metadata") else field.default
        properties[name] = {**found, **SIZE} if name == "size" else found
    properties["prompt"] = {**properties["prompt"], "minLength": 1}
    if form:
        properties = {name: _without_null(found) for name, found in properties.items()}
        for name in door.files:
            several = door.known[name][1].kind == "list"
            properties[name] = {"type": "array", "items": BINARY} if several else BINARY
    free: Mapping[str, Schema] = {name: {"description": "Accepted, no effect"} for name in IGNORED}
    wrapped: Mapping[str, Schema] = {name: {**MAP, "description": "Merged into the top level"} for name in WRAPPERS}
    return {
        "type": "object",
        "required": ["prompt"],
        "properties": {**properties, **({} if form else {**free, **wrapped})},
        "additionalProperties": form,  # names with brackets stand for lists and objects in it
    }


def _without_null(found: Schema) -> Schema:
    """Return a schema without null, which a form has no word for."""
    left = [part for part in found.get("anyOf", ()) if part != {"type": "null"}]
    if not left:
        return found
    rest = {name: value for name, value in found.items() if name != "anyOf"}
    return {**rest, **left[0]} if len(left) == 1 else {**rest, "anyOf": left}


def _both(door: Door[Any]) -> dict[str, Schema]:
    return {JSON: fields_of(door, form=False), FORM: fields_of(door, form=True)}


def _arguments(known: Mapping[str, loras.Argument], required: tuple[str, ...] = ()) -> Schema:
    """Return the schema of the body of a LoRA route."""
    kinds = {str: "string", float: "number", int: "integer"}
    properties = dict[str, Schema]()
    for name, argument in known.items():
        one: Schema = {"type": kinds[argument.type]}
        one = one_of(*argument.choices) if argument.choices else one
        one = one_of(*refs.TARGETS) if name == "target" else one
        entry: Schema = {"anyOf": [one, {"type": "null"}]} if argument.gaps else one
        properties[name] = {"anyOf": [one, {"type": "array", "items": entry}]} if argument.many else one
    return {
        "type": "object",
        "required": list(required),
        "properties": properties,
        "additionalProperties": False,
    }


def _object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    found = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**found, "required": list(required)} if required else found


def operations() -> dict[tuple[str, str], Operation]:
    """Return what every route takes and gives, by method and path."""
    once: Mapping[str, Schema] = {HEADER: {"type": "string", "minLength": 1, "maxLength": LONGEST}}
    ranges: Mapping[str, Schema] = {"range": {"type": "string", "pattern": "^bytes=[0-9]{1,9}-[0-9]{0,9}$"}}
    variant: Mapping[str, Schema] = {"variant": TEXT}
    clip: Mapping[str, Schema] = {"variant": TEXT, "index": {"type": "string", "pattern": "^[0-9]{1,4}$"}}
    cursor: Mapping[str, Schema] = {
        "after": TEXT,
        "limit": {**INTEGER, "minimum": 1, "maximum": lists.MOST, "default": lists.DEFAULT},
        "order": one_of(*lists.ORDERS),
    }
    filters: Mapping[str, Schema] = {"kind": one_of(*KINDS), "status": one_of(*STATUSES), **cursor}
    urgency: Schema = {**INTEGER, "minimum": -MOST_URGENT, "maximum": MOST_URGENT}
    changes = {"anyOf": [{"required": ["priority"]}, {"required": ["starred"]}]}
    change = {JSON: {**_object(priority=urgency, starred=FLAG), **changes}}
    model = {JSON: _object(("model",), model={"type": "string", "minLength": 1})}
    drawn = Operation("Images", (EVENTS,), headers=once, statuses=DRAWS)
    queued = Operation("Video", headers=once, statuses=DRAWS)
    picture = Operation(media=IMAGE_KINDS, query=variant, headers=ranges, statuses=(206, 302, 404, 416))
    movie = Operation(media=VIDEO_KINDS, query=clip, headers=ranges, statuses=(206, 302, 404, 416))
    never = Operation(statuses=(404,))
    adapters = Operation("LoraDone", statuses=(404, 503), error="LoraError")
    return {
        ("GET", "/liveness"): Operation("Alive"),
        **{("GET", path): Operation("Alive", statuses=(503,)) for path in ("/health", "/ready", "/health_generate")},
        ("GET", "/metrics"): Operation(media=("text/plain", "application/openmetrics-text"), statuses=(404,)),
        ("GET", "/models"): Operation("Served"),
        ("GET", "/model_info"): Operation("ModelInfo"),
        ("GET", "/server_info"): Operation("ServerInfo"),
        ("GET", "/v1/model_info"): Operation("ModelPath"),
        ("GET", "/v1/models"): Operation("Cards"),
        ("GET", "/v1/models/{id}"): Operation("Card", statuses=(404,)),
        ("POST", "/v1/models/load"): Operation("Loaded", body=model, statuses=(404, 503)),
        ("POST", "/v1/images/generations"): replace(drawn, body=_both(GENERATIONS)),
        ("POST", "/v1/images/edits"): replace(drawn, body=_both(EDITS)),
        ("POST", "/v1/images/variations"): never,
        ("GET", "/v1/images/{image_id}/content"): picture,
        ("HEAD", "/v1/images/{image_id}/content"): picture,
        ("POST", "/v1/videos"): replace(queued, body=_both(VIDEOS)),
        ("GET", "/v1/videos"): Operation("Videos", query=cursor),
        ("POST", "/v1/videos/edits"): never,
        ("POST", "/v1/videos/extensions"): never,
        ("POST", "/v1/videos/characters"): never,
        ("GET", "/v1/videos/characters/{name}"): never,
        ("GET", "/v1/videos/{video_id}"): Operation("Video", statuses=(404,)),
        ("DELETE", "/v1/videos/{video_id}"): Operation("VideoDeleted", statuses=(404,)),
        ("POST", "/v1/videos/{video_id}/cancel"): Operation("Video", statuses=(404, 503)),
        ("POST", "/v1/videos/{video_id}/remix"): replace(queued, body=_both(VIDEOS)),
        ("GET", "/v1/videos/{video_id}/content"): movie,
        ("HEAD", "/v1/videos/{video_id}/content"): movie,
        ("GET", "/v1/jobs"): Operation("Jobs", query=filters),
        ("GET", "/v1/jobs/{job_id}"): Operation("Job", statuses=(404,)),
        ("PATCH", "/v1/jobs/{job_id}"): Operation("Job", body=change, statuses=(404,)),
        ("DELETE", "/v1/jobs/{job_id}"): Operation("JobDeleted", statuses=(404,)),
        ("GET", "/v1/jobs/{job_id}/preview"): Operation(media=("image/jpeg",), statuses=(404,)),
        ("GET", "/v1/jobs/{job_id}/events"): Operation(media=(EVENTS,), statuses=(404,)),
        ("POST", "/v1/jobs/{job_id}/cancel"): Operation("Job", statuses=(404, 503)),
        ("POST", "/v1/set_lora"): replace(adapters, body={JSON: _arguments(loras.SET, ("lora_nickname",))}),
        ("POST", "/v1/merge_lora_weights"): replace(adapters, body={JSON: _arguments(loras.MERGE)}, needed=False),
        ("POST", "/v1/unmerge_lora_weights"): replace(adapters, body={JSON: _arguments(loras.UNMERGE)}, needed=False),
        ("GET", "/v1/list_loras"): Operation("Loras", statuses=(503,), error="LoraError"),
    }


def document(routers: Sequence[APIRouter], prefix: str = "") -> dict[str, Any]:
    """Return the description of every route of the routers, which a proxy may have put below a prefix."""
    known = operations()
    paths = dict[str, dict[str, Any]]()
    for path, method, endpoint in routes_of(routers):
        told = known.get((method, path), Operation())
        summary, _, _ = (endpoint.__doc__ or "").partition("\n")
        paths.setdefault(path, {})[method.lower()] = {
            "summary": summary,
            "operationId": f"{method.lower()}{re.sub('[^a-z0-9]+', '_', path.lower())}".rstrip("_"),
            "parameters": [*_parameters(path, told)],
            **({"requestBody": _body(told)} if told.body is not None else {}),
            "responses": _responses(told, head=method == "HEAD"),
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "sgdiff-app", "version": __version__},
        "servers": [{"url": prefix or "/"}],
        "paths": paths,
        "components": {
            "schemas": dict(ANSWERS),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],  # a server without keys takes any, or none
    }


def routes_of(routers: Sequence[APIRouter]) -> Iterable[tuple[str, str, Callable[..., Any]]]:
    """Yield path, method and function of the routes of the API."""
    for route in (route for router in routers for route in router.routes):
        if isinstance(route, APIRoute):
            yield from ((route.path_format, method, route.endpoint) for method in sorted(route.methods or ()))


def _parameters(path: str, told: Operation) -> Iterable[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", path):
        yield {"name": name, "in": "path", "required": True, "schema": {**TEXT, "minLength": 1}}
    for place, given in (("query", told.query), ("header", told.headers)):
        yield from ({"name": name, "in": place, "schema": found} for name, found in (given or {}).items())


def _body(told: Operation) -> dict[str, Any]:
    assert told.body is not None
    return {"required": told.needed, "content": {media: {"schema": found} for media, found in told.body.items()}}


def _responses(told: Operation, head: bool) -> dict[str, Any]:
    content = dict[str, Any]()
    if told.answer:
        content[JSON] = {"schema": named(told.answer)}
    content |= {media: {"schema": {} if media == EVENTS else BINARY} for media in told.media}
    done = {"200": {"description": WHY[200], "content": content}} if content else {}
    found = {str(status): _refusal(told, status) for status in sorted({*ALWAYS, *told.statuses})}
    if head:
        return {status: {"description": answer["description"]} for status, answer in {**done, **found}.items()}
    return {**done, **found}


def _refusal(told: Operation, status: int) -> dict[str, Any]:
    """Return what an answer is like that is not the one hoped for."""
    if status < 400:
        content = {media: {"schema": BINARY} for media in told.media} if status == 206 else {}
        return {"description": WHY[status], **({"content": content} if content else {})}
    schema_: Schema = named(told.error)
    if status == 503 and told.answer == "Alive":
        schema_ = named("NotReady")
    return {"description": WHY[status], "content": {JSON: {"schema": schema_}}}
