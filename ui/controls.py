"""Controls that Generate, Edit and Video share: words, guidance, seed and count, and what runs and cancels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from ui.forms import Form, seed_text, seeds
from ui.page import QUIET, prompts
from ui.panel import Panel
from ui.say import told

if TYPE_CHECKING:
    from engine.catalog import ModelSpec
    from ui.page import Page

HISTORY = 50  # prompts that a browser remembers, each
LONGEST = 4000  # of so many characters at most, its negative prompt included,
ROOM = 60_000  # and all of them together of so many: what a browser keeps for a page is small
MOST = 4  # outputs that the count offers
Prepare = Callable[..., Mapping[str, Any] | None]


# Sides of a chip, as the fields hold them.
PICK_JS = "(chip, table) => JSON.parse(table).chips[chip] ?? ['', '']"
# The chip that has these sides, an empty one being the model's own; none while something else is typed.
TELL_JS = """(width, height, table) => {
  const {chips, own, empty} = JSON.parse(table);
  const [across, down] = [width, height].map(side => (side ?? '').trim().replace(/^0+(?=.)/, ''));
  if (!across && !down) return empty;
  const same = ([w, h]) => w === (across || own[0]) && h === (down || own[1]);
  return Object.keys(chips).find(chip => same(chips[chip])) ?? null;
}"""


@dataclass(frozen=True, slots=True)
class Shapes:
    """The chips of a model with their sides, None where the model decides; its own sides; the chip of empty fields."""

    chips: Mapping[str, tuple[int | None, int | None]]
    own: tuple[int, int]
    empty: str | None

    def text(self) -> str:
        """Return them for the browser, sides as the fields hold them."""
        chips = {chip: [str(side or "") for side in sides] for chip, sides in self.chips.items()}
        return json.dumps({"chips": chips, "own": [str(side) for side in self.own], "empty": self.empty})


@dataclass(slots=True)
class RunRow:
    """What starts a job and what ends it."""

    run: gr.Button
    stop: gr.Button


@dataclass(slots=True)
class SeedRow:
    """What empties the seed, and what keeps that of the chosen result."""

    dice: gr.Button
    lock: gr.Button


def words(form: Form, placeholder: str, **settings: Any) -> None:
    """Place prompt and negative prompt."""
    form.widget("prompt", lines=3, max_lines=12, info=None, placeholder=placeholder, **settings)
    form.widget("negative_prompt", lines=1, max_lines=6, info=None, placeholder="What to keep out")


def earlier(page: Page, form: Form) -> None:
    """Place the menu of the prompts that this browser has asked for; choosing one puts it into the form."""
    menu = gr.Dropdown(
        [], value=None, label="Earlier prompts", show_label=False, container=False, filterable=True,
        elem_classes="earlier", visible=False,
    )  # fmt: skip
    page.menus.append(menu)

    def pick(chosen: int | None, history: object) -> list[Any]:
        known = prompts(history)
        if chosen is None or not 0 <= chosen < len(known):
            return [gr.skip(), gr.skip(), None]
        return [*known[chosen], None]

    menu.input(pick, [menu, page.history], [form["prompt"], form["negative_prompt"], menu], **QUIET)


def run_row(label: str) -> RunRow:
    """Place the buttons that the keys press: Ctrl+Enter the one, Esc the other."""
    with gr.Row(elem_classes="run-row"):
        run = gr.Button(label, variant="primary", elem_classes="run", scale=3, min_width=120)
        stop = gr.Button("Cancel", elem_classes="cancel", scale=1, min_width=80)
    return RunRow(run, stop)


def guidance_row(form: Form) -> None:
    """Place steps and guidance, of which a model uses one kind or the other."""
    with gr.Row():
        for name in ("num_inference_steps", "true_cfg_scale", "guidance_scale"):
            form.widget(name, min_width=140, info=None)


def seed_row(form: Form) -> SeedRow:
    """Place seed and count."""
    with gr.Row(elem_classes="seed-row"):
        seed = gr.Textbox(label="Seed", placeholder="random", max_lines=1, min_width=140, scale=2)
        form.add("seed", seed, seeds, seed_text)
        dice = gr.Button("Random", elem_classes="icon", min_width=72, scale=0)
        lock = gr.Button("Keep", elem_classes="icon", min_width=64, scale=0)
        form.add(
            "num_outputs_per_prompt",
            gr.Radio(counts(1), value=1, label="Count", elem_classes="chips", min_width=220, scale=3),
            settings=lambda spec, value: {"choices": counts(value)},
        )
    return SeedRow(dice, lock)


def counts(value: int) -> list[int]:
    """Return the counts to choose from: a few, and the one that is asked for if it is another."""
    return [*range(1, MOST + 1), *([value] if value > MOST else [])]


def reset(page: Page, form: Form) -> None:
    """Place what sets a form back to what the model says of itself; the prompt stays."""
    with gr.Row(elem_classes="reset-row"):
        back = gr.Button("Reset to the defaults", size="sm", elem_classes="quiet", scale=0, min_width=80)

    page.later(lambda: back.click(lambda: form.defaults(page.desk.spec), None, form.components, **QUIET))


def connect_run(
    page: Page,
    tab: str,
    row: RunRow,
    *,
    inputs: Sequence[Any] = (),
    prepare: Prepare = lambda *given: {},
) -> None:
    """Connect what runs and what cancels in a tab.

    `prepare` returns fields beside those of the form, of the values of `inputs`; None when there is nothing to run.
    """
    form = page.forms[tab]

    @told
    def submit(asked: gr.Request, client: object, loras: Any, history: object, *given: Any) -> list[Any]:
        own, entered = given[: len(inputs)], given[len(inputs) :]
        values = form.values(entered)
        more = prepare(*own)
        if more is None:
            return [gr.skip(), gr.skip()]
        job = page.submit(tab, {**values, **more}, page.desk.client(client, asked.session_hash), loras)
        pair = [values.get("prompt") or "", values.get("negative_prompt") or ""]
        return [job.id, remembered([pair, *prompts(history)])]

    @told
    def cancel(asked: gr.Request, client: object) -> None:
        page.desk.cancel_current(page.desk.client(client, asked.session_hash), tab)

    given = [page.client, page.loras, page.history, *inputs, *form.components]
    row.run.click(submit, given, [page.pulse, page.history], trigger_mode="multiple", **QUIET)
    row.stop.click(cancel, [page.client], None, **QUIET)


def remembered(pairs: Iterable[list[str]]) -> list[list[str]]:
    """Return what a browser is to remember of prompts, the newest first: each once, none too long, not too many."""
    found, room = list[list[str]](), ROOM
    for pair in pairs:
        length = sum(map(len, pair))
        if length > LONGEST or pair in found:
            continue
        room -= length
        if room < 0 or len(found) == HISTORY:
            break
        found.append(pair)
    return found


def connect_chips(page: Page, form: Form, chips: gr.Radio, shapes: Callable[[ModelSpec | None], Shapes]) -> None:
    """Keep chips, width and height together: in the browser, where both sides are known when either changes.

    To be called inside the layout: the table that the browser looks at is part of the page.
    """
    sides = [form["width"], form["height"]]
    table = gr.Textbox(shapes(page.desk.spec).text(), visible="hidden")
    page.on_model([table], lambda: [shapes(page.desk.spec).text()])
    chips.input(None, [chips, table], sides, js=PICK_JS, **QUIET)
    gr.on([part.change for part in (*sides, table)], None, [*sides, table], [chips], js=TELL_JS, **QUIET)


def connect_seed(panel: Panel, form: Form, row: SeedRow) -> None:
    """Connect the dice and the lock."""

    @told
    def keep(items: Sequence[Any], chosen: int, now: str) -> str:
        if not items:
            return now
        return str(panel.made_at(items, chosen)[1].seed)

    row.dice.click(lambda: "", None, [form["seed"]], **QUIET)
    row.lock.click(keep, [panel.items, panel.chosen, form["seed"]], [form["seed"]], **QUIET)
