"""The recipe of an output as people read it: a table of what was asked and what made it, and the JSON of it."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from engine import schema
from engine.jobs import Job
from ui.forms import FIELDS, label
from ui.panel import seconds

Row = tuple[str, str]
# What stands first, in this order; the other fields follow as the schema has them.
FIRST = ("prompt", "negative_prompt", "seed", "width", "height", "num_inference_steps", "guidance_scale")
COPY_JS = """
element.addEventListener('click', (event) => {
  if (event.target.closest('[data-copy]')) window.sgdiffCopy(element.querySelector('pre').textContent);
});
"""


def recipe_of(job: Job, index: int = 0) -> Mapping[str, Any]:
    """Return the recipe of an output; of a job that came to nothing, what it asked for."""
    return job.recipes[index] if index < len(job.recipes) else {"request": schema.plain(job.resolved)}


def view(job: Job, index: int = 0) -> str:
    """Return table and JSON; put `COPY_JS` on the component that shows them."""
    recipe = recipe_of(job, index)
    text = html.escape(json.dumps(recipe, ensure_ascii=False, indent=1))
    return (
        f'{table([*settings(recipe), *made_with(recipe, job), *history(job)])}<details class="json"><summary>Recipe as '
        f'JSON</summary><button type="button" class="x" data-copy>Copy</button><pre>{text}</pre></details>'
    )


def table(rows: Iterable[Row]) -> str:
    """Return rows of names and values."""
    lines = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows)
    return f'<table class="recipe">{"".join(lines)}</table>'


def settings(recipe: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the settings of a recipe that say something."""
    request = recipe.get("request") or {}
    for name in (*FIRST, *(name for name in FIELDS if name not in FIRST)):
        value = request.get(name)
        plain = value in (None, "", [], {}) or (name not in FIRST and value == FIELDS[name].default)
        if name in FIELDS and not plain and name not in ("loras", "num_outputs_per_prompt", "image_path", "mask_path"):
            yield label(name), said(value)


def said(value: Any) -> str:
    """Return a value in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def adapters(job: Job, recipe: Mapping[str, Any]) -> list[str]:
    """Return the adapters that an output was drawn with, with their strengths."""
    recorded = (recipe.get("engine") or {}).get("loras")
    entries = recorded if isinstance(recorded, list) else schema.plain(job.resolved.loras or job.loras)
    names = [(Path(str(e.get("path") or e.get("name") or "LoRA")).stem, e.get("scale", 1.0)) for e in entries]
    return [f"{name} × {scale:g}" for name, scale in names]


def made_with(recipe: Mapping[str, Any], job: Job) -> Iterator[Row]:
    """Yield what drew an output."""
    engine = recipe.get("engine") or {}
    yield "Model", str(engine.get("model") or job.model)
    if engine.get("revision"):
        yield "Revision", str(engine["revision"])
    found = adapters(job, recipe)
    if found:
        yield "LoRA", ", ".join(found)
    inputs = recipe.get("inputs") or {}
    for name, digests in inputs.items():
        yield label(name).removesuffix(" path"), ", ".join(f"sha256 {str(digest)[:12]}" for digest in digests)
    precisions = engine.get("precisions") or {}
    if precisions:
        yield "Precision", ", ".join(sorted({str(value) for value in precisions.values()}))
    for name in ("attention_backend", "device"):
        if engine.get(name):
            yield name.replace("_", " ").capitalize(), str(engine[name])
    versions = engine.get("versions") or {}
    if versions:
        yield "Versions", ", ".join(f"{name} {version}" for name, version in versions.items())


def history(job: Job) -> Iterator[Row]:
    """Yield when and how a job went."""
    yield "Asked", datetime.fromtimestamp(job.created_at).strftime("%Y-%m-%d %H:%M")
    if job.inference_s:
        yield "Drawing took", seconds(job.inference_s)
    if job.peak_memory_mb:
        yield "Peak memory", f"{job.peak_memory_mb:.0f} MB"
    yield "Job", job.id
