"""Page: what the tabs share while one page is built: the desk, who the browser is, forms, and what connects them.

A tab is a module with `build(page)`. It makes its components inside `with page.tab("edit", "Edit"):`, and tells the
page of what others need: its form (`page.forms[tab]`), what a snapshot changes in it (`page.views`), whether it takes
an output as its input (`page.takes_input`). What needs components of another tab waits for `page.later`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache

from engine import schema
from engine.types import Request
from ui import say
from ui.desk import Desk, Snapshot
from ui.fitting import Fitted, fitted
from ui.forms import APART, Form, used
from ui.kept import Keeper
from ui.say import told

if TYPE_CHECKING:
    from engine.jobs import Job

TICK_S = 2.0  # so often a page looks for jobs of other windows; while one is drawn it is told at once
STORAGE = {"secret": "sgdiff-app"}  # of what the browser keeps; a fixed one, or it would forget with every restart
# For every event of the page. Nothing shows progress: a component that does is asked for its value, with those of all
# components inside it, whenever any event makes a step, and the editor of masks answers by uploading three pictures.
QUIET: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": [], "api_visibility": "private"}
LOST = "Picture: it is not here any more, or not of use to this model; choose one"
TAB_OF_KIND = {"image": "generate", "edit": "edit", "video": "video"}


@dataclass(slots=True)
class View:
    """A part of the page that follows the jobs.

    `state(snapshot)` says in few words what it would show, `render(snapshot)` returns the updates of `outputs`; it is
    called only when the state has changed since the page was updated last.
    """

    outputs: list[Any]
    state: Callable[[Snapshot], object]
    render: Callable[[Snapshot], Sequence[Any]]


@dataclass(slots=True)
class Receiver:
    """A tab that can take an output of another as its input: an update for each of `outputs`, of one path or more."""

    tab: str
    outputs: list[Any]
    render: Callable[..., Sequence[Any]]
    several: bool = False


@dataclass(slots=True)
class Page:
    """One per build. Events that draw are given `client` and `loras` as inputs, and give back `pulse`."""

    desk: Desk
    tabs: gr.Tabs = field(init=False)
    client: gr.BrowserState = field(init=False)  # the id of this browser
    history: gr.BrowserState = field(init=False)  # its prompts: [prompt, negative prompt], the newest first
    pulse: gr.State = field(init=False)  # changes when something was submitted, so that the page follows it
    model: gr.State = field(init=False)  # the id of the model that the forms are for
    loras: gr.State = field(init=False)  # adapters of the next requests, as JSON of LoraRef; None: those of the server
    worn: gr.BrowserState = field(init=False)  # the same, for when the page is loaded again
    shown: gr.State = field(init=False)  # what each view shows, see `View.state`
    forms: dict[str, Form] = field(default_factory=dict)  # by tab
    views: list[View] = field(default_factory=list)
    receivers: dict[str, Receiver] = field(default_factory=dict)  # by tab
    refreshers: list[tuple[list[Any], Callable[[], Sequence[Any]]]] = field(default_factory=list)
    menus: list[gr.Dropdown] = field(default_factory=list)  # of earlier prompts
    sets: list[gr.HTML] = field(default_factory=list)  # the chosen adapters, in each tab that draws
    waiting: list[Callable[[], None]] = field(default_factory=list)
    keeper: Keeper = field(init=False)  # of what the forms are set to

    def __post_init__(self) -> None:
        """Make what belongs to no tab. Call it inside the Blocks."""
        self.client = gr.BrowserState("", storage_key="sgdiff-client", **STORAGE)
        self.history = gr.BrowserState([], storage_key="sgdiff-prompts", **STORAGE)
        self.pulse, self.loras = gr.State(""), gr.State(None)
        self.worn = gr.BrowserState(None, storage_key="sgdiff-loras", **STORAGE)
        self.model = gr.State(self.model_id)
        self.shown = gr.State({})
        self.keeper = Keeper()

    @property
    def model_id(self) -> str:
        """The id of the model that is served."""
        return self.desk.spec.id if self.desk.spec is not None else ""

    def tab(self, name: str, label: str) -> gr.Tab:
        """Return a tab to build in; `name` is its id everywhere: in jobs' notes, in `forms`, in addresses."""
        return gr.Tab(label, id=name, elem_id=f"tab-{name}")

    def later(self, connect: Callable[[], None]) -> None:
        """Have something done once every tab is built: events between tabs are connected there."""
        self.waiting.append(connect)

    def on_model(self, outputs: list[Any], render: Callable[[], Sequence[Any]]) -> None:
        """Have components updated when another model is served."""
        self.refreshers.append((outputs, render))

    # Drawing

    def submit(
        self, tab: str, values: Mapping[str, Any], client: str, loras: Sequence[Mapping[str, Any]] | None, **notes: Any
    ) -> Job:
        """Submit plain values of a form; widgets that are hidden do not count. Raises as `Desk.submit` does."""
        chosen = {} if loras is None else {"loras": list(loras)}
        counted = {name: value for name, value in values.items() if name in APART or used(name, self.desk.spec)}
        return self.desk.submit(self.desk.request({**counted, **chosen}), client, tab, **notes)

    # From one tab to another

    @property
    def restore_outputs(self) -> list[Any]:
        """What `restored` gives updates for. Use it in `later`, when every form is there."""
        return [self.tabs, self.loras, *(entry for form in self.forms.values() for entry in form.components)]

    def restored(self, request: Request | Mapping[str, Any], tab: str, *notes: str) -> list[Any]:
        """Return the updates that load settings into the form of a tab and select it; inputs are not among them.

        What the form cannot send is told, with what came in its place, and with `notes`.
        """
        fit = self.fitted(request, tab)
        say.changed([*fit.notes, *notes])
        updates: list[Any] = [gr.Tabs(selected=tab), fit.values.get("loras")]
        for name, form in self.forms.items():
            updates += form.updates(fit.values, self.desk.spec) if name == tab else [gr.skip()] * len(form.components)
        return updates

    def fitted(self, request: Request | Mapping[str, Any], tab: str) -> Fitted:
        """Return settings as the form of a tab can send them, and what had to be changed."""
        desk, names = self.desk, self.forms[tab].entries
        bound = desk.queue.served.max_pixels
        return fitted(schema.plain(request), names, desk.spec, max_pixels=bound, adapters=desk.adapters)

    def tab_of(self, job: Job) -> str:
        """Return the tab whose form made a job, or would have."""
        tab = job.notes.get("tab")
        return str(tab) if tab in self.forms else TAB_OF_KIND[job.kind]

    def able(self, tab: str) -> str:
        """Return a tab, or where the served model can draw when it cannot there."""
        spec = self.desk.spec
        if spec is None:
            return tab
        if set(spec.tasks) <= {"I2I", "I2V"}:
            return "video" if spec.is_video else "edit"
        if spec.is_video:
            return "video"
        return tab if tab == "edit" and "image_path" in spec.uses else "generate"

    @property
    def reload_outputs(self) -> list[Any]:
        """What `reloaded` gives updates for. Use it in `later`, when every form and every input is there."""
        inputs = [entry for receiver in self.receivers.values() for entry in receiver.outputs]
        return [*self.restore_outputs, *inputs]

    def reloaded(self, job: Job, index: int = 0) -> list[Any]:
        """Return the updates that load the settings of an output into the tab that made it, with its pictures."""
        tab, inputs = self.able(self.tab_of(job)), self.desk.inputs(job)
        taken = any(receiver.tab == tab for receiver in self.receivers.values())
        lost = bool(job.request.image_path) and not (inputs and taken)
        updates = self.restored(self.desk.settings(job, index), tab, *([LOST] if lost else []))
        for receiver in self.receivers.values():
            found = inputs if receiver.tab == tab else []
            # Copies: the folder of the inputs is not served.
            paths = [save_file_to_cache(path, receiver.outputs[0].GRADIO_CACHE) for path in found]
            shown = receiver.render(*(paths if receiver.several else paths[:1])) if paths else None
            updates += shown or [gr.skip()] * len(receiver.outputs)
        return updates

    def takes_input(
        self, tab: str, outputs: list[Any], render: Callable[..., Sequence[Any]], several: bool = False
    ) -> None:
        """Let "use as input" of results lead to a tab: `render(path)` returns updates of `outputs`.

        With `several`, it may be given more than one path.
        """
        self.receivers[tab] = Receiver(tab, outputs, render, several)

    @property
    def receiver(self) -> Receiver | None:
        """Where "use as input" leads to: the tab for what the model draws, else the first that takes a picture."""
        spec = self.desk.spec
        tab = "video" if spec is not None and spec.is_video else "edit"
        return self.receivers.get(tab) or next(iter(self.receivers.values()), None)

    @property
    def input_outputs(self) -> list[Any]:
        """What `use_as_input` gives updates for. Use it in `later`, when every input is there."""
        return [self.tabs, *(entry for receiver in self.receivers.values() for entry in receiver.outputs)]

    def use_as_input(self, path: str) -> list[Any]:
        """Return the updates that give a picture to the tab that takes it, and select that tab."""
        chosen = self.receiver
        assert chosen is not None
        updates: list[Any] = [gr.Tabs(selected=chosen.tab)]
        for receiver in self.receivers.values():
            updates += receiver.render(path) if receiver is chosen else [gr.skip()] * len(receiver.outputs)
        return updates

    # Following

    def connect(self, demo: gr.Blocks) -> None:
        """Connect what waited for every tab, and the one event that follows the jobs of this browser."""
        for connect in self.waiting:
            connect()
        outputs = [self.client, self.model, self.shown, *(entry for view in self.views for entry in view.outputs)]
        gr.on(
            [demo.load, gr.Timer(TICK_S).tick, self.pulse.change],
            self.watch,
            [self.client, self.shown],
            outputs,
            trigger_mode="once",
            concurrency_limit=None,
            **QUIET,
        )
        gr.on([demo.load, self.history.change], self.earlier, [self.history], self.menus, **QUIET)
        demo.load(self.worn_again, [self.worn], [self.loras, self.worn], **QUIET)
        self.loras.change(lambda loras: loras, [self.loras], [self.worn], **QUIET)
        self.keeper.connect(self, demo, self.model, QUIET)

        def refresh() -> list[Any]:
            return [update for _, render in self.refreshers for update in render()]

        self.model.change(refresh, None, [entry for entries, _ in self.refreshers for entry in entries], **QUIET)

    def worn_again(self, worn: object) -> list[Any]:
        """Return the adapters that were chosen last as far as they are still here, for the choice and for the browser.

        What is not here any more is told once.
        """
        if not isinstance(worn, list) or not worn:
            return [[] if worn == [] else gr.skip(), gr.skip()]
        fit = fitted({"loras": worn}, (), None, adapters=self.desk.adapters)
        say.changed(fit.notes)
        loras = fit.values["loras"] or None
        return [loras, loras]

    def earlier(self, history: object) -> Any:
        """Return the updates of the menus of earlier prompts."""
        choices = [(shortened(words), i) for i, (words, _) in enumerate(prompts(history)) if words]
        update = gr.update(choices=choices, value=None, visible=bool(choices))
        return [update] * len(self.menus) if len(self.menus) != 1 else update

    @told
    async def watch(self, client: object, shown: dict[str, Any], asked: gr.Request) -> AsyncIterator[list[Any]]:
        """Yield updates of everything that follows jobs, until nothing of this browser is under way."""
        known = self.desk.client(client, asked.session_hash)
        yielded = False
        async with aclosing(self.desk.follow(known)) as snapshots:
            async for snapshot in snapshots:
                seen, updates = await asyncio.to_thread(self.drawn, snapshot, shown)
                if yielded and seen == shown:  # a beat, so that a closed window is noticed
                    yield [gr.skip()] * (3 + len(updates))
                    continue
                shown, yielded = seen, True
                spec = snapshot.spec.id if snapshot.spec is not None else ""
                yield [gr.skip() if client == known else known, spec, shown, *updates]
                client = known

    def drawn(self, snapshot: Snapshot, shown: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        """Return what the views show now, and updates for those of them that showed something else."""
        seen, updates = dict[str, Any](), list[Any]()
        for i, view in enumerate(self.views):
            seen[str(i)] = state = repr(view.state(snapshot))
            changed = shown.get(str(i)) != state
            updates += view.render(snapshot) if changed else [gr.skip()] * len(view.outputs)
        return seen, updates


def prompts(history: object) -> list[list[str]]:
    """Return prompt and negative prompt of what a browser keeps; what else it sends is left out."""
    given = history if isinstance(history, list) else []
    return [entry for entry in given if isinstance(entry, list) and [*map(type, entry)] == [str, str]]


def shortened(text: str, most: int = 90) -> str:
    """Return a text as a line of a list."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
