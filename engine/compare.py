"""Grids of pictures that differ in one or two settings: values of an axis, cells, and the whole as one PNG."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import schema
from engine.errors import UsageError, listed, shown
from engine.types import Request

if TYPE_CHECKING:
    from PIL import Image

MOST = 64  # cells of a grid
PROMPT, LORA = "prompt", "lora"  # axes that are no plain value of a field: words of the prompt, the adapters' strength
SIDE, EDGE = 512, 32  # of a cell in the PNG, at most, and of the space for labels
NUMBER = r"-?\d+(?:\.\d+)?"
SPAN = re.compile(rf"({NUMBER})\s*-\s*({NUMBER})(?:\s*\(\s*\+?({NUMBER})\s*\))?")
FIELDS = schema.fields(Request)


@dataclass(frozen=True, slots=True)
class Axis:
    """One setting and the values that it takes; of the prompt, `values` are words, of which the first is in it."""

    name: str
    values: tuple[Any, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The values in words."""
        return tuple(f"{value:g}" if isinstance(value, float) else str(value) for value in self.values)


def axis(name: str, text: str) -> Axis:
    """Read the values of an axis, such as "4, 8, 12", "1-10 (+3)" or "house > castle, hut". Raises UsageError."""
    if name == PROMPT:
        return Axis(name, tuple(_words(text)))
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UsageError(f"{name}: needs values, such as {_example(name)}", param=name)
    choices = () if name == LORA else FIELDS[name].choices
    found = [_choice(name, part, choices) for part in parts] if choices else [*_numbers(name, parts)]
    return Axis(name, tuple(dict.fromkeys(found)))


def _example(name: str) -> str:
    return "'0.5, 1'" if name == LORA else "'4, 8, 12' or '1-10 (+3)'"


def _choice(name: str, part: str, choices: Sequence[Any]) -> Any:
    known = {str(choice): choice for choice in choices}
    if part not in known:
        raise UsageError(f"{name}: must be one of {listed(known)}; got '{shown(part)}'", param=name)
    return known[part]


def _numbers(name: str, parts: Sequence[str]) -> Iterator[float]:
    whole = name != LORA and (name == "seed" or FIELDS[name].kind == "int")
    for part in parts:
        span = SPAN.fullmatch(part)
        if span is None and re.fullmatch(NUMBER, part) is None:
            message = f"{name}: must be numbers with commas between, such as {_example(name)}; got '{shown(part)}'"
            raise UsageError(message, param=name)
        if whole and "." in part:
            raise UsageError(f"{name}: must be whole numbers, got '{shown(part)}'", param=name)
        kind = int if whole else float
        if span is None:
            yield kind(part)
            continue
        low, high, step = kind(span[1]), kind(span[2]), kind(span[3] or 1)
        if step <= 0 or high < low:
            raise UsageError(f"{name}: must go up, such as '1-10 (+3)'; got '{shown(part)}'", param=name)
        count = math.floor((high - low) / step + 1e-9) + 1
        _require_few(count)
        yield from (kind(round(low + i * step, 9)) for i in range(count))


def _words(text: str) -> Iterator[str]:
    search, arrow, rest = text.partition(">")
    words = [search.strip(), *(word.strip() for word in rest.split(",") if word.strip())]
    if not arrow or not words[0] or len(words) < 2:
        raise UsageError(f"prompt: must be 'word > other, other', such as 'house > castle'; got '{shown(text)}'",
                         param=PROMPT)  # fmt: skip
    yield from dict.fromkeys(words)


def _require_few(count: int) -> None:
    if count > MOST:
        raise UsageError(f"the grid has {count} cells, and at most {MOST} are drawn; take fewer values")


def cells(values: Mapping[str, Any], across: Axis, down: Axis | None) -> list[list[dict[str, Any]]]:
    """Return the values of a request for each cell, by row. Raises UsageError, also for too many."""
    if down is not None and down.name == across.name:
        raise UsageError(f"{down.name}: both directions vary the same setting; choose another one", param=down.name)
    _require_few(len(across.values) * (len(down.values) if down is not None else 1))
    rows = [dict(values)] if down is None else [_changed(values, down, value) for value in down.values]
    return [[_changed(row, across, value) for value in across.values] for row in rows]


def _changed(values: Mapping[str, Any], along: Axis, value: Any) -> dict[str, Any]:
    if along.name == PROMPT:
        prompt, word = str(values.get("prompt") or ""), along.values[0]
        if word not in prompt:
            raise UsageError(f"prompt: has no '{shown(word)}' to replace", param=PROMPT)
        return {**values, "prompt": prompt.replace(word, value)}
    if along.name == LORA:
        adapters = values.get("loras") or ()
        if not adapters:
            raise UsageError("lora: no adapter is set; choose one in LoRA first", param="loras")
        return {**values, "loras": [{**adapter, "scale": value} for adapter in adapters]}
    return {**values, along.name: value}


def picture(across: Sequence[str], down: Sequence[str], files: Sequence[Sequence[Path | None]], path: Path) -> None:
    """Write a grid with its labels as a PNG; cells without a file stay empty."""
    from PIL import Image, ImageDraw, ImageFont

    found = [[_read(file) for file in row] for row in files]
    sizes = [entry.size for row in found for entry in row if entry is not None] or [(SIDE, SIDE)]
    width, height = (max(size[i] for size in sizes) for i in (0, 1))
    font = ImageFont.load_default(16)
    left = EDGE if not any(down) else max(EDGE, *(int(font.getlength(label)) + 16 for label in down))
    whole = Image.new("RGB", (left + width * len(across), EDGE + height * len(found)), "white")
    pen = ImageDraw.Draw(whole)
    for i, label in enumerate(across):
        pen.text((left + width * i + width // 2, EDGE // 2), label, "black", font, anchor="mm")
    for j, row in enumerate(found):
        pen.text((left // 2, EDGE + height * j + height // 2), down[j], "black", font, anchor="mm")
        for i, entry in enumerate(row):
            if entry is not None:
                whole.paste(entry, (left + width * i, EDGE + height * j))
    whole.save(path, "PNG")


def _read(file: Path | None) -> Image.Image | None:
    from PIL import Image

    if file is None:
        return None
    with Image.open(file) as image:
        small: Image.Image = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    return small
