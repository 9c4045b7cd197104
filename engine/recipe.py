"""The recipe of an output: the resolved request plus what made it; enough to make it again."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine import hub, media, schema
from engine.catalog import ModelSpec
from engine.config import EngineConfig
from engine.errors import InputError
from engine.hub import Source
from engine.types import Request

VERSION = 1
PACKAGES = ("sgdiff-app", "torch", "diffusers", "transformers")
INPUTS = ("image_path", "mask_path", "video_path")

# Engine settings that change pixels and mean the same on another machine; paths of files are never recorded.
REPLAYED = (
    "backend", "pipeline_class_name", "dit_precision", "vae_precision", "image_encoder_precision",
    "text_encoder_precisions", "vae_tiling", "vae_slicing", "attention_backend", "diffusers_attention_backend",
)  # fmt: skip


def engine_part(
    source: Source, spec: ModelSpec, config: EngineConfig, *, device: str, attention: str, precisions: Mapping[str, str]
) -> dict[str, Any]:
    """Return what an engine contributes to the recipe of each of its outputs; nothing in it is a local path."""
    default = EngineConfig()
    changed = {name: getattr(config, name) for name in REPLAYED if getattr(config, name) != getattr(default, name)}
    return {
        "model": spec.id,
        "model_path": Path(source.name).name if Path(source.name).exists() else source.name,
        "revision": source.revision,
        "folder_hash": hub.folder_hash(source.folder),
        "overrides": {name: hub.folder_hash(folder) for name, folder in sorted(source.overrides.items())},
        "settings": schema.plain(changed),
        "precisions": dict(precisions),
        "loras": [],
        "caching": None,
        "quantization": None,
        "attention_backend": attention,
        "device": device,
        "versions": versions(),
    }


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
    """Return the recipe of one output of a resolved request; inputs are recorded by sha256 alone."""
    plain = {name: value for name, value in schema.plain(request).items() if name not in INPUTS}
    inputs = {name: _digests(getattr(request, name)) for name in INPUTS if getattr(request, name)}
    return {"sgdiff": VERSION, "request": plain, "engine": dict(engine), "inputs": inputs}


def _digests(source: str | tuple[str, ...]) -> list[str]:
    return [media.sha256_of(entry) for entry in ((source,) if isinstance(source, str) else source)]


def settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that replay a recipe: request fields, and those of the engine.

    Raises InputError for a recipe of a later version of the format.
    """
    if recipe.get("sgdiff") != VERSION:
        raise InputError(f"recipe: format {recipe.get('sgdiff')} is not known; this version reads {VERSION}")
    engine = recipe["engine"]
    replayed = {"model_path": engine["model_path"], "revision": engine["revision"], **engine["settings"]}
    return {name: value for name, value in {**replayed, **recipe["request"]}.items() if value is not None}


def differences(recipe: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Return a line for each thing that made an output and is another one now; empty promises identical pixels."""
    was, now = recipe["engine"], current["engine"]
    keys = ("model", "folder_hash", "overrides", "precisions", "loras", "attention_backend", "device")
    lines = [f"{key}: was {_short(was[key])}, is {_short(now[key])}" for key in keys if was[key] != now[key]]
    for package, version in was["versions"].items():
        if now["versions"].get(package) != version:
            lines.append(f"{package}: was {version}, is {now['versions'].get(package, 'not installed')}")
    for name, digests in recipe.get("inputs", {}).items():
        if current["inputs"].get(name) != digests:
            lines.append(f"{name}: another file than the one recorded")
    for name, value in recipe["request"].items():
        if current["request"].get(name) != value:
            lines.append(f"{name}: was {_short(value)}, is {_short(current['request'].get(name))}")
    return lines


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
