"""The results panel that Generate, Edit and Video share: how far a job is, its preview, what waits, what came of it."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from engine.errors import NotFound
from engine.jobs import Job
from engine.types import Artifact
from ui.desk import OUTDATED, Snapshot, output_of
from ui.page import QUIET, View
from ui.say import told

if TYPE_CHECKING:
    from ui.page import Page

SHOWN = 12  # outputs in the gallery of a panel
Item = tuple[Job, int, str]  # a job, which of its files, the path of that
Items = Sequence[Sequence[Any]]  # of what is shown: [job id, which of its files]
CANCEL_JS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-cancel]');
  if (button) { button.disabled = true; trigger('click', {job: button.dataset.cancel}); }
});
"""
ASK_JS = "(items, chosen, sure) => [items, chosen, window.confirm('Delete this result and its files?')]"
COPY_JS = "(text) => { window.sgdiffCopy(text); return []; }"


class Panel:
    """Build it inside the layout of a tab: it places its components and tells the page what follows the jobs.

    `items` lists the outputs in the gallery as [job id, index of the output], the newest first; `chosen` is the place
    in it of the one that the actions are about.
    """

    def __init__(self, page: Page, tab: str) -> None:
        self.page, self.tab = page, tab
        self.items, self.chosen = gr.State([]), gr.State(0)
        self.sure = gr.Checkbox(False, visible=False)  # what a script returns for a State does not count
        with gr.Column(elem_classes="outcome"):  # Gradio keeps the word panel to itself
            self.status = gr.HTML(BLANK, js_on_load=CANCEL_JS, elem_classes="status", padding=False)
            self.results: Any = self._place()
            self.facts = gr.HTML("", elem_classes="facts", padding=False)
            with gr.Row(elem_classes="actions", visible=False) as self.actions:
                self.use = gr.Button("Use as input", size="sm", min_width=80)
                self.vary = gr.Button("Vary", size="sm", min_width=80)
                self.copy = gr.Button("Copy settings", size="sm", min_width=80)
                self.download = gr.DownloadButton("Download", size="sm", min_width=80)
                self.star = gr.Button("Star", size="sm", min_width=80)
                self.delete = gr.Button("Delete", size="sm", min_width=80, variant="stop")
            self.recipe = gr.Textbox(visible=False)
        page.views.append(View([self.status], self.progress_state, self.progress))
        page.views.append(View(self.shown, self.results_state, self.finished))
        self._connect()
        page.later(self._connect_tabs)

    def _place(self) -> gr.components.Component:
        """Place what shows the outputs and return it; its event `select` says which is chosen."""
        return gr.Gallery(
            show_label=False, columns=4, object_fit="contain", preview=True, interactive=False, height=460,
            buttons=["fullscreen"], elem_classes="results", visible=False,
        )  # fmt: skip

    @property
    def about(self) -> list[Any]:
        """The components that tell of the chosen output, see `told_of`."""
        return [self.facts, self.recipe, self.download, self.star]

    @property
    def shown(self) -> list[Any]:
        """The components that change with the results."""
        return [self.results, self.actions, self.items, self.chosen, *self.about]

    # How far it is

    def progress_state(self, snapshot: Snapshot) -> object:
        """Say what the status would show, in few words."""
        jobs = [job for job in snapshot.of_tab(self.tab)[:8] if not job.finished]
        last = snapshot.of_tab(self.tab)[:1]
        live = [(job.id, job.status, job.stage, job.step, job.cancelled, snapshot.places.get(job.id)) for job in jobs]
        preview = [hash(job.preview) for job in jobs if job.preview]
        return (
            live,
            preview,
            [(job.id, job.status) for job in last],
            bool(self.outputs(snapshot)),
            snapshot.health,
            snapshot.error,
        )

    def progress(self, snapshot: Snapshot) -> list[Any]:
        """Return the update of the status."""
        jobs = snapshot.of_tab(self.tab)
        live = [job for job in reversed(jobs) if not job.finished]
        running = [job for job in live if job.status == "running"]
        waiting = sorted((job for job in live if job not in running), key=lambda job: snapshot.places.get(job.id, 0))
        if not live:
            words = ended(jobs[0]) if jobs and jobs[0].status != "done" else idle(_health(snapshot))
            return [words + ("" if self.outputs(snapshot) else BLANK)]
        parts = [drawing(job, snapshot) for job in running]
        parts += [queued(waiting, snapshot)] if waiting else []
        return ["".join(parts)]

    # What came of it

    def outputs(self, snapshot: Snapshot) -> list[Item]:
        """Return the outputs that the gallery shows, the newest first."""
        jobs = [job for job in snapshot.of_tab(self.tab) if not (job.expired or job.removed)]
        found = [(job, i, made.location) for job in jobs for i, made in enumerate(job.artifacts) if made.location]
        return found[:SHOWN]

    def results_state(self, snapshot: Snapshot) -> object:
        """Say which outputs there are."""
        return [(job.id, i) for job, i, _ in self.outputs(snapshot)]

    def finished(self, snapshot: Snapshot) -> list[Any]:
        """Return the updates of everything that depends on the outputs; the newest is chosen."""
        found = self.outputs(snapshot)
        about = self.told_of(*found[0][:2]) if found else self.untold()
        items = [[job.id, i] for job, i, _ in found]
        return [self.filled(found), gr.update(visible=bool(found)), items, 0, *about]

    def filled(self, found: Sequence[Item]) -> Any:
        """Return the update of what shows the outputs."""
        paths = [path for _, _, path in found]
        return gr.update(value=paths, visible=bool(paths), selected_index=0 if paths else None)

    def untold(self) -> list[Any]:
        """Return the updates of `about` while there is no output."""
        return ["", "", gr.skip(), gr.skip()]

    def told_of(self, job: Job, index: int) -> list[Any]:
        """Return the updates of `about` for an output. Raises NotFound."""
        made = output_of(job, index)
        recipe = job.recipes[index] if index < len(job.recipes) else {}
        star = gr.update(value="Unstar" if job.starred else "Star")
        text = json.dumps(recipe, ensure_ascii=False, indent=1)
        return [facts(job, made), text, gr.update(value=made.location), star]

    def job_at(self, items: Items, chosen: int) -> tuple[Job, int]:
        """Return the job of an output in the gallery, and which of its files it is. Raises NotFound.

        What is chosen may be out of date: the server was started anew, or another window has deleted something.
        """
        if not isinstance(chosen, int) or not 0 <= chosen < len(items):
            raise NotFound(OUTDATED)
        job_id, index = items[chosen]
        return self.page.desk.get(job_id), index

    def made_at(self, items: Items, chosen: int) -> tuple[Job, Artifact]:
        """Return the job of what is chosen, and the file, see `Desk.output`. Raises NotFound."""
        job, index = self.job_at(items, chosen)
        return self.page.desk.output(job.id, index)

    def path_at(self, items: Items, chosen: int) -> str:
        """Return the file of an output in the gallery. Raises NotFound."""
        job, index = self.job_at(items, chosen)
        return str(self.page.desk.path(job.id, index))

    # What can be done with it

    def _connect(self) -> None:
        desk, page, at = self.page.desk, self.page, [self.items, self.chosen]

        @told
        def choose(items: list[Any], event: gr.SelectData) -> list[Any]:
            return [event.index, *self.told_of(*self.job_at(items, event.index))]

        @told
        def cancel(event: gr.EventData) -> None:
            desk.cancel(event._data["job"])

        @told
        def vary(asked: gr.Request, items: list[Any], chosen: int, client: object) -> str:
            job, made = self.made_at(items, chosen)
            return desk.again(
                job, desk.client(client, asked.session_hash), seed=made.seed + 1, num_outputs_per_prompt=1
            ).id

        @told
        def star(items: list[Any], chosen: int) -> Any:
            job, _ = self.job_at(items, chosen)
            return gr.update(value="Unstar" if desk.star(job.id, not job.starred).starred else "Star")

        @told
        def delete(items: list[Any], chosen: int, sure: bool) -> Any:
            if not sure:
                return gr.skip()
            job, _ = self.job_at(items, chosen)
            desk.delete(job.id)
            return f"without {job.id}"

        self.results.select(choose, [self.items], [self.chosen, *self.about], **QUIET)
        self.status.click(cancel, **QUIET)
        self.vary.click(vary, [*at, page.client], [page.pulse], **QUIET)
        self.star.click(star, at, [self.star], **QUIET)
        self.delete.click(delete, [*at, self.sure], [page.pulse], js=ASK_JS, **QUIET)
        self.copy.click(None, [self.recipe], None, js=COPY_JS)

    def _connect_tabs(self) -> None:
        """Connect "use as input" to the tab that takes it: for pictures of this one, else the first there is."""
        self.use.visible = self.page.receiver is not None

        @told
        def use(items: list[Any], chosen: int) -> list[Any]:
            return self.page.use_as_input(self.path_at(items, chosen))

        self.use.click(use, [self.items, self.chosen], self.page.input_outputs, **QUIET)


def _health(snapshot: Snapshot) -> str:
    words = {"loading": "The model is being loaded; what you ask for now waits for it.", "warming": "Warming up."}
    words |= {"unhealthy": snapshot.error, "draining": "The server is being stopped."}
    return words.get(snapshot.health, "")


def idle(text: str) -> str:
    """Return the status while nothing is asked for."""
    return f'<div class="line muted">{html.escape(text)}</div>' if text else ""


def ended(job: Job) -> str:
    """Return the status after a job that came to nothing."""
    told = (job.error or {}).get("message", "")
    if job.status == "cancelled":
        return '<div class="line muted">Cancelled.</div>'
    return f'<div class="line bad" role="alert">{html.escape(told)}</div>'


def drawing(job: Job, snapshot: Snapshot) -> str:
    """Return the status of a job that runs: preview, bar, stage, steps, time left."""
    stage = "Cancelling" if job.cancelled else stage_words(job.stage or "starting")
    steps = f"step {job.step} of {job.steps}" if job.steps else ""
    eta = snapshot.etas.get(job.id)
    left = f"{seconds(eta)} left" if eta is not None else ""
    words = " · ".join(html.escape(part) for part in (stage, steps, left) if part)
    picture = ""
    if job.preview:
        data = base64.b64encode(job.preview).decode()
        picture = f'<img class="live" alt="Preview" src="data:image/jpeg;base64,{data}">'
    return (
        f'<div class="drawing">{picture or WAITING}'
        f'<div class="bar"><div style="width:{job.percent}%"></div></div>'
        f'<div class="line" aria-live="polite">{words}{_button(job)}</div></div>'
    )


BLANK = '<div class="blank muted">What you ask for appears here.</div>'
WAITING = '<div class="live empty"></div>'


def queued(jobs: Sequence[Job], snapshot: Snapshot) -> str:
    """Return the list of jobs that wait."""
    rows = []
    for job in jobs:
        place = snapshot.places.get(job.id, 0)
        words = "next" if place == 0 else f"{place} before it"
        eta = snapshot.etas.get(job.id)
        done = f", done in about {seconds(eta)}" if eta is not None else ""
        prompt = html.escape((job.request.prompt or "").strip()[:80] or "no prompt")
        rows.append(
            f'<li><span class="what">{prompt}</span><span class="muted">{words}{done}</span>{_button(job)}</li>'
        )
    return f'<ul class="queue">{"".join(rows)}</ul>'


def _button(job: Job) -> str:
    if job.cancelled:
        return ""
    return f'<button type="button" class="x" data-cancel="{job.id}" aria-label="Cancel this job">Cancel</button>'


def facts(job: Job, made: Artifact) -> str:
    """Return one line about an output."""
    parts = [f"Seed {made.seed}", f"{made.width} × {made.height}"]
    if made.frames > 1:
        parts.append(f"{made.frames} frames" + (f" at {made.fps} fps" if made.fps else ""))
    parts.append(f"{job.resolved.num_inference_steps} steps")
    if job.inference_s:
        parts.append(seconds(job.inference_s))
    parts += [Path(ref.path or ref.name or "LoRA").stem for ref in (job.resolved.loras or job.loras)]
    prompt = html.escape((job.request.prompt or "").strip())
    words = html.escape(" · ".join(parts))
    return f'<div class="line muted">{words}</div><div class="said">{prompt}</div>'


def stage_words(stage: str) -> str:
    """Return the name of a stage as people read it."""
    return stage.replace("_", " ").capitalize()


def seconds(value: float) -> str:
    """Return a duration as people say it."""
    if value < 10:
        return f"{value:.1f} s"
    return f"{value:.0f} s" if value < 90 else f"{value / 60:.0f} min"
