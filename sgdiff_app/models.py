"""`sgdiff-app models`: which models are known, what one of them can do, and its download."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine import catalog, hub, log, remote
from engine.catalog import MODELS, SMALL_AREA, ModelSpec
from engine.config import EngineConfig
from engine.downloads import Place, State, place, require_room, size, watched
from engine.env import Environment
from engine.errors import ModelError, UsageError, listed, suggest
from sgdiff_app.config import Settings
from sgdiff_app.options import CommandOptions
from sgdiff_app.progress import Bar

logger = log.get(__name__)
VERBS = ("show", "pull")
SETTINGS = ("revision", "offline", "trust_remote_code")
HEADINGS = ("family", "model", "tasks", "size", "frames", "steps", "on disk")
ON_DISK: Mapping[State, str] = {"bundled": "bundled, {}", "cached": "{}", "local": "{}", "partial": "in part, {}",
                                "absent": "no", "unknown": "unknown"}  # fmt: skip


def run(words: Sequence[str], settings: Settings, environment: Environment) -> int:
    """List the known models, or `show` or `pull` one; return the exit status. Raises SgdiffError."""
    given = settings.noun(EngineConfig)
    config = EngineConfig(**{name: getattr(given, name) for name in SETTINGS})
    as_json = settings.noun(CommandOptions).json
    verb, *names = words or [""]
    if not verb:
        print(*_list(environment, as_json), sep="\n")
        return 0
    if verb not in VERBS:
        hint = f"; did you mean 'models show {verb}'?" if catalog.by_name(verb) else suggest(verb, VERBS)
        raise UsageError(f"models: must be followed by one of {listed(VERBS)} or by nothing, got '{verb}'{hint}")
    if len(names) != 1:
        raise UsageError(f"models {verb}: needs one model, got {len(names)}", code="missing_parameter")
    if verb == "show":
        print(*_show(names[0], config, environment, as_json), sep="\n")
    else:
        _pull(names[0], config, environment, as_json)
    return 0


def _list(environment: Environment, as_json: bool) -> Iterator[str]:
    sizes = remote.cached_bytes()
    here = set(hub.bundled_names())
    specs = sorted(MODELS, key=lambda spec: spec.id not in here)  # those that ship with the program first
    found = [(spec, place(spec.id, EngineConfig(), environment, sizes)) for spec in specs]
    if as_json:
        yield json.dumps({"models": [described(spec, where) for spec, where in found]}, ensure_ascii=False)
        return
    rows = [HEADINGS, *(_row(spec, where) for spec, where in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row in rows:
        yield "  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip()


def _row(spec: ModelSpec, where: Place) -> tuple[str, ...]:
    defaults = spec.defaults
    shape = f"{defaults['width']}x{defaults['height']}" if {"width", "height"} <= defaults.keys() else "-"
    frames, steps = (str(defaults.get(name) or "-") for name in ("num_frames", "num_inference_steps"))
    return spec.family, spec.id, ",".join(spec.tasks), shape, frames, steps, _on_disk(where)


def _on_disk(where: Place) -> str:
    return ON_DISK[where.state].format(size(where.disk_bytes))


def described(spec: ModelSpec, where: Place) -> dict[str, Any]:
    """Return what is known of a model as plain values; the stock pipeline, once loaded, tells what itself uses."""
    native = spec.family != "passthrough"
    return {
        "id": spec.id,
        "names": list(spec.names),
        "family": spec.family,
        "pipeline": spec.pipeline,
        "native": native,
        "tasks": list(spec.tasks),
        "features": list(spec.features),
        "defaults": dict(spec.defaults),
        "small_defaults": dict(spec.small_defaults),
        "uses": sorted(spec.uses) if native else None,
        "ignores": dict(spec.ignores),
        "limits": dict(spec.limits),
        "max_images": spec.max_images if "image_path" in spec.uses else 0 if native else None,
        "size_multiple": spec.multiple,
        "frame_stride": spec.frame_stride if spec.is_video else None,
        "max_pixels": spec.max_pixels,
        "precision": {"default": spec.default_precision("default"), **spec.precision},
        "state": where.state,
        "folder": str(where.folder) if where.folder else None,
        "disk_bytes": where.disk_bytes,
    }


def _show(name: str, config: EngineConfig, environment: Environment, as_json: bool) -> Iterator[str]:
    spec = _spec(name, config, environment)
    shown = spec.id if catalog.by_name(name) is spec and not Path(name).is_dir() else name
    where = place(shown, config, environment, remote.cached_bytes())
    if as_json:
        yield json.dumps(described(spec, where), ensure_ascii=False)
        return
    facts = described(spec, where)
    native = "" if facts["native"] else ", run by the stock diffusers pipeline"
    yield f"model: {shown}" + (f" ({spec.id})" if shown != spec.id else "")
    if spec.names:
        yield f"also called: {listed(spec.names)}"
    yield f"family: {spec.family} ({spec.pipeline}{native})"
    yield f"tasks: {listed(spec.tasks) or 'unknown'}"
    if spec.features:
        yield f"features: {listed(spec.features)}"
    yield f"on disk: {_on_disk(where)}" + (f", {where.folder}" if where.folder else "")
    yield f"precisions: {listed(f'{part} {value}' for part, value in facts['precision'].items())}"
    yield f"sizes: multiples of {spec.multiple}, at most {spec.max_pixels} pixels"
    if spec.is_video:
        yield f"frames: {spec.frame_stride}k + 1" if spec.frame_stride > 1 else "frames: any number"
    yield "defaults:"
    yield from (f"  {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in spec.defaults.items())
    if spec.small_defaults:
        yield f"defaults up to {SMALL_AREA} pixels: {listed(f'{k} {v}' for k, v in spec.small_defaults.items())}"
    uses = listed(sorted(set(spec.uses) - spec.ignores.keys())) if facts["native"] else "those of the stock pipeline"
    yield f"optional settings that it uses: {uses or 'none'}"
    if facts["max_images"]:
        yield f"  image_path: at most {facts['max_images']}"
    yield from (f"  {key}: no effect: {reason}" for key, reason in spec.ignores.items())
    yield from (f"  {key}: at most {bound}" for key, bound in spec.limits.items())


def _spec(name: str, config: EngineConfig, environment: Environment) -> ModelSpec:
    """Return what is known of a model by its name or its folder. Raises UsageError for one that is neither known."""
    known = catalog.by_name(name)
    if known is not None and not Path(name).is_dir():
        return known
    try:
        source = hub.locate(replace(config, model_path=name, offline=True), environment)
    except ModelError as error:
        raise _unknown("show", name) if not Path(name).is_dir() else error from None
    if source.spec is not None:
        return source.spec
    pipeline = str(source.index.get("_class_name"))
    return ModelSpec(id=source.name, family="passthrough", pipeline=pipeline, tasks=())


def _unknown(verb: str, name: str) -> UsageError:
    ids = [spec.id for spec in MODELS]
    short = [entry for spec in MODELS for entry in (spec.id.rpartition("/")[2], *spec.names)]
    message = f"models {verb}: '{name}' is not known{suggest(name, [*ids, *short])}; known: {listed(ids)}"
    return UsageError(message, code="model_not_found", param="model")


def _pull(name: str, config: EngineConfig, environment: Environment, as_json: bool) -> None:
    """Download a model, or what is missing of it, and print its folder."""
    spec = catalog.by_name(name)
    is_folder = Path(name).is_dir()
    model = spec.id if spec is not None and not is_folder else name
    config = replace(config, model_path=model)
    if hub.bundled(model) is None and not is_folder and not remote.is_repo_id(model):
        raise _unknown("pull", name)
    plan = hub.plan(config, environment)
    if plan.cached:
        ships = "ships with the program" if hub.bundled(model) else "is on this machine already"
        logger.info("%s %s", model, ships)
    else:
        require_room(model, plan.download_bytes)
        logger.info(
            "%s: downloading %s", model, size(plan.download_bytes) if plan.download_bytes else "what is missing"
        )
    bar = Bar()
    try:
        with watched(model, plan.download_bytes, bar):
            source = hub.locate(config, environment)
    except KeyboardInterrupt:
        if plan.download_bytes:
            logger.warning("%s: stopped; the same command goes on where this one was", model)
        raise
    finally:
        if plan.download_bytes:
            bar.clear()
    if as_json:
        report = {"model": model, "folder": str(source.folder), "revision": source.revision, "was_cached": plan.cached}
        print(json.dumps({**report, "download_bytes": plan.download_bytes}, ensure_ascii=False))
    else:
        print(source.folder)
