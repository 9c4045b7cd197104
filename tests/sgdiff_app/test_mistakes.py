"""What a user can do wrong: nothing is written, the exit status is right, and the whole message says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from PIL import Image

from engine import hub
from engine.models.flux import Model

Cli = Callable[..., Any]
REPO = "black-forest-labs/FLUX.1-dev"
GIVEN = ["c.json", "c.yaml", "empty", "file", "in.png", "mask.png", "model_index.json"]


@pytest.fixture(autouse=True)
def _given() -> None:
    Path("empty").mkdir()
    Path("file").write_text("")
    Path("model_index.json").write_text("{}")
    Path("c.json").write_text('{"prompt": "x",}')
    Path("c.yaml").write_text("num_inference_step: 6")
    Image.new("RGB", (32, 32), "red").save("in.png")
    Image.new("L", (48, 16), 255).save("mask.png")


@pytest.fixture
def mistake(cli: Cli, flux_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Run a command line that fails before weights are read; return its status and message."""

    def load(*_: object) -> None:
        raise AssertionError("weights were read")

    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr("engine.loader.load", load)
        answer = cli("generate", "--model-path", flux_folder, "--prompt", "x", *words)
        assert answer.out == ""
        assert answer.err.startswith("error: ")
        assert answer.err.count("\n") == 1
        assert sorted(str(path) for path in Path().rglob("*")) == GIVEN
        return answer.status, answer.err.removeprefix("error: ").removesuffix("\n")

    return run


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--model-path", "./none"], 1, "./none: no such folder"),
        (["--model-path", "flx"], 1,
         ("flx: no such folder, and neither a bundled model nor a hub id (owner/name); bundled: "
          f"{', '.join(hub.bundled_names()) or 'none'}")),
        (["--model-path", "./empty"], 1,
         "./empty: is no diffusers model; looked for model_index.json and the component folders that it lists"),
        (["--model-path", "."], 1, ".: model_index.json lists no components"),
        (["--size", "0x64"], 2, "--size: must be WIDTHxHEIGHT with positive integers, got '0x64'"),
        (["--size=-64x64"], 2, "--size: must be WIDTHxHEIGHT with positive integers, got '-64x64'"),
        (["--width", "0"], 2, "--width: must be at least 1, got 0"),
        (["--height", "-64"], 2, "--height: must be at least 1, got -64"),
        (["--size", "64x64", "--max-pixels", "100"], 2,
         "size: 64x64 has 4096 pixels, more than the 100 allowed (--max-pixels)"),
        (["--steps", "-1"], 2, "--steps: must be at least 1, got -1"),
        (["--config", "none.yaml"], 2, "--config: none.yaml: no such file"),
        (["--config", "c.json"], 2,
         "c.json: line 1 column 16: Expecting property name enclosed in double quotes"),
        (["--config", "c.yaml"], 2,
         "c.yaml: num_inference_step: unknown key; did you mean 'num_inference_steps'?"),
        (["--output-path", "file/a"], 1, "file/a: cannot be written: file is a file, not a folder"),
        (["--image-path", "none.png"], 2, "image_path: none.png: no such file"),
        (["--image-path", "file"], 2,
         "image_path: file: is no image of a kind that can be read (png, jpeg, webp, gif, bmp)"),
        (["--image-path", "in.png", "--mask-path", "mask.png"], 2, "mask_path: is 48x16, but the image is 32x32"),
        (["--image-path", "in.png", "--mask-path", "none.png"], 2, "mask_path: none.png: no such file"),
    ],
)  # fmt: skip
def test_mistakes(mistake: Callable[..., tuple[int, str]], words: list[str], status: int, message: str) -> None:
    assert mistake(*words) == (status, message)
    assert mistake(*words, "--dry-run") == (status, message)


@pytest.mark.parametrize("words", [[], ["--dry-run"]])
def test_a_fault_that_no_test_can_mean(
    cli: Cli, flux_folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("SGDIFF_TEST_FAULT", "nonsense")
    monkeypatch.setattr("engine.loader.load", lambda *_: pytest.fail("weights were read"))
    answer = cli("generate", "--model-path", flux_folder, "--prompt", "x", *words)
    assert (answer.status, answer.out) == (2, "")
    message = "error: SGDIFF_TEST_FAULT: must be error@K, oom@K or exit@K, got 'nonsense'"
    assert answer.err.splitlines()[-1] == message


def test_a_folder_that_the_system_refuses(mistake: Callable[..., tuple[int, str]]) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("the way to a folder where nobody can write is /proc")
    folder = "/proc/sgdiff/outputs"
    assert mistake("--output-path", folder) == (1, f"{folder}: cannot be written: No such file or directory")


def refused_by_the_hub(kind: Any, status: int) -> Exception:
    """An error as the hub's client raises it, over the HTTP library that it uses."""
    import importlib

    http: Any = importlib.import_module(vars(errors)["HTTPError"].__module__.partition(".")[0])
    error: Exception = kind("m", response=http.Response(status, request=http.Request("GET", "https://hub")))
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (refused_by_the_hub(errors.GatedRepoError, 403),
         (f"{REPO}: access is gated; accept its licence at https://huggingface.co/{REPO}, then `hf auth login`")),
        (errors.LocalEntryNotFoundError("m"),
         f"{REPO}: is not in the cache, and the hub cannot be reached; check the network (LocalEntryNotFoundError)"),
        (refused_by_the_hub(errors.RepositoryNotFoundError, 404),
         (f"{REPO}: is not on the hub, or is private (`hf auth login`); "
          "did you mean 'black-forest-labs/FLUX.2-dev'?")),
    ],
)  # fmt: skip
def test_a_model_of_the_hub(
    mistake: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    assert mistake("--model-path", REPO) == (1, message)
    assert mistake("--model-path", REPO, "--dry-run") == (1, message)


@pytest.mark.parametrize("words", [["--offline"], []])
def test_a_model_of_the_hub_without_network(
    mistake: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str]
) -> None:
    if words:
        monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path.parent / "no-cache"))
    message = f"{REPO}: is not in the cache, and --offline (or HF_HUB_OFFLINE) forbids to download it"
    assert mistake("--model-path", REPO, *words) == (1, message)


def test_not_enough_memory(cli: Cli, flux_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def predict(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(Model, "predict", predict)
    answer = cli("generate", "--model-path", flux_folder, "--prompt", "x", "--size", "32x32", "--device", "cpu", "-q")
    assert (answer.status, answer.out) == (1, "")
    assert answer.err == (
        "error: not enough memory on cpu: try a smaller size or fewer frames, --vae-tiling, "
        "--text-encoder-cpu-offload, --dit-cpu-offload, or a lower precision\n"
    )
    assert sorted(str(path) for path in Path().rglob("*")) == GIVEN
