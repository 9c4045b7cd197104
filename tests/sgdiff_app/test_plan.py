"""`--dry-run`: the plan, the check of everything, and nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine import catalog, hub
from engine.downloads import size


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
        (["--prompt", "x", "--image-path", "none.png"], "image_path: none.png: no such file"),
        (["--prompt", "x", "--image-path", "in.png", "--mask-path", "small.png"],
         "mask_path: is 16x16, but the image is 32x32"),
        (["--prompt", "x", "--text-encoder-precisions", "fp16", "fp16", "fp16"],
         ("text_encoder_precisions: black-forest-labs/FLUX.1-dev has 2 text encoders (text_encoder, text_encoder_2), "
          "got 3 values")),
        (["--prompt", "x", "--device", "cuda"], "device: cuda is not available here; available: cpu"),
        (["--prompt", "x", "--attention-backend", "torch_cudnn_sdpa", "--device", "cpu"],
         "attention_backend: torch_cudnn_sdpa needs CUDA, not cpu; available: torch_sdpa"),
    ],
)  # fmt: skip
def test_everything_is_checked(
    refused: Callable[..., str], flux_folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    Image.new("RGB", (32, 32)).save("in.png")
    Image.new("L", (16, 16)).save("small.png")
    assert refused("generate", "--model-path", flux_folder, "--dry-run", *words) == message
    assert sorted(path.name for path in Path().iterdir()) == ["in.png", "small.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backend", "sglang"],
         "backend: {} (SkyReelsV2Pipeline) has no native pipeline; use --backend auto or diffusers"),
        (["--image-path", "x.png", "--mask-path", "x.png"], "mask_path: {} takes no mask"),
        (["--output-file-name", "x.png"],
         "--output-file-name: {} draws a video, so the name must end in one of .mp4, .gif, got 'x.png'"),
    ],
)  # fmt: skip
def test_everything_is_checked_for_a_model_without_code_of_its_own(
    refused: Callable[..., str], wan_folder: Path, words: list[str], message: str
) -> None:
    Image.new("RGB", (32, 32)).save("x.png")
    other = ("--pipeline-class-name", "SkyReelsV2Pipeline")  # of diffusers, and in no entry of the catalog
    answer = refused("generate", "--model-path", wan_folder, "--prompt", "x", "--dry-run", *other, *words)
    assert answer == message.format(wan_folder)


def test_a_place_that_cannot_be_written_is_told(cli: Callable[..., Any], flux_folder: Path) -> None:
    Path("file").write_text("")
    answer = cli("generate", "--model-path", flux_folder, "--prompt", "x", "--dry-run", "--output-path", "file/a")
    expected = "error: file/a: cannot be written: file is a file, not a folder\n"
    assert (answer.status, answer.out, answer.err) == (1, "", expected)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that the catalog knows and this machine does not have."""
    spec = catalog.by_name("FLUX.1-dev")
    assert spec is not None
    found = hub.Plan(name=spec.id, folder=None, cached=False, download_bytes=34 * 10**9, spec=spec)
    monkeypatch.setattr(hub, "plan", lambda config, environment: found)


@pytest.mark.usefixtures("elsewhere")
def test_a_model_that_is_elsewhere_is_checked_by_the_catalog(cli: Callable[..., Any], refused: Any) -> None:
    words = ["generate", "--model-path", "black-forest-labs/FLUX.1-dev", "--prompt", "x", "--dry-run"]
    answer = cli(*words)
    assert (answer.status, answer.err) == (0, "")
    assert answer.out.splitlines()[1:3] == ["folder: not on this machine", "download: 34.0 GB"]
    assert refused(*words, "--image-path", "none.png") == "image_path: none.png: no such file"
    assert refused(*words, "--mask-path", "none.png") == "mask_path: needs image_path"
    message = "diffusers_kwargs: black-forest-labs/FLUX.1-dev runs natively; they need --backend diffusers"
    assert refused(*words, "--diffusers-kwargs", '{"a": 1}') == message
    assert cli(*words, "--backend", "diffusers", "--diffusers-kwargs", '{"sigmas": [1.0]}').status == 0
    assert list(Path().iterdir()) == []


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
    assert size(count) == text
