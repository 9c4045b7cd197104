"""The LoRA set of the next requests: chips with a strength each, the same in every tab that draws."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from engine.errors import UsageError
from engine.lora import refs
from engine.lora.files import SUFFIX
from engine.lora.shelf import Card
from ui.adapters import Adapters, lacking, nickname
from ui.page import QUIET, View
from ui.say import told

if TYPE_CHECKING:
    from engine.catalog import ModelSpec
    from ui.page import Page

TAB = "loras"
REACH = 2  # how far the slider goes; more can be typed
SET_JS = """
let held = '';
const at = (target) => target.closest('[data-at]')?.dataset.at ?? '';
const number = (value) => Math.round(Number(value) * 100) / 100;
element.addEventListener('input', (event) => {
  const row = event.target.closest('[data-at]');
  const both = row ? [...row.querySelectorAll('input')] : [];
  for (const other of both) if (other !== event.target) other.value = event.target.value;
});
element.addEventListener('change', (event) => {
  if (!event.target.closest('[data-at]') || event.target.value === '') return;
  held = `[data-at="${at(event.target)}"] input[type=${event.target.type}]`;
  trigger('select', {what: 'scale', at: Number(at(event.target)), value: number(event.target.value)});
});
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-what]');
  if (button) trigger('select', {what: button.dataset.what, at: Number(at(button))});
});
watch('value', () => {
  const last = held && element.querySelector(held);
  if (last && document.activeElement === document.body) last.focus({preventScroll: true});
  held = '';
});
"""
Loras = Sequence[Mapping[str, Any]] | None  # None: those of the server


def build(page: Page) -> gr.HTML:
    """Place the set in a tab. All of them show the same."""
    if not page.sets:
        page.later(lambda: _connect(page))
    shown = chips(None, page.desk.adapters, page.desk.spec)
    widget = gr.HTML(shown, js_on_load=SET_JS, elem_classes="lora-set", padding=False)
    page.sets.append(widget)
    return widget


def _connect(page: Page) -> None:
    """Connect what is done in any of the sets, and have all of them follow."""
    adapters, server = page.desk.adapters, gr.State(page.desk.adapters.server)
    page.views.append(View([server], lambda snapshot: adapters.server, lambda snapshot: [adapters.server]))

    @told
    def act(loras: Loras, event: gr.EventData) -> list[Any]:
        if event._data["what"] == "choose":
            return [gr.skip(), gr.Tabs(selected=TAB)]
        return [changed(loras, event._data), gr.skip()]

    def show(loras: Loras) -> Any:
        update = chips(loras, adapters, page.desk.spec)
        return [update] * len(page.sets) if len(page.sets) > 1 else update

    gr.on([entry.select for entry in page.sets], act, [page.loras], [page.loras, page.tabs], **QUIET)
    gr.on([page.loras.change, server.change, page.model.change], show, [page.loras], page.sets, **QUIET)


# What a set is


def ref_of(card: Card, scale: float = 1.0) -> dict[str, Any]:
    """Return the plain reference of a card; a file of a repository with several has a name of its own."""
    entry = card.entry
    if entry.weight_name is None:
        return {**entry.named, "scale": scale}
    name = f"{entry.reference.rpartition('/')[2]}:{entry.weight_name.removesuffix(SUFFIX)}"[-refs.LONGEST :]
    return {**entry.named, "name": name, "scale": scale}


def key_of(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Return what two references have in common when they mean the same file."""
    return str(entry.get("path") or entry.get("name") or ""), str(entry.get("weight_name") or "")


def added(loras: Loras, card: Card) -> list[dict[str, Any]]:
    """Return a set with one more; what is in it already stays as it is."""
    new, old = ref_of(card), [dict(entry) for entry in loras or ()]
    return old if key_of(new) in map(key_of, old) else [*old, new]


def without(loras: Loras, card: Card) -> list[dict[str, Any]]:
    """Return a set without one."""
    gone = key_of(ref_of(card))
    return [dict(entry) for entry in loras or () if key_of(entry) != gone]


def changed(loras: Loras, event: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return a set after what a browser sent: a strength, one removed, none at all, those of the server.

    Raises UsageError for a strength that cannot be.
    """
    what, at = event.get("what"), event.get("at")
    found = [dict(entry) for entry in loras or ()]
    if what in ("none", "server"):
        return [] if what == "none" else None
    if not isinstance(at, int) or not 0 <= at < len(found):
        return None if loras is None else found
    if what == "remove":
        del found[at]
    elif what == "scale":
        value = event.get("value")
        if not isinstance(value, int | float):
            raise UsageError("strength: must be a number", param="strength")
        refs.check_strength(float(value))
        found[at]["scale"] = float(value)
    return found


# What it looks like


def chips(loras: Loras, adapters: Adapters, spec: ModelSpec | None) -> str:
    """Return the set as HTML."""
    server = adapters.server
    parts = ['<span class="label">LoRA</span>']
    if loras is None and server:
        names = ", ".join(f"{title(entry, adapters)} × {entry['scale']:g}" for entry in server)
        parts.append(f'<span class="of-server">{html.escape(names)} <span class="muted">of the server</span></span>')
    elif not loras:
        parts.append(f'<span class="muted">{"none, also not those of the server" if server else "none"}</span>')
    parts.append('<span class="rest"></span><button type="button" class="x" data-what="choose">Choose</button>')
    if loras is not None and server:
        parts.append('<button type="button" class="x" data-what="server">As the server</button>')
    if loras or (loras is None and server):
        parts.append('<button type="button" class="x" data-what="none">None</button>')
    rows = "".join(_row(at, entry, adapters, spec) for at, entry in enumerate(loras or ()))
    listed = f"<ul>{rows}</ul>" if rows else ""
    return f'<div class="picked"><div class="line top">{"".join(parts)}</div>{listed}</div>'


def title(entry: Mapping[str, Any], adapters: Adapters) -> str:
    """Return what people call an adapter: its title where it is known, else its name or that of its file."""
    card = adapters.find(entry.get("path"), entry.get("weight_name"))
    return card.title if card is not None else nickname(entry.get("name"), entry.get("path"))


def _row(at: int, entry: Mapping[str, Any], adapters: Adapters, spec: ModelSpec | None) -> str:
    card, scale = adapters.find(entry.get("path"), entry.get("weight_name")), float(entry.get("scale", 1.0))
    name = html.escape(title(entry, adapters))
    why = lacking(card, spec) if card is not None else ""
    words = ", ".join(card.trigger_words) if card is not None else ""
    under = f'<span class="why">{html.escape(why)}</span>' if why else ""
    under += f'<span class="muted">Say: {html.escape(words)}</span>' if words and not why else ""
    value = f'value="{scale:g}" aria-label="Strength of {name}"'
    return (
        f'<li data-at="{at}"><span class="what" title="{html.escape(str(entry.get("path") or ""))}">{name}</span>'
        f'<input type="range" min="{min(0, scale):g}" max="{max(REACH, scale):g}" step="0.05" {value}>'
        f'<input type="number" step="0.05" {value}>'
        f'<button type="button" class="x" data-what="remove" aria-label="Remove {name}">Remove</button>{under}</li>'
    )
