"""What a page shows of the adapters that are here, and for which models they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from engine import catalog, hub
from engine.catalog import ModelSpec
from engine.errors import UsageError
from engine.lora import files, shelf

FLUX, WAN = "transformer.single_transformer_blocks.0.attn.to_q", "blocks.0.self_attn.q"


def write(path: Path, base: str = FLUX, **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {f"{base}.lora_A.weight": torch.zeros(4, 64), f"{base}.lora_B.weight": torch.zeros(64, 4)}
    save_file(state, path, metadata=metadata)
    return path


def spec(name: str) -> ModelSpec:
    found = catalog.by_name(name)
    assert found is not None
    return found


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what is here beside a test's own files."""
    monkeypatch.setattr(hub, "bundled_loras", dict)
    monkeypatch.setattr(files, "cached", lambda: iter(()))


def test_every_adapter_that_ships_can_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "cached", lambda: iter(()))
    found = {card.entry.reference: card for card in shelf.cards()}
    assert list(found) == ["neon-night", "pencil-sketch", "pixel-art"]
    card = found["pencil-sketch"]
    assert (card.title, card.entry.origin, card.layout) == ("Pencil sketch", "bundled", "diffusers")
    assert "style for tiny-scenes" in card.notes
    for card in found.values():
        assert card.preview is not None
        assert card.preview.stat().st_size <= 20_000
        with Image.open(card.preview) as image:
            assert image.size == (160, 160)
        assert card.fits(spec("tiny-scenes")) is True
        assert card.fits(spec("FLUX.1-dev")) is False
        assert card.fits(spec("Z-Image")) is False


@pytest.mark.usefixtures("alone")
def test_files_of_a_folder_and_what_lies_beside_them(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", trigger_words='["ink wash"]', ss_output_name="inky")
    write(tmp_path / "deep" / "b.safetensors", WAN, notes="one\n two\x1b[31m")
    (tmp_path / "broken.safetensors").write_bytes(b"x" * 100)
    save_file({"decoder.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.preview.png")
    a, b = shelf.cards([tmp_path])
    assert (a.title, a.trigger_words, a.preview) == ("inky", ("ink wash",), tmp_path / "a.preview.png")
    assert (b.title, b.notes, b.preview) == ("b", "one two?[31m", None)
    assert (a.entry.reference, a.entry.origin) == (str(tmp_path / "a.safetensors"), "folder")
    assert [card.title for card in (a, b) if card.found_by("INK flux")] == ["inky"]
    assert b.found_by("") and not b.found_by("ink")


@pytest.mark.usefixtures("alone")
def test_for_which_model_a_file_is(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors")
    write(tmp_path / "b.safetensors", base_model="black-forest-labs/FLUX.1-dev")
    write(tmp_path / "c.safetensors", WAN)
    write(tmp_path / "d.safetensors", "something.unusual")
    a, b, c, d = shelf.cards([tmp_path])
    assert [card.fits(spec("FLUX.1-schnell")) for card in (a, b, c, d)] == [True, True, False, None]
    assert [card.fits(spec("tiny-scenes")) for card in (a, b, c, d)] == [None, False, False, None]
    assert c.fits(spec("Wan2.1-T2V-14B-Diffusers")) is True


@pytest.mark.usefixtures("alone")
def test_an_adapter_that_cannot_be_read_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = write(tmp_path / "good.safetensors"), tmp_path / "bad.safetensors"
    bad.write_bytes(b"no")
    monkeypatch.setattr(hub, "bundled_loras", lambda: {"good": good, "bad": bad})
    assert [card.title for card in shelf.cards()] == ["good"]
    assert "bad.safetensors: is no safetensors file" in caplog.text


def test_every_guess_is_a_family_or_none() -> None:
    from engine.lora.facts import GUESSES

    assert shelf.FAMILIES.keys() == GUESSES.keys()
    known = {entry.family for entry in catalog.MODELS}
    assert {family for families in shelf.FAMILIES.values() for family in families} <= known


@pytest.mark.usefixtures("alone")
def test_files_are_kept_and_those_elsewhere_noted(tmp_path: Path) -> None:
    folder, far = tmp_path / "shelf", write(tmp_path / "far" / "a.safetensors")
    kept = shelf.keep(far, folder)
    assert kept == folder / "a.safetensors" and kept.read_bytes() == far.read_bytes()
    assert shelf.keep(far, folder) == kept
    other = write(tmp_path / "other" / "a.safetensors", notes="another")
    assert shelf.keep(other, folder).name == "a-2.safetensors"
    model = tmp_path / "model.safetensors"
    save_file({"decoder.weight": torch.zeros(2)}, model)
    with pytest.raises(UsageError, match="not of a LoRA"):
        shelf.keep(model, folder)
    shelf.note(far, folder)
    shelf.note(far, folder)
    assert [card.entry.path for card in shelf.cards([folder])] == [folder / "a-2.safetensors", kept, far]
    far.unlink()
    assert len(shelf.cards([folder])) == 2
