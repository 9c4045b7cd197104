"""One source of settings as a layer of checked values, and how layers are laid over each other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from engine import schema
from engine.errors import UsageError, shown, suggest
from sgdiff_app.settings import Path, Target, find, inside, table

Origin = Literal["cli", "file", "recipe", "env", "model", "default"]
# A setting given in one layer displaces these of the weaker layers; side by side in one layer they contradict.
EXCLUDES = {
    "prompt": ("prompt_path",),
    "prompt_path": ("prompt",),
    "output_file_path": ("output_path", "output_file_name"),
    "output_path": ("output_file_path",),
    "output_file_name": ("output_file_path",),
    "dit_cpu_offload": ("dit_layerwise_offload",),
    "dit_layerwise_offload": ("dit_cpu_offload",),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A checked value and where it came from; `where` is how a message names the place."""

    value: Any
    origin: Origin
    where: str


@dataclass(slots=True)
class Layer:
    """Values of one source by path; a map or group is kept key by key, so that layers merge in it."""

    origin: Origin
    entries: dict[Path, Entry] = field(default_factory=dict)

    def add(self, target: Target, value: Any, where: str) -> None:
        """Check and keep one value. None stands for absent."""
        if value is None:
            return
        if isinstance(value, Mapping) and target.field is not None and target.field.kind in ("map", "group"):
            self._spread(target, value, where)
        else:
            self._put(target.path, _checked(target, value, where), where)

    def _spread(self, target: Target, value: Mapping[str, Any], where: str) -> None:
        for key, inner in ((str(key), inner) for key, inner in value.items()):
            place = f"{where}.{key}"
            found = inside(target.setting, [*target.path[1:], key])
            if found is None:
                names = list(schema.fields(target.setting.field.group)) if target.setting.field.group else []
                raise UsageError(f"{place}: unknown key{suggest(key, names)}", code="unknown_parameter", param=key)
            if isinstance(inner, Mapping) and inner and found.field is None:
                self._free(found, inner, place)
            else:
                self.add(found, inner, place)

    def _free(self, target: Target, value: Mapping[str, Any], where: str) -> None:
        """Keep a map inside a free map key by key too."""
        for key, inner in value.items():
            deeper = Target(target.setting, (*target.path, str(key)), None, target.rank)
            if isinstance(inner, Mapping) and inner:
                self._free(deeper, inner, f"{where}.{key}")
            else:
                self.add(deeper, inner, f"{where}.{key}")

    def _put(self, path: Path, value: Any, where: str) -> None:
        for other in [known for known in self.entries if known != path and _overlap(known, path)]:
            del self.entries[other]
        self.entries[path] = Entry(value, self.origin, where)

    def finish(self) -> Layer:
        """Fill width and height from a size and refuse contradictions inside this layer. Returns the layer."""
        for name, others in EXCLUDES.items():
            for other in others:
                if (name,) in self.entries and (other,) in self.entries and self._active(name) and self._active(other):
                    first, second = self.entries[name,], self.entries[other,]
                    raise UsageError(f"{second.where}: excludes {first.where}; give one of them", param=other)
        size = self.entries.get(("size",))
        if size is not None:
            for name, value in zip(("width", "height"), dimensions(size.value, size.where), strict=True):
                typed = self.entries.get((name,))
                if typed is not None and typed.value != value:
                    raise UsageError(f"{size.where} {size.value} contradicts {typed.where} {typed.value}", param="size")
                self._put((name,), _checked(find(name, name, "flag"), value, size.where), size.where)
        return self

    def _active(self, name: str) -> bool:
        return self.entries[name,].value is not False


def dimensions(text: str, where: str) -> tuple[int, int]:
    """Return width and height of `WxH`."""
    found = re.fullmatch(r"([0-9]{1,18})x([0-9]{1,18})", text.lower())
    width, height = (int(number) for number in found.groups()) if found else (0, 0)
    if not (width and height):
        message = f"{where}: must be WIDTHxHEIGHT with positive integers, got '{shown(text)}'"
        raise UsageError(message, code="invalid_size", param="size")
    return width, height


def merge(layers: Iterable[Layer]) -> dict[Path, Entry]:
    """Lay layers over each other, weakest first."""
    merged: dict[Path, Entry] = {}
    for layer in layers:
        for path, entry in layer.finish().entries.items():
            displaced = EXCLUDES.get(path[0], ()) if entry.value is not False else ()
            for other in [known for known in merged if known[0] in displaced or _overlap(known, path)]:
                del merged[other]
            merged[path] = entry
    size = merged.get(("size",))
    if size is not None and size.value.lower() != f"{merged['width',].value}x{merged['height',].value}":
        del merged["size",]
    return merged


def nested(entries: Mapping[Path, Entry], name: str) -> dict[str, Any]:
    """Return what is kept below a map or group as one nested dict."""
    result: dict[str, Any] = {}
    for path, entry in entries.items():
        if path[0] != name or len(path) == 1:
            continue
        place = result
        for key in path[1:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = entry.value
    return result


def _overlap(known: Path, path: Path) -> bool:
    """Say whether one of two places lies inside the other."""
    short = min(len(known), len(path))
    return known[:short] == path[:short]


def _checked(target: Target, value: Any, where: str) -> Any:
    owner, name = target.setting.owners[0], target.setting.name
    group = table()[name].field.group
    if group is not None and len(target.path) > 1:
        return schema.check(group, target.path[-1], value, where)
    inner = target.path[1:]
    for key in reversed(inner):
        value = {key: value}
    value = schema.check(owner, name, value, where)
    for key in inner:
        value = value[key]
    return value
