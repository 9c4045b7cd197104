"""Widgets from the schema: labels, bounds, choices and help come from `Request`, values from the model's entry."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

import gradio as gr

from engine import schema
from engine.catalog import ModelSpec
from engine.errors import UsageError, shown
from engine.schema import Field, Ge, Gt, Le, Limit, MaxLen
from engine.types import CACHING, LORA, MAX_SEED, PROFILING, Request

FIELDS = schema.fields(Request)
# Shorter names than those of the fields, where a form has less room than a reference.
LABELS = {
    "num_inference_steps": "Steps",
    "guidance_scale": "Guidance",
    "guidance_scale_2": "Guidance, low-noise expert",
    "true_cfg_scale": "True CFG",
    "cfg_normalization": "CFG normalization",
    "num_outputs_per_prompt": "Count",
    "num_frames": "Frames",
    "fps": "Frames per second",
    "embed_recipe": "Recipe in the file",
    "x264_preset": "x264 preset",
}
# Fields that are no widget of a form: inputs and adapters have their own, the rest is for programs.
APART = ("image_path", "mask_path", "video_path", "loras", "generator_device", "attention_backend_override")
HIDDEN_TOPICS = (CACHING, LORA, PROFILING)
# How far a slider goes where the field's own bound is far away: at least this, and always twice the model's default.
REACH = {"num_inference_steps": 50, "guidance_scale": 10, "guidance_scale_2": 10, "true_cfg_scale": 10}
Pass = Callable[[Any], Any]  # a value on its way between a component and a field


def label(name: str) -> str:
    """Return what a form calls a field."""
    return LABELS.get(name) or name.replace("_", " ").capitalize()


def bounds(name: str) -> tuple[float | None, float | None]:
    """Return the lowest and the highest value of a field, None where there is no bound."""
    limits = list(_limits(FIELDS[name].annotation))
    low = next((limit.bound for limit in limits if isinstance(limit, Ge | Gt)), None)
    high = next((limit.bound for limit in limits if isinstance(limit, Le)), None)
    return low, high


def longest(name: str) -> int | None:
    """Return how many characters a text field may have."""
    return next((int(limit.bound) for limit in _limits(FIELDS[name].annotation) if isinstance(limit, MaxLen)), None)


def _limits(annotation: Any) -> Iterator[Limit]:
    if get_origin(annotation) is Annotated:
        yield from (entry for entry in get_args(annotation)[1:] if isinstance(entry, Limit))
        yield from _limits(get_args(annotation)[0])
    elif get_origin(annotation) is not None:
        for part in get_args(annotation):
            yield from _limits(part)


def used(name: str, spec: ModelSpec | None) -> bool:
    """Say whether a model reads a field, so that its widget is shown."""
    field = FIELDS[name]
    if spec is None:
        return not field.opt.optional and name not in ("num_frames", "fps")
    if name in spec.ignores:
        return False
    if name == "diffusers_kwargs":
        return bool(spec.arguments)
    if field.opt.optional:
        return name in spec.uses or (name in ("num_frames", "fps") and spec.is_video)
    if name == "x264_preset":
        return spec.is_video
    return True


def default(name: str, spec: ModelSpec | None) -> Any:
    """Return the value that a widget shows at first: the model's own, else the field's."""
    if spec is not None and spec.defaults.get(name) is not None:
        return spec.defaults[name]
    if name == "output_format":
        return "mp4" if spec is not None and spec.is_video else "png"
    return FIELDS[name].default


def is_offered(field: Field) -> bool:
    """Say whether forms have a widget for a field at all."""
    return field.opt.later is not True and field.name not in APART and field.opt.topic not in HIDDEN_TOPICS


@dataclass(slots=True)
class Entry:
    """One field of a form: its component, and how values pass between the two."""

    component: gr.components.Component
    read: Pass
    show: Pass
    settings: Callable[[ModelSpec | None, Any], dict[str, Any]]  # properties of the component, beside its value


class Form:
    """An ordered set of widgets by field name. Build it inside a layout; every widget is placed where it is made.

    `values` turns what an event handler is given, in the order of `components`, into plain values for
    `Desk.request`; `updates` and `defaults` return what a handler gives back for `components`.
    """

    def __init__(self, spec: ModelSpec | None) -> None:
        self.spec = spec
        self.entries: dict[str, Entry] = {}

    @property
    def components(self) -> list[gr.components.Component]:
        """The widgets, in the order of the form."""
        return [entry.component for entry in self.entries.values()]

    def __getitem__(self, name: str) -> Any:
        return self.entries[name].component

    def add(
        self,
        name: str,
        component: gr.components.Component,
        read: Pass = lambda value: value,
        show: Pass = lambda value: value,
        settings: Callable[[ModelSpec | None, Any], dict[str, Any]] = lambda spec, value: {},
    ) -> Any:
        """Have a component stand for a field: `read` makes the field's value of its value, `show` the way back.

        `settings(spec, value)` returns what else of the component depends on the model.
        """
        assert name in FIELDS and name not in self.entries, name
        self.entries[name] = Entry(component, read, show, settings)
        return component

    def widget(self, name: str, **settings: Any) -> Any:
        """Make and place the widget that the schema describes; `settings` are further ones of its component."""
        kind, read, show = _kind(FIELDS[name])
        given = properties(name, self.spec, default(name, self.spec)) | settings
        component = kind(value=show(default(name, self.spec)), label=label(name), **given)

        def anew(spec: ModelSpec | None, value: Any) -> dict[str, Any]:
            return properties(name, spec, value) | settings

        return self.add(name, component, read, show, anew)

    def rest(self, *, without: Iterable[str] = ()) -> None:
        """Make and place widgets for every field that the form lacks; hidden while the model does not use them."""
        for name, field in FIELDS.items():
            if name not in self.entries and name not in without and is_offered(field):
                self.widget(name)

    def values(self, given: Iterable[Any]) -> dict[str, Any]:
        """Return plain values by field; those that the model does not use are left out."""
        pairs = zip(self.entries.items(), given, strict=True)
        found = {name: entry.read(value) for (name, entry), value in pairs}
        return {name: value for name, value in found.items() if value is not None}

    def updates(self, values: Mapping[str, Any], spec: ModelSpec | None) -> list[Any]:
        """Return updates that show a request (see `schema.plain`), in place of missing fields the defaults."""
        return [
            gr.update(value=entry.show(value), **entry.settings(spec, value))
            for name, entry in self.entries.items()
            for value in (values[name] if name in values else default(name, spec),)
        ]

    def defaults(self, spec: ModelSpec | None, keep: Iterable[str] = ("prompt",)) -> list[Any]:
        """Return updates for another model; the fields to `keep` stay as they are."""
        updates = zip(self.entries, self.updates({}, spec), strict=True)
        return [gr.skip() if name in keep else update for name, update in updates]


def properties(name: str, spec: ModelSpec | None, value: Any) -> dict[str, Any]:
    """Return those properties of a field's component that the schema and the model decide."""
    field = FIELDS[name]
    found: dict[str, Any] = {"visible": used(name, spec), "info": field.opt.help}
    if field.choices and field.kind != "list":
        later = field.opt.later if isinstance(field.opt.later, tuple) else ()
        found["choices"] = [choice for choice in field.choices if choice not in later and fits(name, choice, spec)]
    elif field.kind in ("int", "float"):
        found |= _range(name, spec, value)
    elif field.kind == "str":
        found["max_length"] = longest(name)
    return found


def _range(name: str, spec: ModelSpec | None, value: Any) -> dict[str, Any]:
    """Return how far a number goes: the ends of a slider, a word beside what is typed."""
    low, high = bounds(name)
    limit = spec.limits.get(name) if spec is not None else None
    high = limit if limit is not None and (high is None or limit < high) else high
    if _kind(FIELDS[name])[0] is not gr.Slider:
        told = f"; {low:g} to {high:g}" if low is not None and high is not None else ""
        return {"info": f"{FIELDS[name].opt.help}{told}", "max_lines": 1}
    if name in REACH:
        reach = max(REACH[name], 2 * (default(name, spec) or 0), value or 0)
        high = reach if high is None else min(high, reach)
    return {"step": 1 if FIELDS[name].kind == "int" else 0.05, "minimum": low, "maximum": high}


def fits(name: str, choice: Any, spec: ModelSpec | None) -> bool:
    """Say whether one of a field's choices is one for what the model draws."""
    if name != "output_format" or spec is None:
        return True
    return (choice in ("mp4", "gif")) == spec.is_video


def _kind(field: Field) -> tuple[type[gr.components.Component], Pass, Pass]:
    """Return the component for a field, how its value is read, and how one is shown."""
    same: Pass = _same
    if field.kind == "bool":
        return gr.Checkbox, same, bool
    if field.choices and field.kind != "list":
        return gr.Dropdown, lambda value: value or None, same
    if field.kind in ("int", "float"):
        low, high = bounds(field.name)
        slides = field.name in REACH or (low is not None and high is not None and high - low <= 200)
        # A slider always has a value; one that stands for "the model's default" must be able to be empty.
        has_value = field.default is not None or field.name in REACH or field.name == "strength"
        return (
            (gr.Slider, _whole if field.kind == "int" else _same, _same) if slides and has_value else typed(field.name)
        )
    if field.kind == "map":
        return gr.Textbox, lambda value: _mapping(field.name, value), lambda value: _text(value)
    # An empty negative prompt is one; any other empty text asks for nothing.
    return (
        gr.Textbox,
        _same if field.name == "negative_prompt" else lambda value: value or None,
        lambda value: value or "",
    )


def typed(name: str) -> tuple[type[gr.components.Component], Pass, Pass]:
    """Return the component of a number that may be empty, how it is read, and how one is shown.

    It is a field of text: browsers would fill an empty one of numbers with 0.
    """
    number, noun = (schema.whole, "a whole number") if FIELDS[name].kind == "int" else (float, "a number")
    low, high = bounds(name)
    least = f" from {low:g}" if low is not None else ""
    reach = f"{least} to {high:g}" if high is not None else f"{least} up" if least else ""

    def read(text: Any) -> float | None:
        if text is None or not str(text).strip():
            return None
        try:
            value = number(str(text).strip())
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UsageError(f"{name}: must be {noun}{reach}, or empty; got '{shown(text)}'", param=name)
        return value

    def show(value: float | None) -> str:
        if not isinstance(value, float):
            return "" if value is None else str(value)
        short = f"{value:g}"
        return short if float(short) == value else str(value)

    return gr.Textbox, read, show


def _same(value: Any) -> Any:
    return value


def _whole(value: float | None) -> float | int | None:
    """Return what is a whole number as one: browsers know no other than floating point ones."""
    return int(value) if value is not None and float(value).is_integer() else value


def _mapping(name: str, text: str | None) -> Any:
    if not text or not text.strip():
        return None
    rule = f'{name}: must be JSON, such as {{"eta": 0.5}}'

    def refuse(constant: str) -> Any:
        raise UsageError(f"{rule}, whose numbers are finite; got {constant}", param=name)

    try:
        return json.loads(text, parse_int=schema.whole, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise UsageError(f"{rule}: {error}", param=name) from error
    except RecursionError as error:
        raise UsageError(f"{rule}; this is nested too deeply", param=name) from error


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if value else ""


def seeds(text: str | None) -> Any:
    """Read a seed, or several with commas between; None where one is to be drawn. Raises UsageError."""
    parts = [part.strip() for part in str(text or "").split(",") if part.strip()]
    if not parts or parts in (["-1"], ["random"]):
        return None
    if not all(part.isdecimal() for part in parts):
        message = f"seed: must be a whole number from 0 up, several with commas between, or empty; got '{shown(text)}'"
        raise UsageError(message, param="seed")
    found = [schema.whole(part) for part in parts]
    if max(found) > MAX_SEED:
        raise UsageError(f"seed: must be at most {MAX_SEED}, or empty; got '{shown(text)}'", param="seed")
    return found[0] if len(found) == 1 else found


def seed_text(value: Any) -> str:
    """Return what a form shows for a seed: a text, for browsers round large numbers."""
    if value is None:
        return ""
    return ", ".join(str(entry) for entry in (value if isinstance(value, list | tuple) else [value]))
