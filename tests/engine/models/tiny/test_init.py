"""Tiny models: complete folders, reloadable offline, decided by their seed, sensitive to the prompt."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, WanPipeline
from PIL import Image

from engine.errors import UsageError
from engine.models import tiny

# diffusers' Euler scheduler hands numpy a tensor
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ROOT = Path(__file__).resolve().parents[4]
FLUX2 = {"height": 64, "width": 64, "max_sequence_length": 128, "text_encoder_out_layers": (1, 2, 3)}
CLIP = {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 32}
CALLS: dict[str, dict[str, Any]] = {
    "flux": {"height": 64, "width": 64, "max_sequence_length": 32},
    "flux-schnell": {"height": 64, "width": 64, "max_sequence_length": 32},
    "flux2": FLUX2,
    "flux2-klein": FLUX2,
    "flux2-klein-base": FLUX2,
    "hunyuan-video": {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 64},
    "fast-hunyuan": {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 64},
    "ovis": {"height": 64, "width": 64, "max_sequence_length": 64},
    "qwen-image": {"height": 64, "width": 64, "negative_prompt": " "},
    "wan": CLIP,
    "wan-a14b": CLIP,
    "wan-i2v": CLIP | {"image": Image.new("RGB", (32, 32), "red"), "max_sequence_length": 512},
    "wan-i2v-a14b": CLIP | {"image": Image.new("RGB", (32, 32), "red")},
    "wan-ti2v": CLIP | {"height": 64, "width": 64},
    "fastwan": CLIP,
    "fastwan-ti2v": CLIP | {"height": 64, "width": 64},
    "sd3": {"height": 64, "width": 64, "max_sequence_length": 32},
    "sdxl": {"height": 64, "width": 64},
    "glm-image": {"height": 64, "width": 64, "max_sequence_length": 64},
    "z-image": {"height": 64, "width": 64, "max_sequence_length": 64},
    "z-image-turbo": {"height": 64, "width": 64, "max_sequence_length": 64, "guidance_scale": 0.0},
}
# Families whose stock pipeline cannot load them everywhere: the editors' processor needs torchvision there.
OURS = ("qwen-image-edit", "qwen-image-edit-2509", "qwen-image-edit-2511")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("tiny")
    return {family: tiny.make(family, place / family) for family in tiny.FAMILIES}


def draw(folder: Path, prompt: str, **call: Any) -> np.ndarray[Any, Any]:
    pipeline: Any = WanPipeline if folder.name.startswith("fastwan") else DiffusionPipeline
    pipeline = pipeline.from_pretrained(str(folder), local_files_only=True, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(0)
    output = pipeline(prompt=prompt, num_inference_steps=2, generator=generator, output_type="np", **call)
    pixels: np.ndarray[Any, Any] = np.asarray(output[0])
    return pixels


def weights(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


@pytest.mark.parametrize("family", [family for family in tiny.FAMILIES if family not in OURS])
def test_a_saved_model_reloads_offline_draws_and_follows_the_prompt(family: str, folders: dict[str, Path]) -> None:
    one = draw(folders[family], "a red cat", **CALLS[family])
    other = draw(folders[family], "the sea at night", **CALLS[family])
    assert one.shape[-3:] == (CALLS[family]["height"], CALLS[family]["width"], 3)
    assert np.isfinite(one).all()
    assert one.std() > 1e-3
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_seed_decides_the_weights(family: str, folders: dict[str, Path], tmp_path: Path) -> None:
    again = weights(tiny.make(family, tmp_path / "again"))
    other = weights(tiny.make(family, tmp_path / "other", seed=1))
    assert again == weights(folders[family])
    assert again.keys() == other.keys()
    assert all(again[name] != other[name] for name in again)


def test_guidance_embedding_tells_dev_from_schnell(folders: dict[str, Path]) -> None:
    found = {name: (folders[name] / "transformer/config.json").read_text() for name in ("flux", "flux-schnell")}
    assert '"guidance_embeds": true' in found["flux"]
    assert '"guidance_embeds": false' in found["flux-schnell"]


def test_making_a_model_leaves_the_global_generator_and_no_temporary_folder(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tiny.make("flux", tmp_path / "models" / "flux")
    assert torch.equal(torch.rand(3), expected)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["flux"]


def test_an_unknown_family_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        tiny.make("flx", tmp_path / "x")
    assert caught.value.message == (
        f"family: 'flx' is not known; did you mean 'flux'?; known: {', '.join(tiny.FAMILIES)}"
    )
    assert not (tmp_path / "x").exists()


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError) as caught:
        tiny.make("flux", tmp_path)
    assert caught.value.message == f"{tmp_path}: exists and is not an empty folder"
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_failure_while_saving_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def save_pretrained(self, folder: str, **_: Any) -> None:
            Path(folder).mkdir()
            raise OSError("disk full")

    monkeypatch.setattr(tiny, "_recipe", lambda family: lambda seeds: Broken())
    with pytest.raises(OSError, match="disk full"):
        tiny.make("flux", tmp_path / "flux")
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_a_folder_and_explains_a_wrong_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # What scripts/make_tiny_model runs; the script itself makes the environment first, for which a test is no place.
    assert "-P -m engine.models.tiny" in (ROOT / "scripts" / "make_tiny_model").read_text()

    def run(*words: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["make_tiny_model", *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module("engine.models.tiny", run_name="__main__")
        return ended.value.code, *capsys.readouterr()

    assert run("flux", str(tmp_path / "m"), "--seed", "3") == (0, f"{tmp_path / 'm'}\n", "")
    assert (tmp_path / "m" / "model_index.json").is_file()
    known = ", ".join(tiny.FAMILIES)
    assert run("nope", str(tmp_path / "n")) == (2, "", f"error: family: 'nope' is not known; known: {known}\n")
