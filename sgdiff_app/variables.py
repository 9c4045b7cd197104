"""The environment as a layer of settings: SGDIFF_ and a flag's name, and the names of the source documents."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress

from engine import env, schema
from engine.config import CacheDitParams
from engine.errors import UsageError, suggest
from engine.schema import Field
from sgdiff_app import flags
from sgdiff_app.layers import Layer
from sgdiff_app.options import SHORTHANDS
from sgdiff_app.settings import Target, find, table

SECONDARY = "SGLANG_CACHE_DIT_SECONDARY_"
COMPONENTS = ("vae_path", "transformer_path", "transformer_weights_path")


def read() -> tuple[Layer, list[tuple[int, str]]]:
    """Return what the environment sets, and warnings about names with our prefix that mean nothing.

    Raises UsageError naming variable and value.
    """
    layer, known = Layer("env"), set[str]()
    for target, names in _names():
        spellings = [spelling for name in names for spelling in env.spellings(name)]
        known.update(spellings)
        found = next((found for name in names if (found := env.lookup(name))), None)
        if found is not None:
            _put(layer, target, *found)
    known.update(spelling for name in env.ENVIRONMENT_ONLY for spelling in env.spellings(name))
    unknown = sorted(set(env.project_names()) - known)
    return layer, [(logging.WARNING, f"unknown variable {name}{suggest(name, sorted(known))}") for name in unknown]


def pick(wanted: Sequence[str]) -> Layer:
    """Return some settings of an environment that may be wrong: what cannot be read is passed over."""
    layer = Layer("env")
    for target, names in _names():
        found = next((found for name in names if (found := env.lookup(name))), None)
        if found is not None and target.setting.name in wanted:
            with suppress(UsageError):
                _put(layer, target, *found)
    return layer


def _put(layer: Layer, target: Target, name: str, text: str) -> None:
    many = target.field is not None and target.field.kind == "list"
    try:
        flags.put(layer, target, text.split(",") if many else [text], name)
    except UsageError as error:
        error.param = name
        raise


def _names() -> Iterator[tuple[Target, tuple[str, ...]]]:
    """Yield every place that a variable can set, with its variables, strongest first."""
    for setting in table().values():
        field, group = setting.field, setting.field.group
        if group is not None:
            for inner in schema.fields(group).values():
                target = Target(setting, (setting.name, inner.name), inner, rank=1)
                yield target, _of(inner, f"{setting.name}_{inner.name}")
        else:
            yield Target(setting, (setting.name,), field), _of(field, *field.names)
    for name in (*COMPONENTS, *(name for name, entry in SHORTHANDS.items() if not entry.letter)):
        yield find(name, name, "name"), (_own(name),)
    params = table()["cache_dit_params"]
    for inner in schema.fields(CacheDitParams).values():
        for name in inner.opt.env:
            second = SECONDARY + name.removeprefix("SGLANG_CACHE_DIT_")
            if second in env.ENVIRONMENT_ONLY:
                yield Target(params, (params.name, "secondary", inner.name), inner, rank=1), (second,)


def _of(field: Field, *names: str) -> tuple[str, ...]:
    scalar = field.kind in ("bool", "int", "float", "str") or (field.kind == "list" and schema.is_scalar_too(field))
    return (*(_own(name) for name in names if scalar), *field.opt.env)


def _own(name: str) -> str:
    return "SGDIFF_" + name.upper()
