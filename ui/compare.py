"""The Compare tab: a grid over the values of one or two settings."""

from __future__ import annotations

import html
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from engine import compare, schema
from engine.compare import LORA, MOST, PROMPT
from engine.errors import NotFound, OutputError, SgdiffError, UsageError
from engine.jobs import Job
from ui import controls, files, recipe_view
from ui.forms import FIELDS, Form, is_offered, label, seed_text, seeds, used
from ui.page import QUIET, STORAGE
from ui.panel import seconds
from ui.say import told

if TYPE_CHECKING:
    from ui.page import Page

NAME = "compare"
LOOK_S = 1.0  # while a grid is drawn
NONE = ""  # the setting of a direction that is not used
KINDS = ("int", "float")
LEFT_OUT = ("num_outputs_per_prompt", "max_sequence_length")
HINT = "Values are a list, or a range: 4, 8, 12 or 1-10 (+3). Words of the prompt: house > castle, hut"
EMPTY = '<div class="blank muted">Choose a setting and its values. The pictures appear here side by side.</div>'
OPEN_JS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-open]');
  if (button) trigger('select', {job: button.dataset.open});
});
"""
Grid = dict[str, Any]  # names, labels and job ids by row, as the browser keeps them


def build(page: Page) -> gr.Tab:
    """Build the tab."""
    with page.tab(NAME, "Compare") as tab:
        Compare(page, tab)
    return tab


def axes(page: Page) -> list[tuple[str, str]]:
    """Return the settings that can be varied, with what forms call them."""
    names = [
        name for name, field in FIELDS.items()
        if is_offered(field) and used(name, page.desk.spec) and name not in LEFT_OUT and name != "seed"
        and (field.kind in KINDS or (field.choices and field.kind != "list"))
    ]  # fmt: skip
    found = [("Seed", "seed"), ("Words of the prompt", PROMPT), ("LoRA strength", LORA)]
    return [*found, *((label(name), name) for name in names)]


class Compare:
    """What is asked for on the left, the grid on the right; the browser remembers the last grid."""

    def __init__(self, page: Page, tab: gr.Tab) -> None:
        self.page, self.desk, self.form = page, page.desk, Form(page.desk.spec)
        self.grid = gr.BrowserState({}, storage_key="sgdiff-grid", **STORAGE)
        self.timer, self.seen, self.opened = gr.Timer(LOOK_S, active=False), gr.State(""), gr.State("")
        self.file = files.downloads()
        with gr.Row(elem_classes="workspace"):
            with gr.Column(scale=4, min_width=320, elem_classes="settings"):
                self._build_form()
            with gr.Column(scale=7, min_width=320, elem_classes="settings"):
                self.view = gr.HTML(EMPTY, js_on_load=OPEN_JS, padding=False)
                self.save = gr.Button("Download as one picture", size="sm", elem_classes="other", visible=False)
                self.recipe = gr.HTML("", js_on_load=recipe_view.COPY_JS, padding=False)
                self.load = gr.Button("Load settings", size="sm", elem_classes="other", visible=False)
        self._connect(tab)
        page.later(self._connect_load)

    def _build_form(self) -> None:
        controls.words(self.form, "What to draw in every cell")
        choices = axes(self.page)
        with gr.Row():
            self.across = gr.Dropdown(choices, value="seed", label="Across", min_width=120)
            self.across_values = gr.Textbox("1-4", label="Values", max_lines=1, placeholder="4, 8, 12", min_width=140)
        with gr.Row():
            none = [("nothing", NONE), *choices]
            self.down = gr.Dropdown(none, value=NONE, label="Down", min_width=120)
            self.down_values = gr.Textbox("", label="Values", max_lines=1, placeholder="4, 8, 12", min_width=140)
        self.note = gr.HTML(f'<div class="line muted">{html.escape(HINT)}</div>', padding=False)
        row = controls.run_row("Compare")
        self.run, self.stop = row.run, row.stop
        controls.guidance_row(self.form)
        seed = gr.Textbox(label="Seed", placeholder="random, the same in all cells", max_lines=1)
        self.form.add("seed", seed, seeds, seed_text)
        with gr.Accordion("Advanced", open=False):
            self.form.rest(without=("strength", "num_outputs_per_prompt"))

    # What is asked for

    def cells(self, axis: tuple[str, str, str, str], values: Mapping[str, Any], loras: Any) -> tuple[Grid, list[Any]]:
        """Return an empty grid and the requests of its cells, by row. Raises UsageError."""
        across = compare.axis(axis[0], axis[1])
        down = compare.axis(axis[2], axis[3]) if axis[2] else None
        chosen = schema.plain(self.desk.queue.loras) if loras is None else loras
        base = {name: value for name, value in values.items() if used(name, self.desk.spec)}
        base |= {"seed": base.get("seed") if base.get("seed") is not None else secrets.randbelow(2**32)}
        if not isinstance(base["seed"], int):
            raise UsageError("seed: must be one, the same in all cells; vary it instead", param="seed")
        if loras is not None or LORA in (across.name, axis[2]):
            base["loras"] = chosen
        rows = compare.cells(base, across, down)
        grid = {"across": list(across.labels), "down": list(down.labels) if down is not None else [""]}
        names = {name: told for told, name in axes(self.page)}
        grid["names"] = [names.get(across.name, ""), names.get(down.name, "") if down is not None else ""]
        return grid, [[self.desk.request(cell) for cell in row] for row in rows]

    def submit(self, grid: Grid, rows: list[Any], client: str) -> Grid:
        """Ask for every cell, or for none. Raises as `Desk.submit` does."""
        jobs = list[list[Job]]()
        try:
            for row in rows:
                jobs.append([])
                for request in row:
                    jobs[-1].append(self.desk.submit(request, client, NAME))
        except SgdiffError:
            for job in (job for row in jobs for job in row):
                self.desk.cancel(job.id)
            raise
        return {**grid, "ids": [[job.id for job in row] for row in jobs]}

    def plan(self, *axis: str) -> str:
        """Say how many cells there are, and how long they take."""
        try:
            counts = [len(compare.axis(axis[i], axis[i + 1]).values) for i in (0, 2) if axis[i]]
        except UsageError as error:
            return f'<div class="line muted">{html.escape(error.message)}</div>'
        count = counts[0] * (counts[1] if len(counts) > 1 else 1)
        queue = self.desk.queue
        each = queue.durations.typical
        words = f"{count} pictures" if count != 1 else "1 picture"
        words += f", about {seconds(count * each / queue.limit)}" if each is not None else ""
        words += f"; at most {MOST} can be drawn" if count > MOST else ""
        return f'<div class="line muted">{words}</div>'

    # What is shown

    def job(self, name: Any) -> Job | None:
        """Return the job of a cell; None when it is gone."""
        with suppress(NotFound):
            return self.desk.get(str(name))
        return None

    def jobs(self, grid: Grid) -> list[list[Job | None]]:
        """Return the jobs of a grid, by row."""
        return [[self.job(name) for name in row] for row in grid.get("ids") or []]

    def shown(self, grid: Grid) -> str:
        """Return the grid as far as it is."""
        rows = self.jobs(grid)
        if not rows:
            return EMPTY
        across, down, names = grid["across"], grid["down"], grid["names"]
        corner = html.escape(" / ".join(name for name in reversed(names) if name))
        heads = "".join(f"<th>{html.escape(entry)}</th>" for entry in across)
        lines = "".join(
            f"<tr><th>{html.escape(told)}</th>{''.join(f'<td>{self._cell(job)}</td>' for job in row)}</tr>"
            for told, row in zip(down, rows, strict=False)
        )
        return f'<div class="compare"><table><tr><th>{corner}</th>{heads}</tr>{lines}</table></div>'

    def _cell(self, job: Job | None) -> str:
        if job is None:
            return '<span class="muted">gone</span>'
        if not job.finished:
            words = f"{job.percent} %" if job.status == "running" else "waits"
            return f'<span class="muted wait">{words}</span>'
        path = None
        with suppress(OutputError):
            path = self.desk.thumbnails.get(job, 0)
        if path is None:
            why = (job.error or {}).get("message") or "The file is gone"
            words = "cancelled" if job.status == "cancelled" else why
            return f'<span class="muted">{html.escape(words)}</span>'
        return (
            f'<button type="button" data-open="{job.id}" aria-label="Open the recipe">'
            f'<img src="{html.escape(files.url(path))}" alt=""></button>'
        )

    def look(self, grid: Grid, seen: str) -> list[Any]:
        """Return what is seen now, and updates for the grid, the timer and the download."""
        view = self.shown(grid)
        found = [job for row in self.jobs(grid) for job in row if job is not None]
        over = all(job.finished for job in found)
        ready = over and any(job.artifacts for job in found)
        update = gr.skip() if view == seen else view
        return [view, update, gr.Timer(active=not over), gr.update(visible=ready)]

    def whole(self, grid: Grid) -> str:
        """Return a download of the grid as one picture."""
        pictures = [[self._picture(job) for job in row] for row in self.jobs(grid)]
        path = files.fresh("sgdiff-app-grid.png", self.file)
        compare.picture(grid["across"], grid["down"], pictures, path)
        return files.download(path)

    def _picture(self, job: Job | None) -> Path | None:
        found = self.desk.files(job) if job is not None else []
        if job is not None and job.kind == "video":
            return self.desk.thumbnails.get(job, 0)
        return found[0] if found else None

    # Events

    def _connect(self, tab: gr.Tab) -> None:
        outputs = [self.seen, self.view, self.timer, self.save]
        axis = [self.across, self.across_values, self.down, self.down_values]
        given = [self.page.client, self.page.loras, *axis, *self.form.components]

        @told
        def run(asked: gr.Request, client: object, loras: Any, *entered: Any) -> list[Any]:
            grid, rows = self.cells(entered[:4], self.form.values(entered[4:]), loras)
            grid = self.submit(grid, rows, self.desk.client(client, asked.session_hash))
            return [grid, grid["ids"][0][0], *self.look(grid, ""), "", gr.update(visible=False)]

        @told
        def stop(grid: Grid) -> None:
            for job in self._unfinished(grid):
                self.desk.cancel(job.id)

        @told
        def opens(event: gr.EventData) -> list[Any]:
            job = self.desk.get(str(event._data["job"]))
            return [job.id, recipe_view.view(job), gr.update(visible=True)]

        about = [self.recipe, self.load]
        self.run.click(run, given, [self.grid, self.page.pulse, *outputs, *about], **QUIET)
        self.stop.click(stop, [self.grid], None, **QUIET)
        self.view.select(opens, None, [self.opened, *about], **QUIET)
        self.save.click(told(self.whole), [self.grid], [self.file], **QUIET)
        tab.select(self.look, [self.grid, self.seen], outputs, **QUIET)
        last: dict[str, Any] = {"trigger_mode": "once", "concurrency_limit": None, **QUIET}
        self.timer.tick(self.look, [self.grid, self.seen], outputs, **last)
        gr.on([entry.change for entry in axis], self.plan, axis, [self.note], trigger_mode="always_last", **QUIET)
        self.page.on_model(self.form.components, lambda: self.form.defaults(self.desk.spec))
        self.page.on_model([self.across, self.down], self._choices)

    def _choices(self) -> list[Any]:
        found = axes(self.page)
        return [gr.update(choices=found), gr.update(choices=[("nothing", NONE), *found])]

    def _unfinished(self, grid: Grid) -> Iterator[Job]:
        """Yield what is to be cancelled, the last first, so that nothing starts meanwhile."""
        for row in reversed(self.jobs(grid)):
            yield from (job for job in reversed(row) if job is not None and not job.finished)

    def _connect_load(self) -> None:
        @told
        def load(opened: str) -> list[Any]:
            return self.page.reloaded(self.desk.get(opened))

        self.load.click(load, [self.opened], self.page.reload_outputs, **QUIET)
