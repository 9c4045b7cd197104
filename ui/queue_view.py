"""The queue of the System tab, the device's memory, and where the time of the last jobs went."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from engine.errors import SgdiffError
from engine.jobs import Job
from ui.desk import Desk
from ui.models import press
from ui.page import shortened
from ui.panel import seconds, stage_words

SHOWN = 20  # jobs in the chart
LISTED = 50  # jobs in the list
COLOURS = ("#6366f1", "#0ea5e9", "#10b981", "#f59e0b", "#ec4899", "#8b5cf6", "#14b8a6", "#f97316")
EMPTY = '<div class="line muted">Nothing is waiting.</div>'
WIDTH, HEIGHT = 400, 80  # of the line of steps, in its own units


def queue(desk: Desk) -> str:
    """Return the list of what runs and waits, of all windows and of the API."""
    jobs = desk.unfinished()
    waiting = [job for job in jobs if job.status == "queued"]
    rows = [_row(desk, job, waiting) for job in jobs[:LISTED]]
    more = f'<div class="line muted">and {len(jobs) - LISTED} more</div>' if len(jobs) > LISTED else ""
    return f'<ul class="queue">{"".join(rows)}</ul>{more}' if rows else EMPTY


def _row(desk: Desk, job: Job, waiting: Sequence[Job]) -> str:
    prompt = html.escape(shortened(job.request.prompt or "") or "no prompt")
    source = "page" if job.notes.get("door") == "ui" else "API"
    eta = desk.queue.eta_s(job)
    left = f", {seconds(eta)} left" if eta is not None else ""
    place = waiting.index(job) if job in waiting else -1
    state = "cancelling" if job.cancelled else f"{job.percent} %{left}" if place < 0 else _place(place)
    buttons = [] if job.cancelled else [press("cancel", job.id, "Cancel", "Cancel this job")]
    if 0 <= place < len(waiting) - 1:
        buttons.insert(0, press("later", job.id, "↓", "Later"))
    if place > 0:
        buttons.insert(0, press("sooner", job.id, "↑", "Sooner"))
    if place > 1:
        buttons.insert(0, press("next", job.id, "Next"))
    told = f'<span class="muted">{source}, {html.escape(job.model)}</span><span class="muted">{state}</span>'
    bar = f'<div class="bar"><div style="width:{job.percent}%"></div></div>' if place < 0 else ""
    return f'<li><span class="what">{prompt}</span>{told}<span class="tools">{"".join(buttons)}</span>{bar}</li>'


def _place(place: int) -> str:
    return "next" if place == 0 else f"{place} before it"


class Memory:
    """What the worker tells of its device; it answers between two steps, so nobody waits for it."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.asked: Future[dict[str, Any]] | None = None
        self.told: Mapping[str, Any] | None = None

    def view(self) -> str:
        """Return a bar of what was told last, and ask again."""
        if self.asked is not None and self.asked.done():
            try:
                self.told = self.asked.result()["result"]
            except SgdiffError:
                self.told = None
            self.asked = None
        if self.desk.queue.health != "ready":
            self.told = None
        elif self.asked is None:
            self.asked = self.desk.queue.call("memory")
        return memory(self.told) if self.told else '<div class="line muted">Known once the model is loaded.</div>'


def memory(told: Mapping[str, Any]) -> str:
    """Return a bar of the memory of a device."""
    total, free = float(told.get("total_mb") or 0), float(told.get("free_mb") or 0)
    own = float(told.get("reserved_mb") or told.get("allocated_mb") or 0)
    peak = float(told.get("peak_reserved_mb") or told.get("peak_allocated_mb") or 0)
    name = str(told.get("name") or told.get("device") or "")
    used = max(0.0, total - free)
    own = min(own, used)
    parts = [f"{_gb(used)} of {_gb(total)} used", f"{_gb(own)} by the model"]
    parts += [f"{_gb(peak)} at the peak"] if peak else []
    widths = [round(100 * share / total, 1) if total else 0 for share in (own, used - own)]
    bars = f'<i style="width:{widths[0]}%;background:{COLOURS[0]}"></i><i style="width:{widths[1]}%" class="rest"></i>'
    words = html.escape(" · ".join([name, *parts]))
    return f'<div class="stack">{bars}</div><div class="line muted">{words}</div>'


def _gb(megabytes: float) -> str:
    return f"{megabytes / 1000:.1f} GB"


def timings(jobs: Sequence[Job]) -> str:
    """Return the chart of jobs by stage, the newest first, and the steps of the newest."""
    timed = [job for job in jobs if job.stages][:SHOWN]
    if not timed:
        return '<div class="line muted">Make something, and this shows where its time went.</div>'
    longest = max(sum(job.stages.values()) for job in timed) or 1.0
    colours = colours_of(timed)
    rows = [_timed(job, longest, colours) for job in timed]
    legend = "".join(f'<span><i style="background:{colour}"></i>{html.escape(stage_words(name))}</span>'
                     for name, colour in colours.items())  # fmt: skip
    return f'<div class="legend">{legend}</div><div class="chart">{"".join(rows)}</div>{steps(timed[0])}'


def colours_of(jobs: Sequence[Job]) -> dict[str, str]:
    """Return a colour for each stage, in the order in which they come."""
    names = dict.fromkeys(name for job in jobs for name in job.stages)
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def _timed(job: Job, longest: float, colours: Mapping[str, str]) -> str:
    bars = "".join(
        f'<i style="width:{100 * spent / longest:.2f}%;background:{colours[name]}" '
        f'title="{html.escape(stage_words(name))}: {seconds(spent / 1000)}"></i>'
        for name, spent in job.stages.items()
    )
    prompt = html.escape(shortened(job.request.prompt or "no prompt", 40))
    total = seconds(sum(job.stages.values()) / 1000)
    return f'<span class="what">{prompt}</span><div class="stack">{bars}</div><span class="muted">{total}</span>'


def steps(job: Job) -> str:
    """Return a line of how long each step of a job took."""
    times = job.steps_ms
    if len(times) < 2:
        return ""
    highest = max(times) or 1.0
    points = " ".join(
        f"{WIDTH * i / (len(times) - 1):.1f},{HEIGHT - (HEIGHT - 4) * value / highest:.1f}"
        for i, value in enumerate(times)
    )
    typical = sorted(times)[len(times) // 2]
    words = f"{len(times)} steps of the last job: {_ms(typical)} each, the longest {_ms(highest)}"
    return (
        f'<svg class="steps" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{words}"><polyline points="{points}"></polyline></svg><div class="line muted">{words}</div>'
    )


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"
