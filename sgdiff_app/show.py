"""Every resolved setting with its origin, as text that is a config file, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from engine import schema
from engine.catalog import ModelSpec
from engine.schema import Field
from engine.types import Request
from sgdiff_app.config import Settings
from sgdiff_app.options import SECRETS, ServerOptions
from sgdiff_app.settings import Setting, table, used_by


class Row(NamedTuple):
    """One line: a dotted name, its value, and where that came from."""

    name: str
    value: Any
    origin: str


def rows(settings: Settings, spec: ModelSpec | None) -> Iterator[Row]:
    """Yield every setting that the command takes; `spec` gives the defaults of the model, where it is known."""
    for setting in table().values():
        if not (used_by(settings.command, setting) or ServerOptions in setting.owners):
            continue
        if setting.field.group is not None:
            for inner in schema.fields(setting.field.group).values():
                yield from _rows(settings, setting, (setting.name, inner.name), inner, spec)
        else:
            yield from _rows(settings, setting, (setting.name,), setting.field, spec)


def _rows(
    settings: Settings, setting: Setting, path: tuple[str, ...], field: Field, spec: ModelSpec | None
) -> Iterator[Row]:
    name = ".".join(path)
    below = {known: entry for known, entry in settings.entries.items() if known[: len(path)] == path}
    for known, entry in below.items():
        value = "***" if setting.name in SECRETS else entry.value
        yield Row(".".join(known), schema.plain(value), entry.origin)
    if below:
        return
    if spec is not None and Request in setting.owners and name in spec.defaults:
        yield Row(name, spec.defaults[name], "model")
    else:
        yield Row(name, schema.plain(field.default), "default")


def text(settings: Settings, spec: ModelSpec | None) -> str:
    """Return one line per setting: `name: value  # origin`."""
    lines = (f"{row.name}: {_shown(row.value)}  # {row.origin}" for row in rows(settings, spec))
    return "\n".join(lines)


def as_json(settings: Settings, spec: ModelSpec | None) -> str:
    """Return one object: name -> value and origin."""
    return _shown({row.name: {"value": row.value, "origin": row.origin} for row in rows(settings, spec)})


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
