"""`generate` with LoRAs: flags to a picture, a picture to the same flags, and mistakes before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import loader, media

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def ink(flux_folder: Path, lora_file: Callable[..., Path]) -> Path:
    from diffusers import FluxTransformer2DModel

    return lora_file(FluxTransformer2DModel.from_pretrained(flux_folder / "transformer"), "ink")


@pytest.fixture
def draw(cli: Cli, flux_folder: Path) -> Cli:
    """Draw a small picture with the tiny model; the answer is its pixels."""

    def run(name: str, *words: object) -> Any:
        answer = cli("generate", "--model-path", flux_folder, "--output-file-path", name, *words)
        assert answer.status == 0, answer.err
        return np.asarray(Image.open(name).convert("RGB")), answer.err

    return run


NEW = ("--prompt", "a fox", "--size", "32x32", "--steps", "2", "--seed", "3")


def test_a_replay_finds_the_lora_by_its_name(draw: Cli, cli: Cli, flux_folder: Path, ink: Path, tmp_path: Path) -> None:
    plain, _ = draw("plain.png", *NEW)
    inked, _ = draw("ink.png", *NEW, "--lora-path", ink, "--lora-scale", "0.5", "--lora-nickname", "secret")
    assert (plain != inked).any()
    written = json.dumps(media.read_recipe("ink.png"))
    assert str(ink.parent) not in written
    assert "secret" not in written
    lost = cli("generate", "--from-file", "ink.png", "--model-path", flux_folder)
    assert lost.status == 1
    assert "ink.safetensors: no such file" in lost.err
    assert "the file was made with this LoRA: say with --lora-path where it is" in lost.err
    (tmp_path / "ink.safetensors").write_bytes(ink.read_bytes())
    again, told = draw("again.png", "--from-file", "ink.png")
    assert (again == inked).all()
    assert "differs" not in told
    (tmp_path / "ink.safetensors").unlink()
    moved, told = draw("moved.png", "--from-file", "ink.png", "--lora-path", ink, "--lora-scale", "0.5")
    assert (moved == inked).all()
    assert "differs" not in told
    other, told = draw("other.png", "--from-file", "ink.png", "--lora-path", ink)
    assert (other != inked).any()
    assert "differs from the replayed file: loras: was ink.safetensors x 0.5" in told


def test_settings_of_a_file(draw: Cli, ink: Path) -> None:
    by_flag, _ = draw("flag.png", *NEW, "--lora-path", ink, "--lora-target-modules", "to_q,to_k")
    Path("run.yaml").write_text(f"lora_path: {ink}\nlora_target_modules: to_q,to_k\nlora_merge_mode: merge\n")
    by_file, _ = draw("file.png", *NEW, "--config", "run.yaml")
    assert (by_flag == by_file).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lora-path", "{ink}", "--lora-nickname", "a", "b"], "lora_nickname: 2 for 1 paths; give one for each"),
        (["--lora-path", "{ink}", "{ink}", "{ink}", "--lora-scale", "1", "2"],
         "lora_scale: 2 values for 3 adapters; give one for each, or one for all"),
        (["--lora-scale", "1"], "lora_scale: needs --lora-path"),
        (["--lora-path", "{ink}", "--lora-alpha", "0"], "--lora-alpha: must be greater than 0, got 0"),
        (["--lora-path", "{ink}", "--lora-merge-mode", "fuse"],
         "--lora-merge-mode: must be one of auto, merge, dynamic, got \"fuse\""),
        (["--lora-path", "note.txt"], "note.txt: is no safetensors file; LoRA files of other formats are not read"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_mistakes_are_told_before_weights_are_read(
    refused: Callable[..., str],
    flux_folder: Path,
    ink: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
    dry: tuple[str, ...],
) -> None:
    Path("note.txt").write_text("not a file of weights")
    monkeypatch.setattr(loader, "load", None)
    typed = [word.replace("{ink}", str(ink)) for word in words]
    assert refused("generate", "--model-path", flux_folder, *NEW, *typed, *dry) == message


def test_what_fits_nothing_is_told_before_weights_are_read(
    cli: Cli, schnell_folder: Path, lora_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    foreign = lora_file(torch.nn.ModuleDict({"0": torch.nn.ModuleDict({"x": torch.nn.Linear(3, 3)})}), "foreign")
    monkeypatch.setattr(loader, "load", None)
    answer = cli("generate", "--model-path", schnell_folder, *NEW, "--lora-path", foreign)
    assert answer.status == 2
    assert "foreign.safetensors: does not fit FluxTransformer2DModel" in answer.err
