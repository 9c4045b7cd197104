"""Results as clips: a player with a strip of frames, and what is made of clips: parts, joined ones, GIF files."""

from __future__ import annotations

import asyncio
import base64
import functools
import html
import io
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from engine import editing
from engine.errors import NotFound, SgdiffError, UsageError
from engine.jobs import Job, edits
from ui import cards, files
from ui.desk import OUTDATED, Snapshot, output_of
from ui.page import QUIET, shortened
from ui.panel import SHOWN, Item, Items, Panel, seconds
from ui.say import told

if TYPE_CHECKING:
    from PIL import Image

FRAMES = 8  # of a strip
STRIP_HEIGHT = 72
STEP_S = 0.05  # of the sliders that cut
LONGEST_FADE_S = 2.0
CUTS, WRITES, JOINS = "Cutting the clip…", "Writing the GIF…", "Joining the clips…"
# A small clip is chosen; which one is, is shown at once.
CHOOSE_JS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-index]');
  if (!button) return;
  element.querySelectorAll('[aria-current]').forEach((other) => other.removeAttribute('aria-current'));
  button.setAttribute('aria-current', 'true');
  trigger('select', {index: Number(button.dataset.index), value: null});
});
"""
# The player stops at a frame that is clicked.
SEEK_JS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-index]');
  if (!button) return;
  const video = element.closest('.outcome').querySelector('.player video');
  if (video && video.duration) {
    video.pause();
    video.currentTime = Number(button.dataset.at) * video.duration * 0.999;
  }
  trigger('select', {index: Number(button.dataset.index), value: null});
});
"""


class ClipPanel(Panel):
    """A panel whose results are clips; those that were edited are among them, see `cards.shown_of`."""

    def _place(self) -> gr.components.Component:
        self.player = gr.HTML("", elem_classes="player large", padding=False)
        self.strip = gr.HTML("", js_on_load=SEEK_JS, elem_classes="strip", padding=False)
        return gr.HTML("", js_on_load=CHOOSE_JS, elem_classes="results", padding=False, visible=False)

    @property
    def about(self) -> list[Any]:
        """The components that tell of the chosen clip, see `told_of`."""
        return [*super().about, self.player]

    def outputs(self, snapshot: Snapshot) -> list[Item]:
        """Return the clips that are there, the newest first."""
        found = [
            (Path(entry.path).stat().st_mtime, (job, i, entry.path))
            for job in snapshot.of_tab(self.tab)
            for i, entry in enumerate(cards.shown_of(job))
            if entry.is_here
        ]
        return [item for _, item in sorted(found, key=lambda pair: pair[0], reverse=True)][:SHOWN]

    def filled(self, found: Sequence[Item]) -> Any:
        """Return the update of the row of small clips; one alone needs none."""
        return gr.update(value=choices(found), visible=len(found) > 1)

    def untold(self) -> list[Any]:
        """Return the updates of `about` while there is no clip."""
        return [*super().untold(), ""]

    def told_of(self, job: Job, index: int) -> list[Any]:
        """Return the updates of `about` for a clip. Raises NotFound."""
        output_of(job, index)
        entry = cards.shown_of(job)[index]
        first, *rest = super().told_of(job, min(index, len(job.artifacts) - 1))
        if index >= len(job.artifacts):
            first, rest[1] = facts(job, entry), gr.update(value=entry.path)
        return [first, *rest, cards.player(entry, (job.request.prompt or "").strip())]

    def which(self, job_id: str, index: int) -> tuple[str, edits.Which]:
        """Return how the engine calls a clip. Raises NotFound."""
        job, made = self.page.desk.output(job_id, index)
        return job_id, index if index < len(job.artifacts) else Path(made.location).name

    def _connect_tabs(self) -> None:
        """Leave "use as input" to whoever knows what the model takes."""


def choices(found: Sequence[Item]) -> str:
    """Return the small clips of the row, the first of them chosen."""
    buttons = []
    for i, (job, index, path) in enumerate(found):
        name, current = html.escape(title(job, index)), "" if i else ' aria-current="true"'
        buttons.append(
            f'<button type="button" data-index="{i}" title="{name}" aria-label="{name}"{current}>'
            f"{_small(path)}</button>"
        )
    return f'<div class="others">{"".join(buttons)}</div>'


def _small(path: str) -> str:
    address = html.escape(files.url(path))
    if path.endswith(".gif"):
        return f'<img src="{address}" alt="">'
    return f'<video src="{address}" preload="metadata" muted playsinline></video>'


def title(job: Job, index: int) -> str:
    """Return what a clip is called."""
    entry = cards.shown_of(job)[index]
    return f"{shortened(job.request.prompt or 'no prompt', 40)}{f' · {entry.name}' if entry.name else ''}"


def facts(job: Job, entry: cards.Shown) -> str:
    """Return lines about an edited file."""
    path = Path(entry.path)
    parts = [entry.name, "GIF" if entry.media_type == "image/gif" else "MP4", f"{path.stat().st_size / 1e3:.0f} kB"]
    if entry.media_type == "video/mp4":
        clip = editing.probe(path)
        parts[2:2] = [seconds(clip.duration_s), f"{clip.width} × {clip.height}"]
    prompt = html.escape((job.request.prompt or "").strip())
    return f'<div class="line muted">{html.escape(" · ".join(parts))}</div><div class="said">{prompt}</div>'


@functools.lru_cache(maxsize=32)
def strip(path: str, use: bool) -> str:
    """Return frames of a clip, side by side; `use` says whether one that is clicked becomes an input."""
    found = editing.frames(Path(path), FRAMES, STRIP_HEIGHT)
    word = "Use this frame as the first one" if use else "Show this frame"
    buttons = (
        f'<button type="button" data-index="{i}" data-at="{i / max(1, len(found) - 1):.4f}" title="{word}" '
        f'aria-label="{word}: {i + 1} of {len(found)}"><img src="{_data(picture)}" alt=""></button>'
        for i, picture in enumerate(found)
    )
    return f'<div class="frames">{"".join(buttons)}</div>'


def _data(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def frame(path: str, index: int) -> Image.Image:
    """Return a frame of the strip in full size; -1 is the last. Raises InputError, OutputError, NotFound."""
    found = editing.frames(Path(path), FRAMES, editing.probe(Path(path)).height)
    if not -1 <= index < len(found):  # the strip was that of another clip
        raise NotFound(OUTDATED)
    return found[index]


class ClipTools:
    """What is made of finished clips. Build it below the panel."""

    def __init__(self, panel: ClipPanel, takes_image: Callable[[], bool]) -> None:
        self.panel, self.takes_image = panel, takes_image
        with gr.Accordion("Trim, join, GIF", open=False, visible=False, elem_classes="clip-tools") as self.box:
            with gr.Column() as self.cut:
                with gr.Row(equal_height=True):
                    self.start = gr.Slider(0, 1, 0, step=STEP_S, label="From second", min_width=140)
                    self.end = gr.Slider(0, 1, 1, step=STEP_S, label="To second", min_width=140)
                    self.trim = gr.Button("Trim", elem_classes="icon", min_width=88, scale=0)
                with gr.Row(equal_height=True):
                    self.fps = gr.Slider(
                        1, editing.MOST_GIF_FPS, editing.GIF_FPS, step=1, label="GIF fps", min_width=140
                    )
                    self.width = gr.Slider(
                        16, editing.GIF_WIDTH, editing.GIF_WIDTH, step=2, label="GIF width", min_width=140
                    )
                    self.gif = gr.Button("Make GIF", elem_classes="icon", min_width=88, scale=0)
            with gr.Row(equal_height=True):
                self.clips = gr.Dropdown(
                    [], value=[], multiselect=True, label="Clips to join, in this order", min_width=140,
                    max_choices=editing.MOST_CLIPS,
                )  # fmt: skip
                self.fade = gr.Slider(0, LONGEST_FADE_S, 0, step=STEP_S, label="Crossfade, s", min_width=140)
                self.join = gr.Button("Join", elem_classes="icon", min_width=88, scale=0)
            self.note = gr.HTML("", elem_classes="busy", padding=False)
        self._connect()

    @property
    def shown(self) -> list[Any]:
        """What depends on the chosen clip, see `show`."""
        return [self.panel.strip, self.box, self.cut, self.start, self.end, self.fps, self.width]

    def show(self, items: Items, chosen: int) -> list[Any]:
        """Return updates of `shown` for a clip; a GIF file, or none, has no frames and no length."""
        try:
            path = self.panel.path_at(items, chosen) if items else ""
            if not path.endswith(".mp4"):
                return ["", gr.update(visible=bool(items)), gr.update(visible=False), *[gr.skip()] * 4]
            clip = editing.probe(Path(path))
            frames = strip(path, self.takes_image())
        except SgdiffError:  # what was deleted a moment ago, or is damaged, is told where it is used
            return ["", *[gr.skip()] * 6]
        length = max(STEP_S, round(clip.duration_s, 2))
        fps, width = (
            min(editing.MOST_GIF_FPS, max(2, round(clip.fps))),
            max(18, min(editing.MOST_GIF_WIDTH, clip.width)),
        )
        return [
            frames,
            gr.update(visible=True),
            gr.update(visible=True),
            gr.update(maximum=length, value=0),
            gr.update(maximum=length, value=length),
            gr.update(maximum=fps, value=min(fps, editing.GIF_FPS)),
            gr.update(maximum=width, value=min(width, editing.GIF_WIDTH)),
        ]

    def offer(self, items: Items, picked: Sequence[str] | None) -> Any:
        """Return the update of the clips to join; those that were picked stay so while they are there."""
        found = list[tuple[str, str]]()
        for job_id, index in items:
            with suppress(NotFound):  # what is gone is offered no more
                job, made = self.panel.page.desk.output(job_id, index)
                if made.location.endswith(".mp4"):
                    found.append((f"{len(found) + 1}. {title(job, index)}", f"{job.id} {index}"))
        known = {value for _, value in found}
        return gr.update(choices=found, value=[entry for entry in picked or () if entry in known])

    def _connect(self) -> None:
        panel = self.panel
        at, desk = [panel.items, panel.chosen], panel.page.desk

        async def worked(words: str, job_id: str, make: Callable[[Any], Path]) -> AsyncGenerator[list[Any]]:
            yield [gr.skip(), gr.skip(), *self.busy(words)]
            try:
                path = await asyncio.to_thread(desk.keep_edit, job_id, make)
            except SgdiffError:
                yield [gr.skip(), gr.skip(), *self.idle()]
                raise
            yield [path.name, [] if words == JOINS else gr.skip(), *self.idle()]

        @told
        async def trim(items: Items, chosen: int, start: float, end: float) -> AsyncGenerator[list[Any]]:
            job_id, which = self._chosen(items, chosen)
            async for step in worked(CUTS, job_id, lambda queue: edits.trim(queue, job_id, start, end, which)):
                yield step

        @told
        async def gif(items: Items, chosen: int, fps: float, width: float) -> AsyncGenerator[list[Any]]:
            job_id, which = self._chosen(items, chosen)
            settings = round(fps), round(width), which
            async for step in worked(WRITES, job_id, lambda queue: edits.to_gif(queue, job_id, *settings)):
                yield step

        @told
        async def join(picked: list[str] | None, fade: float) -> AsyncGenerator[list[Any]]:
            clips = [panel.which(job_id, int(index)) for job_id, index in map(str.split, picked or ())]
            if len(clips) < 2:
                raise UsageError("Pick two clips or more to join, in the order in which they are to follow.")
            async for step in worked(JOINS, clips[0][0], lambda queue: edits.join(queue, clips, fade)):
                yield step

        changed = [panel.items.change, panel.chosen.change]
        gr.on(changed, self.show, at, self.shown, trigger_mode="always_last", **QUIET)
        panel.items.change(told(self.offer), [panel.items, self.clips], [self.clips], **QUIET)
        buttons = [self.trim, self.gif, self.join, self.note]
        given = [[*at, self.start, self.end], [*at, self.fps, self.width], [self.clips, self.fade]]
        for button, work, inputs in zip(buttons, (trim, gif, join), given, strict=False):
            button.click(work, inputs, [panel.page.pulse, self.clips, *buttons], **QUIET)

    def busy(self, words: str) -> list[Any]:
        """Return updates of the buttons and the note while something is made."""
        note = f'<div class="line" role="status">{words}</div><div class="bar"><div></div></div>'
        return [*[gr.update(interactive=False)] * 3, note]

    def idle(self) -> list[Any]:
        """Return updates of the buttons and the note when nothing is made."""
        return [*[gr.update(interactive=True)] * 3, ""]

    def _chosen(self, items: Items, chosen: int) -> tuple[str, edits.Which]:
        job, index = self.panel.job_at(items, chosen)
        return self.panel.which(job.id, index)
