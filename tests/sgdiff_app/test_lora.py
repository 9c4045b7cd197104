"""`lora`: what is listed and told of LoRA files, without network or torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from engine import hub

Cli = Callable[..., Any]
ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BASE = "transformer.single_transformer_blocks.0.attn.to_q"


def write(path: Path, **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {f"{BASE}.lora_A.weight": torch.zeros(4, 64), f"{BASE}.lora_B.weight": torch.zeros(64, 4)}
    save_file({**state, "text_encoder.a.lora_A.weight": torch.zeros(4, 8)}, path, metadata=metadata)
    return path


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One bundled adapter, and a hub cache with one more beside a model."""
    path = write(tmp_path / "shelf" / "pixel-art.safetensors", trigger_words="pixel art")
    cache = tmp_path / "cache"
    monkeypatch.setattr(hub, "bundled_loras", lambda: {"pixel-art": path})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    for repo, name in (("someone--styles", "night/neon.safetensors"), ("someone--model", "vae/model.safetensors")):
        place = cache / f"models--{repo}"
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text(COMMIT)
        blob, link = place / "blobs" / "0", place / "snapshots" / COMMIT / name
        link.parent.mkdir(parents=True)
        if "styles" in repo:
            write(blob)
        else:
            blob.parent.mkdir()
            save_file({"decoder.weight": torch.zeros(2)}, blob)
        link.symlink_to(blob)
    return path


def test_bundled_and_cached_adapters_are_listed(cli: Cli) -> None:
    answer = cli("lora")
    heads, *rows = answer.out.splitlines()
    assert answer.status == 0 and heads.split()[:2] == ["name", "from"]
    assert [row.split("  ")[0] for row in rows] == ["pixel-art", "someone/styles night/neon.safetensors"]
    assert "bundled" in rows[0] and "FLUX.1" in rows[0] and rows[0].endswith("pixel art")
    listed = json.loads(cli("lora", "--json").out)["loras"]
    assert [(row["reference"], row["weight_name"], row["ranks"]) for row in listed] == [
        ("pixel-art", None, [4]),
        ("someone/styles", "night/neon.safetensors", [4]),
    ]


def test_a_machine_without_adapters_says_so(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "bundled_loras", dict)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "none"))
    assert cli("lora").out == "no LoRA files: none is bundled, and the hub cache has none\n"
    assert json.loads(cli("lora", "--json").out) == {"loras": []}


def test_a_file_tells_its_format_rank_targets_and_trigger_words(cli: Cli, shelf: Path) -> None:
    for reference in (shelf, "pixel-art"):
        out = cli("lora", "inspect", reference).out
        for line in (
            "format: diffusers, F32",
            "made for: FLUX.1 (by its names)",
            "rank: 4",
            "alpha: as the rank",
            "changes: 2 low-rank",
            "other parts: text_encoder (1 tensors)",
            "trigger words: pixel art",
            "     1  transformer.single_transformer_blocks.*.attn.to_q",
        ):
            assert line in out.splitlines()
    told = json.loads(cli("lora", "inspect", shelf, "--json").out)
    assert (told["layout"], told["ranks"], told["trigger_words"]) == ("diffusers", [4], ["pixel art"])


def test_an_adapter_in_the_cache_is_inspected_without_network(cli: Cli) -> None:
    assert json.loads(cli("lora", "inspect", "someone/styles", "--offline", "--json").out)["ranks"] == [4]
    named = ("--lora-weight-name", "neon", "--offline")
    assert "rank: 4" in cli("lora", "inspect", "someone/styles", *named).out.splitlines()


def test_mistakes_name_what_is_possible(refused: Callable[..., str], cli: Cli, tmp_path: Path) -> None:
    assert refused("lora", "inspekt", "a") == (
        "lora: must be followed by inspect or by nothing, got 'inspekt'; did you mean 'inspect'?"
    )
    write(tmp_path / "a.safetensors")
    assert refused("lora", "a.safetensors").endswith("; did you mean 'lora inspect a.safetensors'?")
    assert refused("lora", "inspect") == "lora inspect: needs one file, got 0"
    (tmp_path / "b.safetensors").write_bytes(b"no such thing")
    assert "is no safetensors file" in refused("lora", "inspect", "b.safetensors")
    answer = cli("lora", "inspect", "pixel-atr")
    assert answer.status == 1 and "did you mean 'pixel-art'?; bundled: pixel-art" in answer.err


def test_inspecting_needs_no_torch(shelf: Path) -> None:
    code = (
        "import sys; from sgdiff_app.cli import main; "
        f"main(['lora', 'inspect', {str(shelf)!r}]); "
        "print(sorted({'torch', 'diffusers', 'numpy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_words_of_a_stranger_do_nothing_to_the_terminal(cli: Cli, tmp_path: Path) -> None:
    words = {"trigger_words": "\x1b[31mred, plain", "modelspec.title": "a\nfake: line", "ss_base_model_version": "\x07"}
    out = cli("lora", "inspect", write(tmp_path / "a.safetensors", **words)).out
    assert "trigger words: ?[31mred, plain" in out
    assert "name: a?fake: line" in out
    assert out.replace("\n", "").isprintable()


def test_numbers_that_json_does_not_have_are_left_out(cli: Cli, tmp_path: Path) -> None:
    state = {f"{BASE}.lora_A.weight": torch.zeros(4, 64), f"{BASE}.lora_B.weight": torch.zeros(64, 4)}
    save_file(state | {f"{BASE}.alpha": torch.tensor(float("nan"))}, tmp_path / "a.safetensors")
    told = cli("lora", "inspect", "a.safetensors", "--json").out
    assert json.loads(told, parse_constant=pytest.fail)["alphas"] == []
    save_file({f"{BASE}.lora_A.weight": torch.tensor(1.0)}, tmp_path / "b.safetensors")
    assert "rank: -" in cli("lora", "inspect", "b.safetensors").out.splitlines()


def test_a_table_of_names_and_sizes_reads_no_file_as_a_whole(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.lora import facts

    monkeypatch.setattr(facts, "sha256", None)  # nobody may call it
    assert "pixel-art" in cli("lora").out
    monkeypatch.undo()
    assert {len(row["sha256"]) for row in json.loads(cli("lora", "--json").out)["loras"]} == {64}
