"""The LoRA tab: the adapters that are known, the set of the next pictures, and what the server draws with."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from engine import schema
from engine.errors import NotFound, SgdiffError
from engine.lora import files as lora_files
from engine.lora.shelf import Card
from engine.types import LoraRef
from ui import files, lora_set, say
from ui.adapters import lacking
from ui.lora_set import Loras, added, key_of, ref_of, without
from ui.page import QUIET
from ui.say import told

if TYPE_CHECKING:
    from ui.page import Page

NAME = lora_set.TAB
MB = 10**6
SHOWN = 120  # cards at once; the search finds the others
ORIGINS = {"bundled": "comes with the program", "cached": "from the hub", "folder": "on this machine"}
NONE = "No LoRA yet. Add one by its hub id, its path, or by dropping a file."
NO_MATCH = "Nothing matches. Try other words."
HINT = "For my next pictures: what you choose here goes along with what you ask for in Generate, Edit and Video."
SERVER_HINT = (
    "For everybody: the server merges these into the model. They are drawn with whenever a page says nothing else."
)
UNKNOWN = '<div class="line muted">The model is not ready yet.</div>'
CARDS_JS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.dataset.copy) window.sgdiffCopy(button.dataset.copy);
  else trigger('select', {what: button.dataset.what, named: button.dataset.named, file: button.dataset.file});
});
"""
Small = Callable[[Path], Path | None]


def build(page: Page) -> gr.Tab:
    """Build the tab."""
    with page.tab(NAME, "LoRA") as tab:
        Shelf(page, tab)
    return tab


class Shelf:
    """What the tab shows, and what can be done there."""

    def __init__(self, page: Page, tab: gr.Tab) -> None:
        self.page, self.adapters = page, page.desk.adapters
        fixed = self.adapters.fixed
        with gr.Row(elem_classes="workspace"):
            with gr.Column(scale=5, min_width=320, elem_classes="settings"):
                gr.HTML(f'<div class="line muted">{HINT}</div>', padding=False)
                lora_set.build(page)
                with gr.Accordion("Add a LoRA", open=False, visible=not fixed):
                    self._build_add()
                with gr.Accordion("On the server", open=False, visible=not fixed):
                    self._build_server()
            with gr.Column(scale=7, min_width=320):
                self.search = gr.Textbox(
                    label="Search LoRA", show_label=False, container=False, placeholder="Search LoRA", max_lines=1,
                    elem_classes="search",
                )  # fmt: skip
                self.cards = gr.HTML(self.grid("", None), js_on_load=CARDS_JS, padding=False, elem_classes="lora-cards")
        page.later(lambda: self._connect(tab))

    def _build_add(self) -> None:
        self.reference = gr.Textbox(
            label="Hub id or path", placeholder="owner/name, or a file on the server", max_lines=1
        )
        self.file = gr.Textbox(label="File", placeholder="only where there are several", max_lines=1)
        self.add = gr.Button("Add", size="sm", elem_classes="other")
        self.upload = gr.File(
            label="Or drop a .safetensors file", file_types=[lora_files.SUFFIX], height=120, elem_classes="lora-file"
        )

    def _build_server(self) -> None:
        gr.HTML(f'<div class="line muted">{SERVER_HINT}</div>', padding=False)
        self.merged = gr.HTML(UNKNOWN, padding=False, elem_classes="merged")
        with gr.Row(elem_classes="actions"):
            self.apply = gr.Button("Merge my set", size="sm", min_width=80)
            self.unmerge = gr.Button("Unmerge", size="sm", min_width=80)

    def grid(self, search: str, loras: Loras, fresh: bool = False) -> str:
        """Return the cards that a search finds; those that the model cannot take come last."""
        spec = self.page.desk.spec
        cards = self.adapters.cards(fresh)
        found = [card for card in cards if card.found_by(search or "")]
        found.sort(key=lambda card: bool(lacking(card, spec)))
        if not found:
            return f'<div class="blank muted">{NO_MATCH if cards else NONE}</div>'
        chosen = {key_of(entry) for entry in loras or ()}
        shown = "".join(
            shown_card(card, lacking(card, spec), key_of(ref_of(card)) in chosen, self.page.desk.thumbnails.of_picture)
            for card in found[:SHOWN]
        )
        rest = f'<div class="line muted">{len(found) - SHOWN} more. Search to find them.</div>'
        return f'<ul class="adapters">{shown}</ul>{rest if len(found) > SHOWN else ""}'

    def server(self) -> str:
        """Return what the server holds."""
        if self.page.desk.queue.health != "ready":
            return UNKNOWN
        try:
            return listed(self.adapters.listing())
        except SgdiffError as error:
            return f'<div class="line muted">{html.escape(error.message)}</div>'

    # Events

    def _connect(self, tab: gr.Tab) -> None:
        page, adapters = self.page, self.adapters

        @told
        def choose(loras: Loras, event: gr.EventData) -> list[dict[str, Any]]:
            card = adapters.find(event._data.get("named"), event._data.get("file") or None)
            if card is None:
                raise NotFound("this LoRA is not there any more")
            what = event._data.get("what")
            return [ref_of(card)] if what == "use" else without(loras, card) if what == "remove" else added(loras, card)

        def look(search: str, loras: Loras) -> list[str]:
            return [self.grid(search, loras, fresh=True), self.server()]

        @told
        def add(reference: str, file: str, search: str, loras: Loras) -> list[Any]:
            card = adapters.add(reference, file.strip() or None)
            return ["", "", added(loras, card), self.grid(search, added(loras, card))]

        @told
        def upload(path: str | None, search: str, loras: Loras) -> list[Any]:
            if not path:
                return [gr.skip()] * 3
            card = adapters.upload(Path(path))
            return [None, added(loras, card), self.grid(search, added(loras, card))]

        @told
        def apply(loras: Loras) -> str:
            warnings = adapters.apply([schema.read(LoraRef, dict(entry)) for entry in loras or ()])
            for warning in warnings:
                say.warn(warning, "On the server")
            return self.server()

        @told
        def unmerge() -> str:
            adapters.unmerge()
            return self.server()

        shown = [self.search, page.loras]
        self.cards.select(choose, [page.loras], [page.loras], **QUIET)
        gr.on([self.search.change, page.loras.change, page.model.change], self.grid, shown, [self.cards], **QUIET)
        tab.select(look, shown, [self.cards, self.merged], **QUIET)
        given = [self.reference, self.file, *shown]
        outputs = [self.reference, self.file, page.loras, self.cards]
        gr.on([self.add.click, self.reference.submit, self.file.submit], add, given, outputs, **QUIET)
        self.upload.upload(upload, [self.upload, *shown], [self.upload, page.loras, self.cards], **QUIET)
        self.apply.click(apply, [page.loras], [self.merged], **QUIET)
        self.unmerge.click(unmerge, None, [self.merged], **QUIET)


# What it looks like


def shown_card(card: Card, why: str, chosen: bool, small: Small) -> str:
    """Return the card of an adapter; `why` says what keeps it from being used."""
    title, entry = html.escape(card.title), card.entry
    preview = small(card.preview) if card.preview is not None else None
    picture = (
        f'<img src="{files.url(preview)}" alt="" loading="lazy">' if preview else '<span class="gone">No preview</span>'
    )
    told_of = " · ".join([sized(card.size), card.layout, *_rank(card), ORIGINS.get(entry.origin, entry.origin)])
    words = "".join(
        f'<button type="button" class="word" data-copy="{html.escape(word)}" title="Copy">{html.escape(word)}</button>'
        for word in card.trigger_words
    )
    address = f'data-named="{html.escape(entry.reference)}" data-file="{html.escape(entry.weight_name or "")}"'
    other = ("remove", "Remove") if chosen else ("add", "Add")
    buttons = (
        ""
        if why
        else (
            f'<button type="button" class="x" data-what="use" {address} aria-label="Use {title} alone">Use</button>'
            f'<button type="button" class="x" data-what="{other[0]}" {address} aria-label="{other[1]} {title}">'
            f"{other[1]}</button>"
        )
    )
    return (
        f'<li class="adapter{" marked" if chosen else ""}{" unfit" if why else ""}">'
        f'<div class="shot">{picture}</div><div class="name" title="{html.escape(str(entry.path))}">{title}</div>'
        f"{f'<div class=words>{words}</div>' if words else ''}"
        f"{f'<div class=why>{html.escape(why)}</div>' if why else ''}"
        f"{f'<div class=notes>{html.escape(card.notes)}</div>' if card.notes else ''}"
        f'<div class="about">{html.escape(told_of)}</div>'
        f"{f'<div class=line>{buttons}</div>' if buttons else ''}</li>"
    )


def sized(count: int) -> str:
    """Return a number of bytes as people say it."""
    return f"{count / MB:.1f} MB" if count >= MB / 10 else f"{max(1, count // 1000)} kB"


def _rank(card: Card) -> list[str]:
    return [f"rank {', '.join(map(str, card.ranks[:3]))}"] if card.ranks else []


def listed(told_of: Mapping[str, Any]) -> str:
    """Return what a worker says of its adapters: what is in effect where, what else it holds."""
    active: Mapping[str, Sequence[Mapping[str, Any]]] = told_of.get("active") or {}
    rows = [_merged(component, entry) for component, entries in active.items() for entry in entries]
    names = {str(entry["nickname"]) for entries in active.values() for entry in entries}
    held = [str(entry["nickname"]) for entry in told_of.get("loaded_adapters") or () if entry["nickname"] not in names]
    found = f'<ul class="queue">{"".join(rows)}</ul>' if rows else '<div class="line">Nothing is merged now.</div>'
    more = f'<div class="line muted">Also in memory: {html.escape(", ".join(held))}</div>' if held else ""
    return found + more


def _merged(component: str, entry: Mapping[str, Any]) -> str:
    name, how = html.escape(str(entry["nickname"])), "merged" if entry.get("merged") else "beside the weights"
    return (
        f'<li><span class="what">{name} × {float(entry["strength"]):g}</span>'
        f'<span class="muted">{html.escape(component)}, {how}</span></li>'
    )
