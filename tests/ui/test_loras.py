"""The LoRA tab: its cards, and what it says of the server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest

from engine.lora import shelf
from engine.lora.shelf import Card
from tests.ui.desks import desk_at
from ui import loras
from ui.desk import Desk
from ui.page import Page


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_at(tmp_path_factory.mktemp("loras")) as found:
        yield found


@pytest.fixture(scope="module")
def tab(desk: Desk) -> loras.Shelf:
    with gr.Blocks():
        page = Page(desk)
        with gr.Tabs() as page.tabs, gr.Tab("LoRA") as found:
            return loras.Shelf(page, found)


@pytest.fixture
def card() -> Card:
    return next(card for card in shelf.cards() if card.entry.reference == "pixel-art")


def test_a_search_finds_cards(tab: loras.Shelf) -> None:
    shown = tab.grid("", None)
    assert all(f'aria-label="Add {title}"' in shown for title in ("Neon night", "Pencil sketch", "Pixel art"))
    assert "file=" in shown  # a preview
    assert "Pencil" in tab.grid("pencil", None) and "Neon" not in tab.grid("pencil", None)
    assert loras.NO_MATCH in tab.grid("no such thing", None)


def test_a_card_in_the_set_can_be_removed(tab: loras.Shelf) -> None:
    shown = tab.grid("pencil", [{"path": "pencil-sketch", "scale": 0.3}])
    assert 'aria-label="Remove Pencil sketch"' in shown and 'aria-label="Add Pencil sketch"' not in shown


def test_what_cannot_be_used_has_a_reason_and_no_buttons(card: Card) -> None:
    told = replace(card, title="<b>bold</b>", trigger_words=('ink "wash"',), size=2000)
    shown = loras.shown_card(told, "Made for Wan, not for tiny-scenes.", False, lambda path: None)
    assert "unfit" in shown and "Made for Wan" in shown and "data-what" not in shown
    assert "<b>" not in shown and 'data-copy="ink &quot;wash&quot;"' in shown
    assert "No preview" in shown and "2 kB" in shown


def test_a_preview_is_a_small_copy_that_is_served(desk: Desk, card: Card, tmp_path: Path) -> None:
    assert card.preview is not None
    small = desk.thumbnails.of_picture(card.preview)
    assert small is not None and small.parent == desk.thumbnails.folder
    assert desk.thumbnails.of_picture(card.preview) == small
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    assert desk.thumbnails.of_picture(broken) is None
    assert desk.thumbnails.of_picture(tmp_path / "gone.png") is None


def test_what_the_server_holds_is_said() -> None:
    entry = {"nickname": "<neon>", "strength": 0.5, "merged": True}
    beside = {"nickname": "pencil", "strength": 1.0, "merged": False}
    loaded = [{"nickname": name} for name in ("<neon>", "pencil", "pixel")]
    said = loras.listed({"active": {"transformer": [entry, beside]}, "loaded_adapters": loaded})
    assert "&lt;neon&gt; × 0.5" in said and "transformer, merged" in said
    assert "pencil × 1" in said and "transformer, beside the weights" in said
    assert said.endswith("Also in memory: pixel</div>")
    assert "Nothing is merged now" in loras.listed({"active": {}, "loaded_adapters": []})


def test_the_server_is_asked(tab: loras.Shelf) -> None:
    assert "Nothing is merged now" in tab.server()
