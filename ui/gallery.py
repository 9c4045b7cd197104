"""The Gallery tab: every finished job of the store, found again, looked at, used again, kept or thrown away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from engine import strip
from engine.errors import NotFound, OutputError
from engine.jobs import Job, archive
from engine.jobs.store import MOST_SEARCHED
from ui import cards, compare, files, recipe_view, say
from ui.desk import Desk, Snapshot
from ui.page import QUIET, View
from ui.panel import COPY_JS, facts
from ui.say import told

if TYPE_CHECKING:
    from ui.page import Page

NAME = "gallery"
SIZE = 40  # jobs on a page
APART = {"status": "done", "without_tab": compare.NAME}  # the cells of grids would crowd out the rest
SHOW: dict[str, dict[str, Any]] = {
    "All": APART,
    "Pictures": {**APART, "kind": "image"},
    "Edits": {**APART, "kind": "edit"},
    "Clips": {**APART, "kind": "video"},
    "Comparisons": {"status": "done", "tab": compare.NAME},
    "Failed": {"status": "failed"},
}
EVERY_MODEL = "Every model"
EMPTY = "Nothing here yet. What you make in the other tabs appears here."
NONE = {  # of what a filter shows
    "Pictures": "No pictures yet. Generate makes them.",
    "Edits": "No edits yet. Edit makes them of your pictures.",
    "Clips": "No clips yet. Video makes them.",
    "Comparisons": "No comparisons yet. Compare draws a grid over the values of a setting.",
    "Failed": "Nothing has failed.",
}
NO_MATCH = "Nothing matches. Try other words, or show all."
AWAY, THERE = ["gallery", "away"], ["gallery"]  # classes: what is away stays in the page, and what is marked marked
# What shows cards runs one after another: what was read before a change must not be shown after it.
IN_TURN: dict[str, Any] = {**QUIET, "concurrency_id": "gallery", "concurrency_limit": 1}
CHOOSE_JS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-index]');
  if (button) trigger('select', {index: Number(button.dataset.index)});
});
"""
TOP_JS = "() => window.scrollTo(0, 0)"
RETURN_JS = "() => setTimeout(() => window.scrollTo(0, window.sgdiffScroll || 0), 50)"
SURE_JS = "(opened, sure, ...rest) => [opened, window.confirm('Delete this result and its files?'), ...rest]"


def wanted(search: str, show: str, model: str, starred: bool) -> dict[str, Any]:
    """Return what the store is asked for."""
    found = {**SHOW.get(show, SHOW["All"])}
    if search and search.strip():
        found["search"] = search
    if model and model != EVERY_MODEL:
        found["model"] = model
    if starred:
        found["starred"] = True
    return found


def results(count: int) -> str:
    """Return how many there are, in words; nothing where what stands in their place says so."""
    return f"{count} result{'s' if count > 1 else ''}" if count else ""


def ids_of(data: Any) -> list[str]:
    """Return the ids that a browser sent; anything else is left out."""
    given = data.get("ids") if isinstance(data, dict) else None
    names = [entry for entry in given if isinstance(entry, str)] if isinstance(given, list) else []
    return [*dict.fromkeys(names)][:SIZE]  # each once


def small(desk: Desk, wishes: Any) -> list[str]:
    """Return the addresses of thumbnails, made if need be; "" where there is none. Browsers ask for "job index"."""
    return [_small(desk, str(wish)) for wish in (wishes if isinstance(wishes, list) else [])[:SIZE]]


def _small(desk: Desk, wish: str) -> str:
    name, _, index = wish.partition(" ")
    try:
        path = desk.thumbnails.get(desk.get(name), int(index))
    except (NotFound, OutputError, ValueError):
        return ""
    return files.url(path) if path is not None else ""


def build(page: Page) -> gr.Tab:
    """Build the tab."""
    with page.tab(NAME, "Gallery") as tab:
        Gallery(page, tab)
    return tab


class Gallery:
    """The cards, and the large view in place of them while one is open."""

    def __init__(self, page: Page, tab: gr.Tab) -> None:
        self.page, self.desk = page, page.desk
        self.before = gr.State([])  # for each page before this one, the id that this browser was shown after
        self.ids = gr.State([])  # of the cards, in their order
        self.opened = gr.State(["", 0])  # the job in the large view, and which of its files
        self.visited, self.finished = gr.State(False), gr.State("")
        self.sure = gr.Checkbox(False, visible=False)
        self.file = files.downloads()
        with gr.Column(elem_classes=THERE) as self.browse:
            self._build_cards()
        with gr.Column(elem_classes=AWAY) as self.view:
            self._build_view()
        page.views.append(View([self.finished], _finished, lambda snapshot: [repr(_finished(snapshot))]))
        self._connect_cards(tab)
        self._connect_view()
        page.later(self._connect_tabs)

    # Layout

    def _build_cards(self) -> None:
        with gr.Row(elem_classes="filters"):
            self.search = gr.Textbox(
                label="Search prompts", show_label=False, container=False, placeholder="Search prompts", max_lines=1,
                scale=4, min_width=200, max_length=MOST_SEARCHED, elem_classes="search",
            )  # fmt: skip
            self.model = gr.Dropdown(
                [EVERY_MODEL], value=EVERY_MODEL, label="Model", show_label=False, container=False, filterable=True,
                scale=2, min_width=160,
            )  # fmt: skip
        with gr.Row(elem_classes="filters"):
            self.show = gr.Radio(
                [*SHOW], value="All", label="Show", show_label=False, container=False, elem_classes="chips", scale=3,
                min_width=280,
            )  # fmt: skip
            self.starred = gr.Checkbox(
                False, label="Starred", container=False, scale=0, min_width=100, elem_classes="bare"
            )
            self.count = gr.HTML("", elem_classes="tally", padding=False)

        def small_of(wishes: Any) -> list[str]:
            return small(self.desk, wishes)

        small_of.__name__ = "small"
        script = (Path(__file__).parent / "static" / "gallery.js").read_text(encoding="utf-8")
        self.cards = gr.HTML("", js_on_load=script, server_functions=[small_of], elem_classes="grid", padding=False)
        with gr.Row(elem_classes="actions pages"):
            self.newer = gr.Button("Newer", size="sm", min_width=80, scale=0, visible=False)
            self.older = gr.Button("Older", size="sm", min_width=80, scale=0, visible=False)

    def _build_view(self) -> None:
        with gr.Row(elem_classes="actions pages"):
            self.back = gr.Button("Back", size="sm", min_width=80, scale=0, elem_classes="cancel")
            self.previous = gr.Button("Previous", size="sm", min_width=80, scale=0)
            self.next = gr.Button("Next", size="sm", min_width=80, scale=0)
        with gr.Row(elem_classes="workspace"):
            with gr.Column(scale=6, min_width=320):
                self.picture = gr.HTML("", js_on_load=CHOOSE_JS, padding=False)
            with gr.Column(scale=5, min_width=320, elem_classes="about"):
                self.facts = gr.HTML("", elem_classes="facts", padding=False)
                with gr.Row(elem_classes="actions"):
                    self.load = gr.Button("Load settings", size="sm", min_width=80, variant="primary")
                    self.use = gr.Button("Use as input", size="sm", min_width=80)
                    self.copy = gr.Button("Copy prompt", size="sm", min_width=80)
                    self.download = gr.Button("Download", size="sm", min_width=80)
                    self.star = gr.Button("Star", size="sm", min_width=80)
                    self.delete = gr.Button("Delete", size="sm", min_width=80, variant="stop")
                self.plain = gr.Checkbox(
                    False, label="Download without the recipe", container=False, elem_classes="bare"
                )
                self.recipe = gr.HTML("", js_on_load=recipe_view.COPY_JS, padding=False)
        self.prompt = gr.Textbox(visible=False)

    # Cards

    @property
    def filters(self) -> list[Any]:
        """What decides which cards are shown."""
        return [self.search, self.show, self.model, self.starred]

    @property
    def listed(self) -> list[Any]:
        """What shows a page of cards, see `cards_after`."""
        return [self.cards, self.count, self.ids, self.before, self.model, self.newer, self.older]

    def cards_after(self, *given: Any) -> list[Any]:
        """Return updates that show cards: for the values of `filters`, after the last of the ids that stand last."""
        search, show, model, starred, before = given
        wish = wanted(search, show, model, starred)
        jobs, more = self.desk.page(after=before[-1] if before else None, limit=SIZE, **wish)
        if not jobs and before:  # the last ones of a page were deleted
            return self.cards_after(search, show, model, starred, before[:-1])
        total, filtered = self.desk.count(**wish), len(wish) > len(wanted("", show, "", False))
        empty = NO_MATCH if filtered else NONE.get(show, EMPTY)
        first = len(before) * SIZE
        tally = f"{first + 1}–{first + len(jobs)} of {total}" if before or more else results(total)
        return [
            cards.grid(jobs, self.desk.thumbnails.find, empty),
            f'<div class="line muted">{tally}</div>',
            [job.id for job in jobs],
            [*before],
            gr.update(choices=[EVERY_MODEL, *self.desk.models()]),
            gr.update(visible=bool(before)),
            gr.update(visible=more),
        ]

    def _connect_cards(self, tab: gr.Tab) -> None:
        @told
        def first(*given: Any) -> list[Any]:
            return self.cards_after(*given, [])

        @told
        def visit(*given: Any) -> list[Any]:
            return [True, *self.cards_after(*given)]

        @told
        def again(visited: bool, *given: Any) -> list[Any]:
            return self.cards_after(*given) if visited else [gr.skip()] * len(self.listed)

        @told
        def older(ids: list[str], *given: Any) -> list[Any]:
            *chosen, before = given
            return self.cards_after(*chosen, [*before, *ids[-1:]])

        @told
        def newer(*given: Any) -> list[Any]:
            *chosen, before = given
            return self.cards_after(*chosen, before[:-1])

        last: dict[str, Any] = {"trigger_mode": "always_last", **IN_TURN}
        where = [*self.filters, self.before]
        changed = [self.search.change, self.show.input, self.model.input, self.starred.input]
        gr.on(changed, first, self.filters, self.listed, **last)
        tab.select(visit, where, [self.visited, *self.listed], **IN_TURN)
        self.finished.change(again, [self.visited, *where], self.listed, **last)
        self.older.click(older, [self.ids, *where], self.listed, **IN_TURN).then(None, None, None, js=TOP_JS)
        self.newer.click(newer, where, self.listed, **IN_TURN).then(None, None, None, js=TOP_JS)
        self._connect_bulk(where)

    def _connect_bulk(self, where: list[Any]) -> None:
        """Connect what is done with marked cards."""

        @told
        def star(event: gr.EventData, *given: Any) -> list[Any]:
            names, starred = ids_of(event._data), bool(event._data.get("starred"))
            gone = len(names) - self.done_with(names, lambda name: self.desk.star(name, starred))
            if gone:
                say.info(are_gone(gone), "Gallery")
            return self.cards_after(*given)

        @told
        def delete(event: gr.EventData, *given: Any) -> list[Any]:
            names = ids_of(event._data)
            count = self.done_with(names, self.desk.delete)
            words = [f"{count} deleted" if len(names) > 1 else "Deleted"] if count else []
            words += [are_gone(len(names) - count)] if count < len(names) else []
            say.info(". ".join(words), "Gallery", 3)
            return self.cards_after(*given)

        @told
        def download(event: gr.EventData) -> str:
            return self.archived(ids_of(event._data), bool(event._data.get("plain")))

        self.cards.like(star, where, self.listed, **IN_TURN)
        self.cards.delete(delete, where, self.listed, **IN_TURN)
        self.cards.download(download, None, [self.file], **QUIET)

    def done_with(self, names: Sequence[str], do: Callable[[str], object]) -> int:
        """Do something with jobs; return with how many: others may be gone, as somebody else was faster."""
        count = 0
        for name in names:
            with suppress(NotFound):
                do(name)
                count += 1
        return count

    def archived(self, names: Sequence[str], plain: bool) -> str:
        """Return a download of all files of jobs, and tell how many have none. Raises NotFound, OutputError."""
        jobs = list[Job]()
        self.done_with(names, lambda name: jobs.append(self.desk.get(name)))
        jobs = [job for job in jobs if job.artifacts and not job.expired]
        what = f"{len(jobs)}-results" if len(jobs) != 1 else jobs[0].id
        path = files.fresh(f"sgdiff-app-{what}.zip", self.file)
        archive.write(jobs, self.desk.queue.delivery, path, plain=plain)
        if len(jobs) < len(names):
            say.info(are_gone(len(names) - len(jobs)), "Gallery")
        return files.download(path)

    # The large view

    @property
    def about(self) -> list[Any]:
        """What tells of the job in the large view, see `told_of`."""
        return [
            self.opened, self.picture, self.facts, self.recipe, self.prompt, self.star, self.use, self.download,
            self.plain, self.previous, self.next,
        ]  # fmt: skip

    def told_of(self, name: str, index: int, ids: Sequence[str]) -> list[Any]:
        """Return updates for `about`. Raises NotFound."""
        job = self.desk.get(name)
        found = cards.shown_of(job)
        index = min(max(index, 0), max(len(found) - 1, 0))
        output = min(index, max(len(job.artifacts) - 1, 0))  # an edited clip was made from the first one
        here = index < len(found) and (found[index].is_here or (not found[index].path and not job.expired))
        picture = here and found[index].is_here and found[index].media_type.startswith("image/")
        at = ids.index(name) if name in ids else -1
        return [
            [name, index],
            cards.large(job, index, self.desk.thumbnails.find),
            facts(job, job.artifacts[output]) if job.artifacts else "",
            recipe_view.view(job, output),
            job.request.prompt or "",
            "Unstar" if job.starred else "Star",
            gr.update(visible=picture and self.page.receiver is not None),
            gr.update(visible=here),
            gr.update(visible=here),
            gr.update(interactive=at > 0),
            gr.update(interactive=0 <= at < len(ids) - 1),
        ]

    def _connect_view(self) -> None:
        @told
        def opens(ids: list[str], event: gr.EventData) -> list[Any]:
            about = self.told_of(str(event._data["job"]), int(event._data.get("index", 0)), ids)
            return [gr.update(elem_classes=AWAY), gr.update(elem_classes=THERE), *about]

        @told
        def choose(opened: list[Any], ids: list[str], event: gr.EventData) -> list[Any]:
            return self.told_of(opened[0], int(event._data["index"]), ids)

        def moved(step: int) -> Any:
            def move(opened: list[Any], ids: list[str]) -> list[Any]:
                at = ids.index(opened[0]) + step if opened[0] in ids else -1
                return self.told_of(ids[at], 0, ids) if 0 <= at < len(ids) else [gr.skip()] * len(self.about)

            return told(move)

        @told
        def star(opened: list[Any]) -> str:
            return "Unstar" if self.desk.star(opened[0], not self.desk.get(opened[0]).starred).starred else "Star"

        @told
        def delete(opened: list[Any], sure: bool, *given: Any) -> list[Any]:
            if not sure:
                return [gr.skip()] * (len(self.listed) + 3)
            self.desk.delete(opened[0])
            return [*_closed(), *self.cards_after(*given)]

        @told
        def download(opened: list[Any], plain: bool) -> str:
            return self.downloaded(opened[0], opened[1], plain)

        at, where = [self.opened, self.ids], [*self.filters, self.before]
        sides = [self.browse, self.view]
        opening = self.cards.select(opens, [self.ids], [*sides, *self.about], **QUIET)
        opening.then(None, None, None, js=TOP_JS)
        closing = self.back.click(_closed, None, [*sides, self.picture], **QUIET)
        closing.then(told(self.cards_after), where, self.listed, **IN_TURN).then(None, None, None, js=RETURN_JS)
        self.picture.select(choose, at, self.about, **QUIET)
        self.previous.click(moved(-1), at, self.about, **QUIET)
        self.next.click(moved(1), at, self.about, **QUIET)
        self.star.click(star, [self.opened], [self.star], **QUIET)
        self.copy.click(None, [self.prompt], None, js=COPY_JS)
        self.download.click(download, [self.opened, self.plain], [self.file], **QUIET)
        gone = [*sides, self.picture, *self.listed]
        self.delete.click(delete, [self.opened, self.sure, *where], gone, js=SURE_JS, **IN_TURN)

    def downloaded(self, name: str, index: int, plain: bool) -> str:
        """Return a download of one file of a job. Raises NotFound, OutputError."""
        _, made = self.desk.output(name, index)
        path = self.desk.path(name, index) if made.location else Path(made.key or name)
        if made.location and not plain:
            return files.download(path)
        data = path.read_bytes() if made.location else self.desk.queue.delivery.read(made)
        copy = files.fresh(path.name, self.file)
        copy.write_bytes(strip.stripped(data, path.name) if plain else data)
        return files.download(copy)

    def _connect_tabs(self) -> None:
        """Connect what leads to other tabs."""
        page = self.page

        @told
        def load(opened: list[Any]) -> list[Any]:
            job, index = self.desk.get(opened[0]), opened[1]
            if job.model != self.desk.options.model_name():
                say.info(f"Made with {job.model}, another model than the one that draws now.", "Settings loaded")
            return page.reloaded(job, min(index, max(len(job.artifacts) - 1, 0)))

        self.load.click(load, [self.opened], page.reload_outputs, **QUIET).then(None, None, None, js=TOP_JS)

        @told
        def use(opened: list[Any]) -> list[Any]:
            return page.use_as_input(str(self.desk.path(*opened)))

        self.use.click(use, [self.opened], page.input_outputs, **QUIET).then(None, None, None, js=TOP_JS)


def are_gone(count: int) -> str:
    """Say that some of what was marked could not be had."""
    return f"{count} {'is' if count == 1 else 'are'} not there any more"


def _closed() -> list[Any]:
    """Return updates that go back to the cards; a clip that plays ends."""
    return [gr.update(elem_classes=THERE), gr.update(elem_classes=AWAY), ""]


def _finished(snapshot: Snapshot) -> object:
    """Say which jobs of this browser have ended."""
    return [(job.id, job.status) for job in snapshot.jobs if job.finished]
