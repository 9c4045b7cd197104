"""`--dry-run`: the plan, the check of everything, and nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sgdiff_app import plan


def test_the_plan_of_a_local_model(cli: Callable[..., Any], flux_folder: Path) -> None:
    answer = cli("generate", "--model-path", flux_folder, "--prompt", "x", "--dry-run")
    assert (answer.status, answer.err) == (0, "")
    assert answer.out.splitlines() == [
        f"model: {flux_folder} (black-forest-labs/FLUX.1-dev, flux)",
        f"folder: {flux_folder}",
        "download: nothing",
        "device: auto, executor: auto",
    ]
    shown = json.loads(cli("generate", "--model-path", flux_folder, "--prompt", "x", "--dry-run", "--json").out)
    assert shown == {
        "model": str(flux_folder), "catalog_id": "black-forest-labs/FLUX.1-dev", "cached": True,
        "folder": str(flux_folder), "download_bytes": 0,
    }  # fmt: skip
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--prompt: required; give it here, in a config file, with --prompt-path or with --from-file"),
        (["--prompt", "x", "--mask-path", "m.png"], "mask_path: needs image_path"),
        (["--prompt", "x", "--output-file-name", "x.mp4"],
         ("--output-file-name: black-forest-labs/FLUX.1-dev draws an image, so the name must end in one of "
          ".png, .jpg, .jpeg, .webp, got 'x.mp4'")),
        (["--prompt", "x", "--size", "64x64", "--max-pixels", "9"],
         "size: 64x64 has 4096 pixels, more than the 9 allowed (--max-pixels)"),
    ],
)  # fmt: skip
def test_everything_is_checked(refused: Callable[..., str], flux_folder: Path, words: list[str], message: str) -> None:
    assert refused("generate", "--model-path", flux_folder, "--dry-run", *words) == message


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "unknown"),
        (0, "nothing"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (34 * 10**9, "34.0 GB"),
        (2 * 10**12, "2.0 TB"),
    ],
)
def test_sizes(count: int | None, text: str) -> None:
    assert plan.size(count) == text
