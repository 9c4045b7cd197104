"""The recipe of an output: the resolved request plus what made it; enough to make it again."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine import hub, media, schema
from engine.catalog import ModelSpec
from engine.config import EngineConfig
from engine.errors import InputError, UsageError
from engine.hub import Source
from engine.types import LoraRef, Request

VERSION = 1
PACKAGES = ("sgdiff-app", "torch", "diffusers", "transformers")
INPUTS = ("image_path", "mask_path", "video_path")
ADAPTERS, DIGEST = "loras", "sha256"

# Engine settings that change pixels and mean the same on another machine; paths of files are never recorded.
REPLAYED = (
    "backend", "load_format", "pipeline_class_name", "dit_precision", "vae_precision", "vae_decode_precision",
    "image_encoder_precision", "text_encoder_precisions", "vae_tiling", "vae_slicing", "vae_config",
    "attention_backend", "diffusers_attention_backend", "disable_autocast",
)  # fmt: skip

# What a recipe of this format always has, with the type that JSON gives it.
PARTS = {"request": dict, "engine": dict, "inputs": dict}
ENGINE_PARTS = {
    "model": str, "model_path": str, "folder_hash": str, "overrides": dict, "settings": dict, "precisions": dict,
    "loras": list, "attention_backend": str, "device": str, "versions": dict,
}  # fmt: skip
NOUNS: Mapping[type, str] = {dict: "a mapping", list: "a list", str: "a text"}


def engine_part(
    source: Source, spec: ModelSpec, config: EngineConfig, *, device: str, attention: str, precisions: Mapping[str, str]
) -> dict[str, Any]:
    """Return what an engine contributes to the recipe of each of its outputs; nothing in it is a local path."""
    default = EngineConfig()
    # The id of a model that no catalog knows is the name it was loaded by.
    changed = {name: getattr(config, name) for name in REPLAYED if getattr(config, name) != getattr(default, name)}
    return {
        "model": _without_path(spec.id),
        "model_path": _without_path(source.name),
        "revision": source.revision,
        "folder_hash": hub.folder_hash(source.folder),
        "overrides": {name: hub.folder_hash(folder) for name, folder in sorted(_overrides(source).items())},
        "settings": schema.plain(changed),
        "precisions": dict(precisions),
        "loras": [],
        "caching": None,
        "quantization": None,
        "attention_backend": attention,
        "device": device,
        "versions": versions(),
    }


def _overrides(source: Source) -> dict[str, Path]:
    return {**source.overrides, **{f"{name}_weights": place for name, place in source.weights.items()}}


def _without_path(name: str) -> str:
    """Return the name of a model, of a local folder the last part alone."""
    path = Path(name).expanduser()
    if not path.exists():
        return name
    return path.name if path.name.strip(".") else path.resolve().name


def versions() -> dict[str, str]:
    """Return the versions that pixels may depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def build(request: Request, engine: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe of one output of a resolved request; inputs are recorded by sha256 alone.

    `engine` holds the LoRAs that the output is drawn with, whoever asked for them.
    """
    plain = {name: value for name, value in schema.plain(request).items() if name not in (*INPUTS, ADAPTERS)}
    inputs = {name: _digests(getattr(request, name)) for name in INPUTS if getattr(request, name)}
    return {"sgdiff": VERSION, "request": plain, "engine": dict(engine), "inputs": inputs}


def _digests(source: str | tuple[str, ...]) -> list[str]:
    return [media.sha256_of(entry) for entry in ((source,) if isinstance(source, str) else source)]


def settings(recipe: Mapping[str, Any], given: Container[str] = ()) -> dict[str, Any]:
    """Return the settings that replay a recipe: request fields, and those of the engine.

    Those that the user gives, named in `given`, are left out. A recipe comes from a stranger's file: raises InputError
    as `check` does, and for a model that is named by a path.
    """
    check(recipe)
    engine = recipe["engine"]
    model = {"model_path": engine["model_path"], "revision": engine.get("revision")}
    if "model_path" in given:
        model = {}  # the revision is one of the recorded model
    elif not hub.is_portable(engine["model_path"]):
        message = f"recipe: names its model by a path, '{_short(engine['model_path'])}'; pass --model-path"
        raise InputError(message, code="invalid_recipe", param="model_path")
    replayed = {**model, **engine["settings"], **recipe["request"]}
    return {name: value for name, value in replayed.items() if value is not None and name not in given}


def loras(recipe: Mapping[str, Any]) -> tuple[LoraRef, ...]:
    """Return the LoRAs that a file was drawn with, by names that mean them on any machine.

    Raises InputError as `check` does.
    """
    check(recipe)
    return tuple(lora(entry, i) for i, entry in enumerate(recipe["engine"][ADAPTERS]))


def lora(entry: Any, i: int) -> LoraRef:
    """Return one of the LoRAs of a recipe, the i-th. Raises InputError for one that `build` has not written."""
    _check_lora(entry)
    return schema.read(LoraRef, {"name": f"lora_{i + 1}", **{key: entry[key] for key in entry if key != DIGEST}})


def _check_lora(entry: Any) -> None:
    if (
        not isinstance(entry, dict)
        or not isinstance(entry.get(DIGEST), str)
        or not entry.get("path")
        or "name" in entry
    ):
        raise _invalid("is damaged: engine.loras must list mappings with path and sha256")
    try:
        found = schema.read(LoraRef, {key: value for key, value in entry.items() if key != DIGEST})
    except UsageError as error:
        raise _invalid(f"is damaged: engine.loras: {error.message}") from error
    if not hub.is_portable(found.path or ""):
        raise _invalid(f"names a LoRA by a path, '{_short(found.path)}'")


def check(recipe: Mapping[str, Any]) -> None:
    """Raise InputError unless a recipe has the shape that `build` gives it and sets only what a recipe may set."""
    if recipe.get("sgdiff") != VERSION:
        found = _short(recipe.get("sgdiff"))
        raise _invalid(f"format {found} is not known; this version reads {VERSION}")
    _check_parts(recipe, PARTS, "")
    _check_parts(recipe["engine"], ENGINE_PARTS, "engine.")
    revision = recipe["engine"].get("revision")
    if revision is not None and not hub.is_commit(revision):
        raise _invalid("is damaged: engine.revision must be the hash of a commit")
    for held, known in ((recipe["request"], _request_fields()), (recipe["engine"]["settings"], REPLAYED)):
        for name in held:
            if name not in known:
                raise _invalid(f"holds '{_short(name)}', which a recipe cannot set")
    for entry in recipe["engine"][ADAPTERS]:
        _check_lora(entry)
    for name, digests in recipe["inputs"].items():
        if name not in INPUTS:
            raise _invalid(f"holds '{_short(name)}', which is no input")
        if not isinstance(digests, list) or not all(isinstance(digest, str) for digest in digests):
            raise _invalid(f"is damaged: inputs.{name} must be a list of texts")


def _check_parts(held: Mapping[str, Any], parts: Mapping[str, type], where: str) -> None:
    for name, kind in parts.items():
        if not isinstance(held.get(name), kind):
            raise _invalid(f"is damaged: {where}{name} must be {NOUNS[kind]}")


def _request_fields() -> set[str]:
    return set(schema.fields(Request)) - {*INPUTS, ADAPTERS}


def _invalid(problem: str) -> InputError:
    return InputError(f"recipe: {problem}", code="invalid_recipe")


def differences(recipe: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Return a line for each thing that made an output and is another one now; empty promises identical pixels.

    Raises InputError as `check` does for the recipe that was recorded.
    """
    check(recipe)
    was, now = recipe["engine"], current["engine"]
    keys = ("model", "folder_hash", "overrides", "precisions", "attention_backend", "device")
    lines = [f"{key}: was {_short(was[key])}, is {_short(now[key])}" for key in keys if was[key] != now[key]]
    if was[ADAPTERS] != now[ADAPTERS]:
        lines.append(f"loras: was {_adapters(was[ADAPTERS])}, is {_adapters(now[ADAPTERS])}")
    for package, version in was["versions"].items():
        if now["versions"].get(package) != version:
            lines.append(f"{package}: was {version}, is {now['versions'].get(package, 'not installed')}")
    for name, digests in recipe["inputs"].items():
        if current["inputs"].get(name) != digests:
            lines.append(f"{name}: another file than the one recorded")
    for name, value in recipe["request"].items():
        if current["request"].get(name) != value:
            lines.append(f"{name}: was {_short(value)}, is {_short(current['request'].get(name))}")
    return lines


def _adapters(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return LoRAs in a few words: names, strengths, the first digits of the hashes."""
    return ", ".join(f"{_short(x['path'])} x {x.get('scale', 1.0):g} ({x[DIGEST][:8]})" for x in entries) or "none"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
