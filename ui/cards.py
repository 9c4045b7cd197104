"""The cards of the gallery and the large view of one: what they look like."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.jobs import Job
from engine.jobs.edits import edited
from engine.storage import MEDIA_TYPES, SUFFIXES
from ui import files
from ui.page import shortened
from ui.panel import seconds

MOSAIC = 4  # outputs that one card shows
Small = Callable[[Job, int], Path | None]
BULK = """
<div class="bulk line" role="toolbar" aria-label="What to do with the selected results">
<span class="count"></span>
<button type="button" class="x" data-ask="all">All</button>
<button type="button" class="x" data-ask="none">None</button>
<span class="rest"></span>
<label class="plain"><input type="checkbox"> without the recipe</label>
<button type="button" class="x" data-ask="download">Download</button>
<button type="button" class="x" data-ask="star">Star</button>
<button type="button" class="x stop" data-ask="delete">Delete</button>
</div>
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """One file of a job: an output, or a clip that was edited."""

    path: str  # empty when it lies in cloud storage alone
    media_type: str
    name: str

    @property
    def is_here(self) -> bool:
        return bool(self.path) and Path(self.path).is_file()


def shown_of(job: Job) -> list[Shown]:
    """Return the files of a job: its outputs, then edited clips. Of an expired job none is offered."""
    made = [Shown("" if job.expired else entry.location, entry.media_type, "") for entry in job.artifacts]
    cut = [] if job.expired else edited(job)
    return [
        *made,
        *(Shown(str(path), MEDIA_TYPES[SUFFIXES[path.suffix]], f"Edit {i}") for i, path in enumerate(cut, 1)),
    ]


def lacking(job: Job, index: int = 0) -> str:
    """Say why there is nothing to see of an output; empty when there should be something."""
    if job.status != "done":
        return "Cancelled" if job.status == "cancelled" else "Failed"
    if job.expired:
        return "The file has expired"
    if index >= len(job.artifacts):
        return "No file"
    made = job.artifacts[index]
    if made.location and not Path(made.location).is_file():
        return "The file is gone"
    return ""


def grid(jobs: Sequence[Job], small: Small, empty: str) -> str:
    """Return the cards of jobs, or words in place of them."""
    if not jobs:
        return f'<div class="blank muted">{html.escape(empty)}</div>'
    return f'{BULK}<ul class="cards">{"".join(card(job, small) for job in jobs)}</ul>'


def card(job: Job, small: Small) -> str:
    """Return the card of a job."""
    prompt = html.escape(shortened(job.request.prompt or "", 120) or "no prompt")
    star = "true" if job.starred else "false"
    error = html.escape(shortened((job.error or {}).get("message", ""), 160))
    return (
        f'<li class="card"><button type="button" class="open" data-open="{job.id}" data-index="0" title="{prompt}" '
        f'aria-label="Open: {prompt}">{mosaic(job, small)}{badge(job)}</button>'
        f'<label class="pick"><input type="checkbox" value="{job.id}" aria-label="Select: {prompt}"></label>'
        f'<button type="button" class="mark" data-star="{job.id}" aria-pressed="{star}" aria-label="Star"></button>'
        f'<div class="under">{prompt}</div>{f"<div class=wrong>{error}</div>" if error else ""}</li>'
    )


def mosaic(job: Job, small: Small) -> str:
    """Return the first outputs of a job, small, side by side."""
    count = max(1, min(len(job.artifacts), MOSAIC))
    places = "".join(place(job, index, small) for index in range(count))
    return f'<span class="mosaic n{count}">{places}</span>'


def place(job: Job, index: int, small: Small) -> str:
    """Return one output, small; one that has no small picture yet is marked, so that the browser asks for it."""
    why = lacking(job, index)
    if why:
        return f'<span class="gone">{why}</span>'
    path = small(job, index)
    if path is None:
        return f'<span class="wait" data-small="{job.id} {index}"></span>'
    return f'<span><img src="{files.url(path)}" alt="" loading="lazy"></span>'


def badge(job: Job) -> str:
    """Return what a card says over its picture: how many, how long."""
    parts = []
    if len(job.artifacts) > 1:
        parts.append(f"{len(job.artifacts)}")
    first = job.artifacts[0] if job.artifacts else None
    if first is not None and first.frames > 1:
        parts.append("▶ " + (seconds(first.frames / first.fps) if first.fps else f"{first.frames} frames"))
    return f'<span class="badge">{" · ".join(parts)}</span>' if parts else ""


def large(job: Job, index: int, small: Small) -> str:
    """Return one file of a job as large as there is room, above the others of the job."""
    found = shown_of(job)
    strip = "".join(_choice(job, i, entry, index, small) for i, entry in enumerate(found)) if len(found) > 1 else ""
    picture = _picture(job, index, found[index] if index < len(found) else None)
    return f'<div class="large">{picture}</div>{f"<div class=others>{strip}</div>" if strip else ""}'


def _picture(job: Job, index: int, entry: Shown | None) -> str:
    if job.error is not None:
        return f'<div class="line bad" role="alert">{html.escape(job.error.get("message", "") or "It failed.")}</div>'
    if entry is None or not entry.is_here:
        stored = entry is not None and not entry.path and not job.expired
        words = "The file is in cloud storage; Download fetches it." if stored else lacking(job, index) + "."
        return f'<div class="blank muted">{words} Its settings are still here.</div>'
    return player(entry, (job.request.prompt or "").strip())


def player(entry: Shown, alt: str) -> str:
    """Return a file as large as there is room: a clip plays by itself, without its sound, again and again."""
    address = html.escape(files.url(entry.path))
    told = html.escape(alt)
    if entry.media_type == "video/mp4":
        return f'<video src="{address}" aria-label="{told or "Clip"}" controls autoplay loop muted playsinline></video>'
    return f'<a href="{address}" target="_blank" title="Open in full size"><img src="{address}" alt="{told}"></a>'


def _choice(job: Job, index: int, entry: Shown, chosen: int, small: Small) -> str:
    current = ' aria-current="true"' if index == chosen else ""
    edit = index >= len(job.artifacts)
    inside = f'<span class="gone">{entry.name}</span>' if edit else place(job, index, small)
    label = entry.name or f"Output {index + 1}"
    return f'<button type="button" data-index="{index}" aria-label="{label}"{current}>{inside}</button>'
