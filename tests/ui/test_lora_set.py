"""The set of adapters: what is added, changed and removed, and what people read about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.catalog import by_name
from engine.errors import UsageError
from engine.lora import shelf
from engine.lora.shelf import Card, Entry
from tests.ui.desks import desk_at
from ui import lora_set
from ui.desk import Desk


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_at(tmp_path_factory.mktemp("set")) as found:
        yield found


def bundled(name: str) -> Card:
    return next(card for card in shelf.cards() if card.entry.reference == name)


def test_cards_are_added_once_and_removed() -> None:
    pencil, neon = bundled("pencil-sketch"), bundled("neon-night")
    one = lora_set.added(None, pencil)
    assert one == [{"path": "pencil-sketch", "scale": 1.0}]
    both = lora_set.added(lora_set.changed(one, {"what": "scale", "at": 0, "value": 0.4}), neon)
    assert [entry["scale"] for entry in both] == [0.4, 1.0]
    assert lora_set.added(both, pencil) == both
    assert lora_set.without(both, pencil) == [{"path": "neon-night", "scale": 1.0}]


def test_two_files_of_a_repository_go_together(desk: Desk) -> None:
    path = bundled("pixel-art").entry.path
    cards = [shelf.card(Entry("me/styles", name, "cached", path)) for name in ("a.safetensors", "b.safetensors")]
    chosen = lora_set.added(lora_set.added(None, cards[0]), cards[1])
    assert [entry["weight_name"] for entry in chosen] == ["a.safetensors", "b.safetensors"]


def test_what_a_browser_sends_changes_a_set() -> None:
    both = [{"path": "a", "scale": 1.0}, {"path": "b", "scale": 1.0}]
    assert lora_set.changed(both, {"what": "remove", "at": 0}) == [both[1]]
    assert lora_set.changed(both, {"what": "none"}) == []
    assert lora_set.changed(both, {"what": "server"}) is None
    assert lora_set.changed(both, {"what": "remove", "at": 7}) == both
    assert lora_set.changed(None, {"what": "scale", "at": 0, "value": 1}) is None
    for value in ("loud", None, 1e9):
        with pytest.raises(UsageError, match="strength"):
            lora_set.changed(both, {"what": "scale", "at": 0, "value": value})
    assert both[0]["scale"] == 1.0


def test_the_set_is_read_with_titles_and_what_does_not_fit(desk: Desk) -> None:
    chosen: list[dict[str, Any]] = [{"path": "pencil-sketch", "scale": 3.0}, {"path": "<b>/x.safetensors"}]
    shown = lora_set.chips(chosen, desk.adapters, by_name("tiny-scenes"))
    assert 'aria-label="Strength of Pencil sketch"' in shown and 'max="3"' in shown
    assert "<b>" not in shown and "Made for" not in shown
    assert "Made for tiny-scenes, not for Z-Image." in lora_set.chips(chosen, desk.adapters, by_name("Z-Image"))


def test_it_says_whose_adapters_are_drawn_with(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = desk.spec
    assert ">none<" in lora_set.chips(None, desk.adapters, spec)
    assert "As the server" not in lora_set.chips([], desk.adapters, spec)
    served = property(lambda self: [{"path": "neon-night", "name": "n", "scale": 0.5}])
    monkeypatch.setattr(type(desk.adapters), "server", served)
    assert "Neon night × 0.5" in lora_set.chips(None, desk.adapters, spec)
    assert "also not those of the server" in lora_set.chips([], desk.adapters, spec)
    assert "As the server" in lora_set.chips([], desk.adapters, spec)


def test_a_name_is_found_where_nothing_else_is_known(desk: Desk) -> None:
    assert lora_set.title({"path": str(Path("far") / "away.safetensors")}, desk.adapters) == "away"
    assert lora_set.title({"name": "mine"}, desk.adapters) == "mine"
