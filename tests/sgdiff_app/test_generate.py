"""`generate` from words to files: what is printed, what is written, and how it ends when it does not end well."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.types import Progress
from sgdiff_app import generate
from sgdiff_app.progress import Bar

ROOT = Path(__file__).parents[2]
Cli = Callable[..., Any]


@pytest.fixture
def draw(cli: Cli, flux_folder: Path) -> Cli:
    """Run `generate` on the tiny model with a small picture."""
    return lambda *words: cli("generate", "--model-path", flux_folder, "--size", "32x32", *words)


def pixels(path: str | Path) -> Any:
    return np.asarray(Image.open(path).convert("RGB"))


def steps_of(path: str) -> int:
    return len(json.loads(Path(path).read_text())["denoise_steps_ms"])


def files() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def test_stdout_is_paths_and_stderr_the_rest(draw: Cli) -> None:
    answer = draw("--prompt", "A fox!", "a cat", "--steps", "2", "--n", "2", "--seed", "5")
    assert answer.status == 0
    paths = answer.out.splitlines()
    assert sorted(paths) == files()
    pattern = r"outputs/(A_fox|a_cat)_\d{8}-\d{6}_[0-9a-f]{8}_(\d)\.png"
    assert [re.fullmatch(pattern, path).groups() for path in paths] == [  # type: ignore[union-attr]
        ("A_fox", "0"), ("A_fox", "1"), ("a_cat", "2"), ("a_cat", "3"),
    ]  # fmt: skip
    assert pixels(paths[0]).shape == (32, 32, 3)
    assert not np.array_equal(pixels(paths[0]), pixels(paths[1]))
    for text in (
        '[1/2] drawing "A fox!"',
        "50% denoising 1/2",
        f"saved {paths[1]} (seed 6, 32x32, ",
        "4 of 4 outputs in ",
    ):
        assert text in answer.err


def test_quiet_says_nothing(draw: Cli) -> None:
    answer = draw("--prompt", "x", "--steps", "1", "-q")
    assert (answer.status, answer.err, answer.out.count("\n")) == (0, "", 1)


def test_json_is_one_object_per_prompt(draw: Cli, flux_folder: Path) -> None:
    answer = draw("--prompt", "a fox", "a cat", "--steps", "2", "--n", "2", "--seed", "5", "--json")
    reports = [json.loads(line) for line in answer.out.splitlines()]
    assert [report["prompt"] for report in reports] == ["a fox", "a cat"]
    first = reports[0]
    assert (first["status"], first["model"]) == ("completed", str(flux_folder))
    assert (first["num_inference_steps"], first["guidance_scale"]) == (2, 3.5)
    assert first["timings_ms"]["total"] > 0
    assert first["peak_memory_mb"] > 0
    assert [output["seed"] for output in first["outputs"]] == [5, 6]
    assert {key: first["outputs"][0][key] for key in ("width", "height", "frames")} == {
        "width": 32, "height": 32, "frames": 1,
    }  # fmt: skip
    assert sorted(output["path"] for report in reports for output in report["outputs"]) == files()


def test_who_decides_the_steps(draw: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """File says 6, flag 4, environment 9; the model's default is 50."""
    Path("c.yaml").write_text("num_inference_steps: 6\nsave_output: false")
    words = ("--prompt", "x", "--perf-dump-path", "perf.json")
    monkeypatch.setenv("SGDIFF_NUM_INFERENCE_STEPS", "9")
    assert draw(*words, "--config", "c.yaml", "--num-inference-steps", "4").status == 0
    assert steps_of("perf.json") == 4
    assert draw(*words, "--config", "c.yaml").status == 0
    assert steps_of("perf.json") == 6
    assert draw(*words, "--no-save-output").status == 0
    assert steps_of("perf.json") == 9
    monkeypatch.delenv("SGDIFF_NUM_INFERENCE_STEPS")
    assert draw(*words, "--no-save-output").status == 0
    assert steps_of("perf.json") == 50
    assert files() == ["c.yaml", "perf.json"]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_an_output_is_made_again_from_itself(draw: Cli, cli: Cli, flux_folder: Path, suffix: str) -> None:
    name = f"first.{suffix}"
    assert draw("--prompt", "a fox", "--steps", "3", "--output-file-path", name).status == 0
    again = ("generate", "--from-file", name, "--model-path", flux_folder, "--output-file-path", f"again.{suffix}")
    answer = cli(*again)
    assert answer.status == 0
    assert "differs" not in answer.err
    assert np.array_equal(pixels(name), pixels(f"again.{suffix}"))
    Path("c.yaml").write_text("steps: 5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGDIFF_NUM_INFERENCE_STEPS", "9")
        for words, steps in (
            ([], {"value": 3, "origin": "recipe"}),
            (["--config", "c.yaml"], {"value": 5, "origin": "file"}),
        ):
            shown = json.loads(cli(*again, *words, "--print-config", "--json").out)
            assert shown["num_inference_steps"] == steps
    changed = cli(*again, "--steps", "2")
    assert "warning: differs from the replayed file: num_inference_steps: was 3, is 2" in changed.err


def test_another_version_is_told(draw: Cli, cli: Cli, flux_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine import recipe

    assert draw("--prompt", "a fox", "--steps", "1", "--output-file-path", "first.png").status == 0
    monkeypatch.setattr(recipe, "versions", lambda: {"torch": "0.0"})
    answer = cli("generate", "--from-file", "first.png", "--model-path", flux_folder, "--output-file-path", "again.png")
    assert answer.status == 0
    assert re.search(r"warning: differs from the replayed file: torch: was \S+, is 0.0\n", answer.err)


def test_inputs_must_be_given_again(draw: Cli, cli: Cli, refused: Callable[..., str], flux_folder: Path) -> None:
    Image.new("RGB", (32, 32), "red").save("in.png")
    Image.new("RGB", (32, 32), "blue").save("other.png")
    first = draw("--prompt", "x", "--steps", "2", "--image-path", "in.png", "--output-file-path", "first.png")
    assert first.status == 0, first.err
    again = ["generate", "--from-file", "first.png", "--model-path", flux_folder, "--output-file-path", "again.png"]
    message = "--from-file: the file was made with an input that it does not hold; give image_path again"
    assert refused(*again) == message
    assert "differs" not in cli(*again, "--image-path", "in.png").err
    assert np.array_equal(pixels("first.png"), pixels("again.png"))
    changed = cli(*again, "--image-path", "other.png").err
    assert "differs from the replayed file: image_path: another file than the one recorded" in changed


def test_without_a_recipe(draw: Cli, refused: Callable[..., str]) -> None:
    assert draw("--prompt", "a fox", "--steps", "1", "--output-file-path", "a.png", "--no-embed-recipe").status == 0
    assert refused("generate", "--from-file", "a.png").startswith("a.png: ")
    assert refused("generate", "--from-file", "none.png").startswith("none.png: ")


def test_frames_and_names_of_a_video(cli: Cli, wan_folder: Path) -> None:
    words = ["generate", "--model-path", wan_folder, "--prompt", "A curious raccoon", "--size", "32x32", "--steps", "1"]
    words += ["--num-frames", "5", "--output-path", "outputs", "--output-file-name", "A curious raccoon.mp4"]
    answer = cli(*words, "--return-frames")
    assert answer.out == "outputs/A curious raccoon.mp4\n"
    assert files() == ["outputs/A curious raccoon.mp4", "outputs/A curious raccoon.npy"]
    frames = np.load("outputs/A curious raccoon.npy")
    assert (frames.shape, frames.dtype) == ((5, 32, 32, 3), np.uint8)
    both = cli(*words, "--num-outputs-per-prompt", "2")
    assert both.out == "outputs/A curious raccoon_0.mp4\noutputs/A curious raccoon_1.mp4\n"


def test_prompts_from_a_file(draw: Cli) -> None:
    Path("prompts.txt").write_text("a fox\n\n  a cat  \n")
    answer = draw("--prompt-path", "prompts.txt", "--steps", "1", "--json", "--no-save-output")
    reports = [json.loads(line) for line in answer.out.splitlines()]
    assert [report["prompt"] for report in reports] == ["a fox", "a cat"]
    assert reports[0]["outputs"][0]["path"] is None
    assert files() == ["prompts.txt"]


def test_an_empty_prompt_draws_too(draw: Cli) -> None:
    answer = draw("--prompt", "", "--steps", "1")
    assert answer.status == 0
    assert re.fullmatch(r"outputs/output_\d{8}-\d{6}_[0-9a-f]{8}\.png\n", answer.out)
    assert 'drawing ""\n' in answer.err
    both = draw("--prompt", "", "x", "--steps", "1", "--output-file-name", "e.png")
    assert both.out == "outputs/e_0.png\noutputs/e_1.png\n"


def test_a_long_prompt_is_cut_in_log_lines(draw: Cli) -> None:
    answer = draw("--prompt", "a fox\nat\tnight " + "x" * 100, "--steps", "1")
    (line,) = (line for line in answer.err.splitlines() if line.startswith("drawing"))
    assert line == 'drawing "a fox at night ' + "x" * 62 + '..."'
    assert generate.shown("x" * 80) == "x" * 80


def test_frames_without_files_are_warned_of(draw: Cli) -> None:
    answer = draw("--prompt", "x", "--steps", "1", "--no-save-output", "--return-frames")
    assert answer.status == 0
    warning = "warning: return_frames has no effect: save_output is false, so no file is written"
    assert answer.err.splitlines()[0] == warning
    assert files() == []


def test_home_is_the_same_place_everywhere(draw: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    Path("home/prompts.txt").write_text("a fox")
    Path("home/c.yaml").write_text("steps: 2\nreturn_frames: true\nperf_dump_path: ~/perf.json")
    Image.new("RGB", (32, 32)).save("home/in.png")
    Image.new("L", (32, 32), 255).save("home/mask.png")
    words = ["--prompt-path", "~/prompts.txt", "--config", "~/c.yaml"]
    words += ["--image-path", "~/in.png", "--mask-path", "~/mask.png"]
    answer = draw(*words, "--output-path", "~/out", "--output-file-name", "x.png")
    assert (answer.status, answer.out) == (0, f"{home / 'out' / 'x.png'}\n"), answer.err
    assert draw(*words, "--output-file-path", "~/y.png").out == f"{home / 'y.png'}\n"
    given = ["c.yaml", "in.png", "mask.png", "prompts.txt"]
    made = ["out/x.npy", "out/x.png", "perf.json", "y.npy", "y.png"]
    assert files() == sorted(f"home/{name}" for name in (*given, *made))
    again = draw("--from-file", "~/y.png", *words[4:], "--output-file-path", "~/z.png")
    assert again.status == 0, again.err


def test_a_replay_whose_model_is_not_found(draw: Cli, cli: Cli, flux_folder: Path) -> None:
    assert draw("--prompt", "x", "--steps", "1", "--output-file-path", "a.png").status == 0
    answer = cli("generate", "--from-file", "a.png")
    assert (answer.status, answer.out) == (1, "")
    name = flux_folder.name
    assert answer.err.startswith(
        f"error: {name}: no such folder, and neither a bundled model nor a hub id (owner/name)"
    )
    assert answer.err.endswith("; say with --model-path where the model is that made the file\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--prompt: required; give it here, in a config file, with --prompt-path or with --from-file"),
        (["--prompt-path", "none.txt"], "--prompt-path: none.txt: cannot be read: No such file or directory"),
        (["--prompt-path", "empty.txt"], "--prompt-path: empty.txt: holds no prompt"),
        (["--prompt", "x", "--prompt-path", "y"], "--prompt-path: excludes --prompt; give one of them"),
        (["--prompt", "x", "--720p", "--width", "64"], "--720p 1280x720 contradicts --width 64"),
        (["--prompt", "x", "--size", "0x64"], "--size: must be WIDTHxHEIGHT with positive integers, got '0x64'"),
        (["--prompt", "x", "--width", "0"], "--width: must be at least 1, got 0"),
        (["--prompt", "x", "--steps", "-1"], "--steps: must be at least 1, got -1"),
        (["--prompt", "x", "--max-pixels", "100", "--size", "64x64"],
         "size: 64x64 has 4096 pixels, more than the 100 allowed (--max-pixels)"),
        (["--prompt", "x", "--config", "none.yaml"], "--config: none.yaml: no such file"),
        (["--prompt", "x", "--output-file-name", "x.mp4"],
         ("--output-file-name: black-forest-labs/FLUX.1-dev draws an image, so the name must end in one of "
          ".png, .jpg, .jpeg, .webp, got 'x.mp4'")),
        (["--prompt", "x", "--size", "٦٤x64"], "--size: must be WIDTHxHEIGHT with positive integers, got '٦٤x64'"),
        (["--prompt", "x", "--output-file-name", "x" * 260],
         "--output-file-name: a file name has at most 255 bytes, with its number and suffix, got 264"),
        (["--prompt", "x", "--n", "2", "--output-file-name", "x" * 250 + ".png"],
         "--output-file-name: a file name has at most 255 bytes, with its number and suffix, got 256"),
        (["--prompt", "x", "--perf-dump-path", "."], "--perf-dump-path: must name a file, got '.'"),
        (["--prompt", "x", "--output-file-path", "d/new/"], "--output-file-path: must name a file, got 'd/new/'"),
        (["--prompt", "x", "--num-frames", "9"], None),
        (["--prompt", "x", "--mask-path", "m.png"], "mask_path: needs image_path"),
        (["--prompt", "x", "--seed", "1", "2"], "seed: a list needs one entry per output, got 2 for 1"),
        (["--prompt", "x", "--text-encoder-precisions", "fp16", "fp16", "fp16"], None),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_weights_are_read(
    refused: Callable[..., str],
    flux_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str | None,
) -> None:
    from engine.engine import Engine

    def load(*_: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(Engine, "__init__", load)
    Path("empty.txt").write_text("\n")
    answer = refused("generate", "--model-path", flux_folder, *words)
    assert message is None or answer == message
    assert files() == ["empty.txt"]


@pytest.mark.parametrize("there", [True, False])
def test_a_wrong_component_lists_the_right_ones(draw: Cli, flux_folder: Path, there: bool) -> None:
    answer = draw("--prompt", "x", "--vea-path", flux_folder / "vae" if there else "x")
    assert (answer.status, answer.out) == (2, "")
    assert answer.err == (
        "error: --vea-path: the model has no component 'vea'; its components: scheduler, text_encoder, "
        "text_encoder_2, tokenizer, tokenizer_2, transformer, vae; did you mean 'vae'?\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model-path", "./none"], "./none: no such folder"),
        (["--output-path", "file"], "file: cannot be written: file is a file, not a folder"),
        (["--perf-dump-path", "file/p.json"], "file: cannot be written: file is a file, not a folder"),
    ],
)
def test_what_fails_after_the_arguments_were_accepted(draw: Cli, words: list[str], message: str) -> None:
    Path("file").write_text("")
    answer = draw("--prompt", "x", *words)
    assert (answer.status, answer.out, answer.err) == (1, "", f"error: {message}\n")


def test_a_folder_that_is_no_model(draw: Cli) -> None:
    Path("empty").mkdir()
    answer = draw("--prompt", "x", "--model-path", "./empty")
    assert answer.status == 1
    expected = "./empty: is no diffusers model; looked for model_index.json and the component folders that it lists"
    assert answer.err == f"error: {expected}\n"


@pytest.mark.parametrize(("fault", "code"), [("error@2", "generation_failed"), ("oom@2", "out_of_memory")])
def test_a_failure_leaves_nothing_and_spares_the_other_prompts(
    draw: Cli, monkeypatch: pytest.MonkeyPatch, fault: str, code: str
) -> None:
    monkeypatch.setenv("SGDIFF_TEST_FAULT", fault)
    answer = draw("--prompt", "FAULT", "a cat", "--steps", "3", "--json", "--output-file-name", "x.png")
    assert answer.status == 1
    failed, completed = (json.loads(line) for line in answer.out.splitlines())
    assert (failed["status"], failed["error"]["code"], failed["outputs"]) == ("failed", code, [])
    assert (completed["status"], completed["outputs"][0]["path"]) == ("completed", "outputs/x_1.png")
    assert files() == ["outputs/x_1.png"]
    assert [line for line in answer.err.splitlines() if line.startswith("error: [1/2] ")]
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_within_a_step(
    draw: Cli, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, status: int
) -> None:
    seen: list[Progress] = []

    def interrupt(bar: Bar, progress: Progress) -> None:
        seen.append(progress)
        if progress.step == 3 and progress.stage == "denoising":
            signal.raise_signal(number)

    monkeypatch.setattr(Bar, "__call__", interrupt)
    answer = draw("--prompt", "a fox", "a cat", "--steps", "9", "--json")
    assert answer.status == status
    assert max(progress.step for progress in seen) == 3
    report = json.loads(answer.out)
    assert (report["status"], report["error"]["code"]) == ("failed", "cancelled")
    assert answer.err.endswith("warning: cancelled\n")
    assert files() == []


def test_a_signal_between_two_prompts_cancels_the_next(draw: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver = generate._deliver

    def interrupted(*args: Any) -> dict[str, Any]:
        result = deliver(*args)
        signal.raise_signal(signal.SIGINT)  # the run in hand is through and cannot be stopped any more
        return result

    monkeypatch.setattr(generate, "_deliver", interrupted)
    answer = draw("--prompt", "a fox", "a cat", "--steps", "1", "--json", "--output-file-name", "x.png")
    assert answer.status == 130
    completed, cancelled = (json.loads(line) for line in answer.out.splitlines())
    assert (completed["status"], completed["prompt"]) == ("completed", "a fox")
    assert (cancelled["status"], cancelled["prompt"], cancelled["outputs"]) == ("failed", "a cat", [])
    assert cancelled["error"] == {"code": "cancelled", "message": "cancelled"}
    assert files() == ["outputs/x_0.png"]


def test_a_signal_while_the_model_loads(draw: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("engine.loader.load", interrupted)
    answer = draw("--prompt", "a fox", "--json=true")
    assert (answer.status, answer.err.splitlines()[-1]) == (143, "warning: cancelled")
    assert json.loads(answer.out) == {"status": "failed", "error": {"code": "cancelled", "message": "cancelled"}}
    assert list(Path().iterdir()) == []


def child(*words: str, **variables: str) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SGDIFF_", "HF_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "sgdiff_app", "generate", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**env, "PYTHONPATH": str(ROOT), **variables},
    )  # fmt: skip


def test_ctrl_c_ends_the_process_and_leaves_nothing(flux_folder: Path) -> None:
    words = ["--model-path", str(flux_folder), "--prompt", "x", "--size", "32x32", "--steps", "50"]
    process = child(*words, SGDIFF_TEST_STEP_DELAY_MS="200")
    assert process.stderr is not None
    assert any("denoising" in line for line in process.stderr)
    os.killpg(process.pid, signal.SIGINT)
    started = time.monotonic()
    assert process.wait(timeout=20) == 130
    assert time.monotonic() - started < 5
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # no child of it is left
    process.communicate()
    assert files() == []


@pytest.mark.slow
def test_a_fresh_machine_without_network_draws(tmp_path: Path) -> None:
    variables = {"HOME": str(tmp_path / "home"), "HF_ENDPOINT": "http://127.0.0.1:9", "XDG_CACHE_HOME": ""}
    process = child("--prompt", "x", "--size", "64x64", "--steps", "1", "--output-file-path", "x.png", **variables)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, "x.png\n"), err
    assert pixels("x.png").shape == (64, 64, 3)
