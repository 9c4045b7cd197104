"""Fields of requests over HTTP: those that HTTP alone has, described like all settings, and how bodies become nouns."""

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from engine import schema
from engine.env import FALSE, TRUE
from engine.errors import NotAvailable, SgdiffError, UsageError, listed, shown, suggest
from engine.lora import refs
from engine.schema import Field, Ge, Le, MaxLen, Opt
from engine.types import LORA, OUTPUT, PROFILING, SAMPLING, ImageFormat, LoraRef, Request, Task
from sgdiff_app.layers import dimensions
from sgdiff_app.options import ServerOptions
from sgdiff_app.server import places
from sgdiff_app.server.body import Body, Text, json_text
from sgdiff_app.server.errors import invalid

HTTP, INPUT = "HTTP", "Input"
MAX_IMAGES = 16  # of a request
Source = str | dict[str, Any]  # a URL, a data URI, or {"image_url": one of them}


@dataclass(frozen=True, kw_only=True)
class CommonFields:
    """What requests for pictures and for videos have in common, beside the fields of `engine.types.Request`."""

    model: Annotated[str | None, Opt("Served name, path, id or alias of the model", HTTP)] = None
    size: Annotated[str | None, Opt("WIDTHxHEIGHT, or auto", SAMPLING)] = None
    task_type: Annotated[Task | None, Opt("Must be one that the model can do", SAMPLING)] = None
    lora_path: Annotated[str | None, Opt("Short form of one entry of loras", LORA)] = None
    lora_nickname: Annotated[str | None, Opt("Name of that entry", LORA)] = None
    lora_scale: Annotated[float | None, Opt("Strength of that entry", LORA)] = None


@dataclass(frozen=True, kw_only=True)
class ImageFields(CommonFields):
    """POST /v1/images/generations."""

    response_format: Annotated[Literal["b64_json", "url"], Opt("Pictures in the answer, or where they are", HTTP)] = (
        "b64_json"
    )
    output_format: Annotated[ImageFormat, Opt("File format", OUTPUT)] = "png"
    background: Annotated[
        Literal["auto", "opaque", "transparent"], Opt("transparent: models with alpha, png and webp", OUTPUT)
    ] = "auto"
    stream: Annotated[bool, Opt("Answer with events", HTTP)] = False
    partial_images: Annotated[int, Ge(0), Le(3), Opt("Previews among the events", HTTP)] = 0


@dataclass(frozen=True, kw_only=True)
class EditFields(ImageFields):
    """POST /v1/images/edits."""

    image: Annotated[
        tuple[Source, ...] | None, MaxLen(MAX_IMAGES), Opt("Files, URLs or data URIs", INPUT, aliases=("images",))
    ] = None
    url: Annotated[tuple[str, ...] | None, MaxLen(MAX_IMAGES), Opt("Further images, after the files", INPUT)] = None
    mask: Annotated[Source | None, Opt("Transparent or white = change", INPUT)] = None


@dataclass(frozen=True, kw_only=True)
class VideoFields(CommonFields):
    """POST /v1/videos."""

    seconds: Annotated[str | int | None, Opt("Length; num_frames wins", SAMPLING)] = None
    input_reference: Annotated[Source | None, Opt("First frame, or the source video", INPUT)] = None
    reference_url: Annotated[str | None, Opt("The same, as a URL", INPUT)] = None
    video_url: Annotated[str | None, Opt("The same, as a URL", INPUT)] = None
    webhook_url: Annotated[str | None, Opt("Told when the video is finished", HTTP)] = None


T = TypeVar("T", bound=CommonFields)


@dataclass(frozen=True, eq=False)
class Door(Generic[T]):
    """One kind of request.

    `files` are the fields that may be files, `names` what this kind calls fields of Request, and `absent` the fields of
    Request that it has not.
    """

    fields: type[T]
    names: Mapping[str, str]
    files: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    @functools.cached_property
    def known(self) -> Mapping[str, tuple[type, Field]]:
        """Every field by each of its names, with the noun that has it."""
        hidden = (*INPUT_PATHS, *self.absent)
        asked = {n: (Request, f) for f in schema.fields(Request).values() if f.name not in hidden for n in f.names}
        cls: type = self.fields
        own = {n: (cls, f) for f in schema.fields(cls).values() for n in f.names}
        return {**asked, **own}


INPUT_PATHS = ("image_path", "mask_path", "video_path")  # filled from files and URLs
CALLED = {"num_outputs_per_prompt": "n", "image_path": "image", "mask_path": "mask"}
OF_VIDEOS = ("x264_preset",)
OF_EDITS = ("strength",)
GENERATIONS = Door(ImageFields, CALLED, absent=(*OF_VIDEOS, *OF_EDITS))
EDITS = Door(EditFields, CALLED, ("image", "images", "mask"), OF_VIDEOS)
VIDEOS = Door(VideoFields, {**CALLED, "image_path": "input_reference"}, ("input_reference",), ("output_format",))
PLACES: Mapping[str, Door[Any]] = {
    "/v1/images/generations": GENERATIONS,
    "/v1/images/edits": EDITS,
    "/v1/videos": VIDEOS,
}
MOST = {"seed": 10, "loras": 16, "image": MAX_IMAGES, "url": MAX_IMAGES}  # entries; more are not even looked at

IGNORED = ("user", "safety_identifier", "moderation", "style", "complexity", "input_fidelity")
NOT_OFFERED = ("frame_count", "frame_duration_ms", "markup", "svg", "enhance_prompt")
NOT_ALLOWED = (
    "output_path", "output_file_path", "output_file_name", "perf_dump_path", "image_path", "image_paths", "mask_path",
    "video_path",
)  # fmt: skip
PROFILED = tuple(name for name, found in schema.fields(Request).items() if found.opt.topic == PROFILING)
IN_LIST = {"lora_path": "path", "lora_nickname": "name", "lora_scale": "scale", "lora_alpha": "alpha"}
MODEL_PATHS = ("upscaling_model_path", "frame_interpolation_model_path")
ROUNDING = ("exact", "lossless")
INTEGER = re.compile(r"[+-]?[0-9]{1,30}")
NUMBER = re.compile(r"[+-]?(?:[0-9]{1,30}\.?[0-9]{0,30}|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,2})?")
LONGEST_S = 999_999
SECONDS = re.compile(r"[1-9][0-9]{0,5}")  # up to that


def read(door: Door[T], body: Body, options: ServerOptions, data: Path) -> tuple[Request, T]:
    """Return what a body asks for, every value checked; input images are still to come.

    Raises UsageError or ApiError that name the field. `data` is the folder of --data-dir.
    """
    own, asked = dict[str, Any](), dict[str, Any]()
    for upload in body.uploads:
        if upload not in door.files:
            _find(door, upload)
            raise invalid(f"invalid_{shown(upload)}", f"{shown(upload)}: must not be a file", upload)
    for key, value in body.values.items():
        if key in IGNORED:
            continue
        cls, found = _find(door, key)
        place = own if cls is door.fields else asked
        if found.name in place:
            if key in body.wrapped:
                continue  # the top level, or a wrapper before this one, has it under another name
            message = f"{shown(key)}: given twice, also under another name of {found.name}"
            raise UsageError(message, param=door.names.get(found.name, found.name))
        place[found.name] = _checked(door, cls, found, key, value)
    return _finish(door, own, asked, options, data)


def renamed(door: Door[Any], error: UsageError) -> UsageError:
    """Return an error of the engine as one that speaks of what this kind of request calls its fields."""
    message = error.message
    for name, called in door.names.items():
        message = re.sub(rf"\b{name}\b", called, message)
    return type(error)(message, code=error.code, param=door.names.get(error.param or "", error.param))


def _find(door: Door[Any], key: str) -> tuple[type, Field]:
    if key in door.known:
        return door.known[key]
    name = shown(key)
    if key in NOT_ALLOWED:
        hint = "; send the image itself, or its URL" if key.startswith(("image", "mask")) else ""
        raise invalid("parameter_not_allowed", f"{name}: paths of the server are not for clients{hint}", key)
    absent = key in door.absent and key not in OF_EDITS
    if key in NOT_OFFERED or key.startswith("progressive_") or absent:
        raise invalid("unsupported_parameter", f"{name}: not offered here", key)
    places = " and ".join(place for place, other in PLACES.items() if key in other.known)
    if places:
        raise invalid("unknown_parameter", f"{name}: a field of {places}, not of this route", key)
    raise invalid("unknown_parameter", f"{name}: unknown name{suggest(name, door.known)}", key)


def _checked(door: Door[Any], cls: type, found: Field, key: str, value: Any) -> Any:
    name = door.names.get(found.name, found.name)
    if found.name == "quality" and value in ROUNDING:
        message = f"quality: '{value}' says elsewhere how much rounding may differ; here it chooses the number of steps"
        raise UsageError(f"{message}: one of {listed(found.choices)}", param=name)
    if found.name == "seconds" and value is not None:
        _require_seconds(value)
    try:
        _require_few(found.name, value, key)
        value = typed(found, value, name)
        _require_few(found.name, value, key)  # now also of a list that came as a text
        return schema.check(cls, found.name, value, key)
    except UsageError as error:
        raise UsageError(error.message, code=error.code, param=name) from error


def _require_seconds(value: Any) -> None:
    """Refuse what is no length of a clip: a number, or its digits. Raises UsageError."""
    if isinstance(value, bool) or not isinstance(value, str | int) or not SECONDS.fullmatch(str(value)):
        message = f"seconds: must be an integer from 1 to {LONGEST_S}, got {shown(json.dumps(value))}"
        raise UsageError(message, param="seconds")


def _require_few(name: str, value: Any, key: str) -> None:
    """Refuse a list that is too long before its entries are looked at one by one. Raises UsageError."""
    most = MOST.get(name)
    if most is not None and isinstance(value, list) and len(value) > most:
        code = "too_many_images" if name in ("image", "url") else UsageError.code
        raise UsageError(f"{key}: must have at most {most} entries, got {len(value)}", code=code)


def typed(field: Field, value: Any, where: str) -> Any:
    """Return a value as its field takes it: texts of a form by its kind, JSON text where it holds lists or maps."""
    if field.entry is not None or field.kind in ("map", "group"):
        value = json_text(value, where) if isinstance(value, str) else value
        return _entries(field, value, where)
    if isinstance(value, Text) and field.kind == "list" and value.lstrip().startswith("["):
        return json_text(value, where)
    if isinstance(value, list):
        return [scalar(field, entry) for entry in value]
    return scalar(field, value)


def _entries(field: Field, value: Any, where: str) -> Any:
    if field.entry is None or not isinstance(value, list):
        return _free(value)
    known = schema.fields(field.entry)
    return [
        {k: typed(known[k], v, where) if k in known else v for k, v in entry.items()}
        if isinstance(entry, dict)
        else entry
        for entry in value
    ]


def _free(value: Any) -> Any:
    """Return a map without a type of its own; texts of a form that read as JSON numbers and words are these."""
    if isinstance(value, dict):
        return {name: _free(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_free(entry) for entry in value]
    if not isinstance(value, Text):
        return value
    if value in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[value]
    return _number(value) if NUMBER.fullmatch(value) else str(value)


def _number(text: str) -> float:
    return int(text) if INTEGER.fullmatch(text) else float(text)


def scalar(field: Field, value: Any) -> Any:
    """Return a text of a form as a value of the field's kind; one that is none stays text, and is refused as such."""
    if not isinstance(value, Text):
        return value
    if field.item == "bool" and value.lower() in TRUE + FALSE:
        return value.lower() in TRUE
    if field.item == "int" and INTEGER.fullmatch(value):
        return int(value)
    return float(value) if field.item == "float" and NUMBER.fullmatch(value) else value


def _finish(
    door: Door[T], own: dict[str, Any], asked: dict[str, Any], options: ServerOptions, data: Path
) -> tuple[Request, T]:
    prompt = asked.get("prompt")
    if prompt is None:
        raise UsageError("prompt: required", code="missing_parameter", param="prompt")
    if not prompt.strip():
        raise UsageError("prompt: must have at least 1 character", param="prompt")
    _size(own, asked)
    _loras(own, asked, options)
    for name in MODEL_PATHS:
        if asked.get(name) is not None:
            asked[name] = places.file_path(asked[name], data, name)
    _require_built(asked, options)
    if "output_format" in own:
        asked["output_format"] = own["output_format"]
    given = {name: value for name, value in asked.items() if value is not None}
    return Request(**{"embed_recipe": False, **given}), door.fields(
        **{name: value for name, value in own.items() if value is not None}
    )


def _require_built(asked: Mapping[str, Any], options: ServerOptions) -> None:
    """Refuse settings that are not built yet, and profiling where the server does not allow it."""
    for name, value in asked.items():
        if name in PROFILED and not options.enable_profile_api and value != schema.fields(Request)[name].default:
            raise invalid("parameter_not_allowed", f"{name}: needs a server with --enable-profile-api", name)
        try:
            schema.require_available(Request, name, value)
        except NotAvailable as error:
            raise NotAvailable(error.message, param=name) from error


def _size(own: Mapping[str, Any], asked: dict[str, Any]) -> None:
    size = own.get("size")
    if size is None or size == "auto":
        return
    for name, side in zip(("width", "height"), dimensions(size, "size"), strict=True):
        given = asked.get(name)
        if given is not None and given != side:
            raise invalid("conflicting_size", f"size: {size} contradicts {name} {shown(given)}", "size")
        asked[name] = side


def _loras(own: Mapping[str, Any], asked: dict[str, Any], options: ServerOptions) -> None:
    """Put the short form of an adapter into the list, and check what it holds."""
    short = {name: own[f"lora_{name}"] for name in ("path", "nickname", "scale") if own.get(f"lora_{name}") is not None}
    if short and asked.get("loras") is not None:
        raise UsageError("loras: excludes lora_path, lora_nickname and lora_scale, its short form", param="loras")
    if short:
        entry = LoraRef(name=short.get("nickname"), path=short.get("path"))
        asked["loras"] = (replace(entry, scale=short.get("scale", 1.0)),)
    if asked.get("loras"):
        try:
            refs.check(asked["loras"], strength="lora_scale")
            for ref in asked["loras"]:
                if ref.path is not None:
                    places.check_lora(ref.path, ref.weight_name, options.lora_allowed_dirs)
        except SgdiffError as error:
            if not short:
                _of_list(error)
            raise


def _of_list(error: SgdiffError) -> None:
    """Have an error that calls a value as the short form does speak of an entry of `loras`."""
    head, parted, rest = error.message.partition(": ")
    if parted and head in IN_LIST:
        error.message = f"loras: {IN_LIST[head]}: {rest}"
    error.param = "loras"
