"""Every known model as data, and which of them a name or a model folder means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from engine.catalog import clips, images
from engine.catalog.spec import IMG2IMG, INPAINT, MAX_CLIP, SMALL_AREA, ModelSpec
from engine.errors import UsageError, listed, suggest

__all__ = ["IMG2IMG", "INPAINT", "MAX_CLIP", "MODELS", "SMALL_AREA", "ModelSpec", "by_name", "match"]

CACHED = re.compile(r"(?:^|/)models--[^/]+?--([^/]+)(?=/snapshots(?:/|$)|$)")  # the model's name, after its owner's

# Of the entries of one pipeline class, the first whose `where` fits a folder wins.
MODELS: tuple[ModelSpec, ...] = (*images.MODELS, *clips.MODELS)


def by_name(name: str) -> ModelSpec | None:
    """Return the entry whose id or further name is `name`, the last part of a path, or a model in a hub's cache."""
    path = name.lower().rstrip("/")
    wanted = {name.lower(), path.rsplit("/", 1)[-1], *(CACHED.findall(path)[-1:])}
    for spec in MODELS:
        known = {spec.id.lower(), spec.id.rsplit("/", 1)[-1].lower(), *(entry.lower() for entry in spec.names)}
        if wanted & known:
            return spec
    return None


def match(
    model_path: str, model_id: str | None, pipeline: str | None, configs: Mapping[str, Mapping[str, Any]]
) -> ModelSpec | None:
    """Return the entry of a model: by `model_id`, by the path's own name, or by its pipeline class and configs.

    `configs` holds the config of each component and, as "model_index", that of the pipeline. Raises UsageError for an
    unknown `model_id`; returns None for a model that the catalog does not know, which the passthrough then serves.
    """
    if model_id is not None:
        spec = by_name(model_id)
        if spec is None:
            ids = [entry.id for entry in MODELS]
            message = f"--model-id: '{model_id}' is not in the catalog{suggest(model_id, ids)}; known: {listed(ids)}"
            raise UsageError(message, param="model_id")
        return spec
    named = by_name(model_path)
    if named is not None and pipeline in (None, named.pipeline):
        return named
    for spec in MODELS:
        if spec.pipeline == pipeline and spec.where is not None and _fits(spec.where, configs):
            return spec
    return None


def _fits(where: Mapping[str, Mapping[str, Any]], configs: Mapping[str, Mapping[str, Any]]) -> bool:
    return all(
        configs.get(component, {}).get(key) == value
        for component, wanted in where.items()
        for key, value in wanted.items()
    )
