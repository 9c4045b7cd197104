"""Settings from elsewhere, of a recipe, another program or another model: made such that a form here can send them."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine import schema
from engine.catalog import ModelSpec
from engine.errors import UsageError, shown
from engine.lora import files, refs
from engine.types import MAX_SEED, LoraRef, Request
from ui.forms import FIELDS, bounds, default, fits, label, used

if TYPE_CHECKING:
    from ui.adapters import Adapters

INPUTS = ("image_path", "mask_path", "video_path")  # a form has places of their own for them
SIDES = ("width", "height")
TEXTS = ("prompt", "negative_prompt")
NEITHER = "names neither a file nor an adapter that is loaded"


@dataclass(slots=True)
class Fitted:
    """Values that a form can send, and a line for each thing that had to be changed or left out."""

    values: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def change(self, name: str, value: Any, why: str) -> None:
        """Put a value in place of one that cannot be sent."""
        old, self.values[name] = self.values[name], value
        self.notes.append(f"{label(name)}: {shown(_words(value))} in place of {shown(_words(old))}; {why}")

    def leave(self, name: str, why: str) -> None:
        """Leave a value out."""
        self.notes.append(f"{label(name)}: {shown(_words(self.values.pop(name)))} is left out; {why}")


def fitted(
    given: Mapping[str, Any],
    names: Container[str],
    spec: ModelSpec | None,
    *,
    max_pixels: int | None = None,
    adapters: Adapters | None = None,
) -> Fitted:
    """Return plain values of request fields for a form that has widgets for `names`.

    Of everything that the form and the model cannot take the nearest thing that they can, or nothing. Fitting twice
    changes no more. `max_pixels` replaces the model's own bound.
    """
    found = Fitted({name: value for name, value in given.items() if value is not None and name not in INPUTS})
    if "loras" in found.values and adapters is not None:
        found.values["loras"] = _loras(found.values["loras"], adapters, found.notes)
    for name in [name for name in found.values if name != "loras"]:
        _field(found, name, names, spec)
    _seed(found)
    if spec is not None:
        _words_of_the_model(found, spec)
        _arguments(found, spec)
        _frames(found, spec, max_pixels or spec.max_pixels)
        _sides(found, spec, max_pixels or spec.max_pixels)
        if "strength" in names and used("strength", spec):
            _strength(found, spec)
    return found


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _field(found: Fitted, name: str, names: Container[str], spec: ModelSpec | None) -> None:
    """Leave out what there is no widget for, and what it cannot show."""
    value = found.values[name]
    usual = value in ("", [], {}) or value in (default(name, spec), FIELDS[name].default)
    unused = spec is not None and not used(name, spec)
    if name not in names or unused:
        if usual:
            del found.values[name]
        else:
            found.leave(name, "this model does not use it" if unused else "nothing sets it here")
        return
    try:
        checked = schema.check(Request, name, value)
        schema.require_available(Request, name, checked)
    except UsageError as error:
        found.leave(name, error.message)
        return
    most = spec.limits.get(name) if spec is not None else None
    if most is not None and checked > most:
        found.change(name, most, "more is not possible with this model")
    elif not fits(name, value, spec):
        found.leave(name, f"this model draws {'clips' if spec is not None and spec.is_video else 'pictures'}")


def _seed(found: Fitted) -> None:
    """Have as many outputs as seeds, and none whose seed would be too large."""
    seed, count = found.values.get("seed"), found.values.get("num_outputs_per_prompt", 1)
    most = int(bounds("num_outputs_per_prompt")[1] or 1)
    if isinstance(seed, list | tuple):
        if len(seed) > most:
            found.change("seed", list(seed[:most]), f"{most} outputs at most")
        wanted = len(found.values["seed"])
        if not wanted:
            del found.values["seed"]
        elif wanted != count:
            found.values.setdefault("num_outputs_per_prompt", count)
            found.change("num_outputs_per_prompt", wanted, "one for each seed")
    elif isinstance(seed, int) and seed + count - 1 > MAX_SEED:
        found.change("num_outputs_per_prompt", MAX_SEED - seed + 1, "seeds end there")


def _words_of_the_model(found: Fitted, spec: ModelSpec) -> None:
    for name in TEXTS:
        text = str(found.values.get(name, ""))
        for word in spec.reserved:
            text = text.replace(word, "")
        if text != found.values.get(name, ""):
            found.change(name, text, "the model itself uses the words that are left out")


def _arguments(found: Fitted, spec: ModelSpec) -> None:
    """Leave out arguments that one of the model's pipelines does not take: which of them draws is known later."""
    given = found.values.get("diffusers_kwargs", {})
    known = set(spec.arguments).intersection(*(spec.variant_arguments.get(name, ()) for name in spec.variants))
    kept = {name: value for name, value in given.items() if name in known}
    if kept != given:
        found.change("diffusers_kwargs", kept, "the others are not arguments of this model")


def _frames(found: Fitted, spec: ModelSpec, bound: int) -> None:
    frames, stride = found.values.get("num_frames"), spec.frame_stride
    if frames is None:
        return
    area = (default("width", spec) or 1) * (default("height", spec) or 1)
    most = max(1, bound // area)
    if frames > most:
        found.change("num_frames", (most - 1) // stride * stride + 1, "more do not fit at the model's own size")
    elif (frames - 1) % stride:
        found.change(
            "num_frames",
            min(frames, most - 1) // stride * stride + 1,
            f"the model draws 1 and multiples of {stride} more",
        )


def _sides(found: Fitted, spec: ModelSpec, bound: int) -> None:
    """Have a size of no more pixels than the model may draw, of about the same shape."""
    if not any(name in found.values for name in (*SIDES, "num_frames")):
        return
    frames = found.values.get("num_frames", default("num_frames", spec)) or 1
    sides = [found.values.get(name, default(name, spec)) for name in SIDES]
    if None in sides or sides[0] * sides[1] * frames <= bound:
        return
    least, area = spec.multiple, max(spec.multiple**2, bound // frames)
    # Of whole numbers of any length: what a recipe says may be larger than what a float holds.
    short = max(least, _down(math.isqrt(area * min(sides) // max(sides)), least))
    long = max(least, _down(area // short, least))
    for name, side in zip(SIDES, (long, short) if sides[0] >= sides[1] else (short, long), strict=True):
        found.values.setdefault(name, default(name, spec))
        if found.values[name] != side:
            found.change(name, side, f"{bound} pixels at most")


def _down(side: int, step: int) -> int:
    return side // step * step


def _strength(found: Fitted, spec: ModelSpec) -> None:
    """Leave a stock pipeline a step to make."""
    strength = found.values.get("strength", default("strength", spec))
    steps = found.values.get("num_inference_steps", default("num_inference_steps", spec))
    if spec.arguments and strength is not None and steps and int(steps * strength) < 1:
        found.values["strength"] = strength
        found.change("strength", math.ceil(1000 / steps) / 1000, "less leaves the model no step")


# Adapters


def _loras(given: Any, adapters: Adapters, notes: list[str]) -> list[dict[str, Any]]:
    """Return those of a set that can be used here, each once; `notes` takes a line for each other."""
    found = list[dict[str, Any]]()
    for i, entry in enumerate(given if isinstance(given, Sequence) and not isinstance(given, str) else ()):
        called = _called(entry, i)
        try:
            usable = _usable(entry, adapters)
            strong = usable.get("scale", 1.0)
            if abs(strong) > refs.STRONGEST:
                usable["scale"] = math.copysign(refs.STRONGEST, strong)
                notes.append(f"{called}: strength {usable['scale']:g} in place of {strong:g}; stronger is not possible")
            refs.check(tuple(_refs([*found, usable])))
            adapters.check(Request(loras=tuple(_refs([usable]))))
        except UsageError as error:
            notes.append(f"{called}: left out; {error.message}")
        else:
            found.append(usable)
    return found


def _called(entry: Any, i: int) -> str:
    named = isinstance(entry, Mapping) and (entry.get("path") or entry.get("name"))
    return f"LoRA {shown(named) if named else i + 1}"


def _refs(entries: Iterable[Mapping[str, Any]]) -> Iterable[LoraRef]:
    return (schema.read(LoraRef, entry) for entry in entries)


def _usable(entry: Any, adapters: Adapters) -> dict[str, Any]:
    """Return the plain reference of an adapter that can be drawn with. Raises UsageError."""
    if not isinstance(entry, Mapping):
        raise UsageError(NEITHER)
    found: dict[str, Any] = schema.plain(schema.read(LoraRef, entry))
    if not found.get("path"):
        card = adapters.find(found.get("name"))
        if card is not None:
            found |= card.entry.named
        elif not found.get("name"):
            raise UsageError(NEITHER)
        elif all(known["name"] != found["name"] for known in adapters.server):
            raise UsageError("no adapter of this name is here")
    found = (adapters.here([found]) or [found])[0]
    path = found.get("path")
    if path and not files.is_remote(path) and not files.is_here(path):
        raise UsageError("no such file is here")
    return found
