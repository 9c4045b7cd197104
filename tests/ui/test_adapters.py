"""Adapters of the page: known ones, uploads and paths that are checked, those of the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.catalog import by_name
from engine.errors import InputError, ModelError, UsageError
from engine.lora.files import locate
from engine.types import LoraRef
from tests.engine.lora.repository import Repository
from tests.ui.desks import desk_at
from ui.adapters import Adapters, lacking
from ui.desk import Desk
from ui.lora_set import ref_of

FLUX = "transformer.single_transformer_blocks.0.attn.to_q"


def write(path: Path, kind: str = "lora_A lora_B", **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    down, up = kind.split()
    state = {f"{FLUX}.{down}.weight": torch.zeros(4, 64), f"{FLUX}.{up}.weight": torch.zeros(64, 4)}
    save_file(state, path, metadata=metadata)
    return path


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_at(tmp_path_factory.mktemp("adapters")) as found:
        yield found


@pytest.fixture
def adapters(desk: Desk, tmp_path: Path) -> Adapters:
    """Adapters with a folder of their own."""
    return Adapters(desk.queue, desk.environment, tmp_path / "loras", None)


def references(adapters: Adapters) -> list[str]:
    return [card.entry.reference for card in adapters.cards()]


def test_an_upload_is_kept_once_under_its_own_name(adapters: Adapters, tmp_path: Path) -> None:
    source = write(tmp_path / "up" / "ink.safetensors", ss_output_name="Ink")
    card = adapters.upload(source)
    assert card.title == "Ink" and card.entry.path == (adapters.folder / "ink.safetensors").resolve()
    assert adapters.upload(source).entry == card.entry
    other = adapters.upload(write(tmp_path / "other" / "ink.safetensors", ss_output_name="Other ink"))
    assert other.entry.path.name == "ink-2.safetensors"
    assert {"ink.safetensors", "ink-2.safetensors"} == {path.name for path in adapters.folder.iterdir()}
    assert str(other.entry.path) in references(adapters)


def test_what_is_no_adapter_is_not_kept(adapters: Adapters, tmp_path: Path) -> None:
    broken = tmp_path / "holiday.safetensors"
    broken.write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"^holiday.safetensors: is no safetensors file"):
        adapters.upload(broken)
    whole = tmp_path / "model.safetensors"
    save_file({"blocks.0.weight": torch.zeros(4, 4)}, whole)
    with pytest.raises(InputError, match=r"^model.safetensors: holds weights of a model"):
        adapters.upload(whole)
    loha = tmp_path / "loha.safetensors"
    save_file({"lora_unet_a.hada_w1_a": torch.zeros(4, 4), "lora_unet_a.hada_w1_b": torch.zeros(4, 4)}, loha)
    with pytest.raises(InputError, match="only LoRA can be used"):
        adapters.upload(loha)
    assert not adapters.folder.exists()


def test_a_path_is_remembered(adapters: Adapters, desk: Desk, tmp_path: Path) -> None:
    path = write(tmp_path / "far" / "ink.safetensors")
    assert adapters.add(f" {path} ", None).entry.reference == str(path)
    assert not (adapters.folder / path.name).exists()
    again = Adapters(desk.queue, desk.environment, adapters.folder, None)
    assert references(again).count(str(path)) == 1
    again.add(str(path), None)
    assert references(again).count(str(path)) == 1
    path.unlink()
    again.cards(fresh=True)
    assert str(path) not in references(again)


def test_what_ships_is_added_by_its_name(adapters: Adapters) -> None:
    assert adapters.add("pixel-art", None).title == "Pixel art"
    for reference, said in (("", "say which LoRA"), ("pixel-ort", "pixel-art"), ("/nowhere/x.safetensors", "no such")):
        with pytest.raises((UsageError, ModelError), match=said):
            adapters.add(reference, None)


def test_a_file_in_a_folder_of_a_repository(
    adapters: Adapters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """However it is named, it is the one card that requests, recipes and the command line can name."""
    hub = Repository("me/styles", tmp_path / "cache", monkeypatch)
    for name in ("high/ink.safetensors", "low/ink.safetensors", "low/neon.safetensors"):
        hub.add(name, write(tmp_path / "made.safetensors", ss_output_name=name))
    for reference, name in (("me/styles/low/neon.safetensors", None), ("me/styles", "low/neon"), ("me/styles", "neon")):
        card = adapters.add(reference, name)
        assert (card.entry.reference, card.entry.weight_name) == ("me/styles", "low/neon.safetensors")
    assert references(adapters).count("me/styles") == 3
    found = adapters.find("me/styles/high/ink.safetensors")
    assert found is not None and found.title == "high/ink.safetensors"
    both = [ref_of(card) for card in adapters.cards() if card.entry.path.name == "ink.safetensors"]
    assert [entry["name"] for entry in both] == ["styles:high/ink", "styles:low/ink"]
    for entry in both:
        assert locate(entry["path"], entry["weight_name"]) == hub.snapshot / entry["weight_name"]
    (here,) = adapters.here([{"path": "neon.safetensors", "scale": 0.5}]) or ()
    assert here == {"path": "me/styles", "weight_name": "low/neon.safetensors", "scale": 0.5}


def test_only_allowed_folders_are_read(desk: Desk, tmp_path: Path) -> None:
    inside, outside = write(tmp_path / "in" / "a.safetensors"), write(tmp_path / "out" / "b.safetensors")
    fenced = Adapters(desk.queue, desk.environment, tmp_path / "loras", (tmp_path / "in",))
    assert str(inside) in references(fenced) and fenced.add(str(inside), None).entry.path == inside
    with pytest.raises(UsageError, match="--lora-allowed-dirs"):
        fenced.add(str(outside), None)
    kept = fenced.upload(outside).entry.reference
    fenced.check(desk.request({"loras": [{"path": kept}, {"path": "neon-night"}]}))
    with pytest.raises(UsageError, match="not in a folder"):
        fenced.check(desk.request({"loras": [{"path": str(outside)}]}))
    with pytest.raises(UsageError, match="not in a folder"):
        fenced.apply([LoraRef(path=str(outside))])


def test_a_recipe_finds_its_file_by_name(adapters: Adapters, tmp_path: Path) -> None:
    kept = adapters.upload(write(tmp_path / "ink.safetensors")).entry.reference
    found = adapters.here([{"path": "ink.safetensors", "scale": 0.5}, {"path": "gone.safetensors"}, {"name": "x"}])
    assert found == [{"path": kept, "scale": 0.5}, {"path": "gone.safetensors"}, {"name": "x"}]
    assert adapters.here(None) is None


def test_the_server_takes_a_set_and_gives_it_back(adapters: Adapters) -> None:
    with pytest.raises(UsageError, match="choose at least one"):
        adapters.apply([])
    assert adapters.apply([LoraRef(path="pencil-sketch", scale=0.5)]) == []
    assert [(entry["path"], entry["scale"]) for entry in adapters.server] == [("pencil-sketch", 0.5)]
    active = adapters.listing()["active"]["transformer"]
    assert [(entry["nickname"], entry["strength"]) for entry in active] == [("pencil-sketch", 0.5)]
    adapters.unmerge()
    assert adapters.server == [] and adapters.listing()["active"] == {}


def test_where_all_is_fixed_there_is_a_choice_alone(adapters: Adapters, tmp_path: Path) -> None:
    adapters.fixed, adapters.offered = True, ("neon-night",)
    assert references(adapters) == ["neon-night"]
    for attempt in (lambda: adapters.add("pixel-art", None), adapters.unmerge, lambda: adapters.upload(tmp_path)):
        with pytest.raises(UsageError, match="fixed"):
            attempt()


def test_reasons_against_a_card(adapters: Adapters) -> None:
    card = adapters.find("neon-night.safetensors")
    assert card is not None and lacking(card, by_name("tiny-scenes")) == "" == lacking(card, None)
    assert lacking(card, by_name("Z-Image")) == "Made for tiny-scenes, not for Z-Image."
