"""All sources of settings in their order: built-in < model < environment < recipe < config file < flags."""

from __future__ import annotations

import logging
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from engine import env, schema
from engine.errors import ModelError, SgdiffError, UsageError
from engine.types import Request
from sgdiff_app import files, flags, variables
from sgdiff_app.layers import Entry, Layer, merge, nested
from sgdiff_app.options import ServerOptions
from sgdiff_app.settings import NOT_FLAGS, Path, find, lookup, table, used_by
from sgdiff_app.values import from_file, switch

T = TypeVar("T")
Notice = tuple[int, str]  # a logging level, and what to say once logging is set up


@dataclass(frozen=True, slots=True)
class Settings:
    """Every value that was set, with its origin; `noun` builds a settings dataclass from them."""

    command: str
    entries: Mapping[Path, Entry]
    notices: tuple[Notice, ...] = ()
    recipe: Mapping[str, Any] | None = None

    def noun(self, cls: type[T]) -> T:
        """Return the values of one settings dataclass; what was not set keeps its default."""
        found: dict[str, Any] = {}
        described: type = cls
        for name, field in schema.fields(described).items():
            if described is Request and name in NOT_FLAGS:
                continue
            inner = nested(self.entries, name)
            if inner:
                found[name] = field.group(**inner) if field.group is not None else inner
            elif (name,) in self.entries:
                found[name] = self.entries[name,].value
        return cls(**found)

    def require_available(self) -> None:
        """Raise NotAvailable for the first set value that this build does not have yet."""
        env.require_available()
        for path, entry in self.entries.items():
            setting = table()[path[0]]
            if not used_by(self.command, setting):
                continue
            owner, name, value = setting.owners[0], path[0], entry.value
            if setting.field.group is not None:
                owner, name = setting.field.group, path[1]
            elif len(path) > 1:
                value = {path[-1]: value}
            schema.require_available(owner, name, value, entry.where)

    def explain(self, error: SgdiffError) -> None:
        """Let an error that starts with a setting's name say where its value came from, unless it was typed."""
        name, colon, rest = error.message.partition(": ")
        target = lookup(name.removeprefix("--"))
        entry = self.entries.get(target.path) if colon and target is not None else None
        if entry is not None and entry.origin in ("env", "file"):
            error.message = f"{entry.where}: {rest}"
        model = self.entries.get(("model_path",))
        if (
            isinstance(error, ModelError)
            and model is not None
            and model.origin == "recipe"
            and name == model.value
            and "/" not in name
        ):
            error.message += "; say with --model-path where the model is that made the file"
        if error.code == "lora_file_not_found" and self.recipe is not None and ("lora_path",) not in self.entries:
            error.message += "; the file was made with this LoRA: say with --lora-path where it is"
        error.args = (error.message,)


def load(argv: Sequence[str], command: str) -> Settings:
    """Read flags, config file, recipe and environment. Raises UsageError; loads no model."""
    typed = flags.parse(argv, command)
    environment, notices = variables.read()
    layers = [environment]
    config = merge((environment, typed)).get(("config",))
    if config is not None:
        layers.append(read_file(config.value, config.where, command, notices))
    source = merge((*layers, typed)).get(("from_file",))
    made_by = None
    if source is not None and command == "generate":
        stronger = {path[0] for path in merge((*layers[1:], typed))}
        replayed, made_by = _recipe(source.value, stronger)
        layers.insert(1, replayed)
    entries = merge((*layers, typed))
    for name in (made_by or {}).get("inputs", {}):
        if (name,) not in entries:
            message = f"--from-file: the file was made with an input that it does not hold; give {name} again"
            raise UsageError(message, code="missing_parameter", param=name)
    if command not in ("serve", "desktop"):
        ignored = [entry.where for path, entry in entries.items() if table()[path[0]].owners == (ServerOptions,)]
        if ignored:
            notices.append((logging.DEBUG, f"settings of the server, ignored here: {', '.join(ignored)}"))
    return Settings(command, entries, tuple(notices), made_by)


def read_file(
    path: str, where: str, command: str, notices: list[Notice] | None = None, only: Collection[str] | None = None
) -> Layer:
    """Return the settings in a config file, or some of them. Raises UsageError; `notices` takes what is worth saying.

    With `only`, other keys are neither read nor checked.
    """
    layer, ignored = Layer("file"), []
    for name, value in files.read(path, where).items():
        key = str(name)
        if only is not None and ((known := lookup(key)) is None or known.setting.name not in only):
            continue
        place = f"{path}: {key}"
        if key == "config" and value is not None:
            raise UsageError(f"{place}: a config file cannot name another one", code="unknown_parameter")
        target = find(key, place, "key")
        if not used_by(command, target.setting) and ServerOptions not in target.setting.owners:
            ignored.append(key)
            continue
        if target.shorthand is not None and value is not None:
            value = target.shorthand.on if switch(value, place) else target.shorthand.off
        single = Layer("file")
        single.add(target, from_file(target.field, value, place), place)
        for found, entry in single.entries.items():
            if found in layer.entries:
                raise UsageError(f"{entry.where}: the same setting as {layer.entries[found].where}", param=key)
        layer.entries.update(single.entries)
    if ignored and notices is not None:
        notices.append((logging.INFO, f"{path}: settings of 'generate', ignored here: {', '.join(ignored)}"))
    return layer


def _recipe(path: str, given: Container[str]) -> tuple[Layer, Mapping[str, Any]]:
    """Read what a file was made with, but for the settings that a stronger source gives."""
    from engine import media, recipe  # only for a replay

    made_by = media.read_recipe(path)
    layer = Layer("recipe")
    for name, value in recipe.settings(made_by, given).items():
        place = f"{path}: {name}"
        layer.add(find(name, place, "setting"), value, place)
    return layer, made_by
