"""From words to work: what is shown, refused, noticed and planned before anything loads."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sgdiff_app import generate


@pytest.fixture(autouse=True)
def _nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*_: object) -> int:
        raise AssertionError("nothing may be loaded here")

    monkeypatch.setattr(generate, "_run", draw)


def test_print_config_loads_nothing_and_takes_what_is_not_built(cli: Callable[..., Any]) -> None:
    answer = cli("generate", "--num-gpus", "2", "--print-config")
    assert answer.status == 0
    assert "num_gpus: 2  # cli" in answer.out.splitlines()
    assert "num_inference_steps: 20  # model" in answer.out.splitlines()
    shown = json.loads(cli("serve", "--port", "1", "--print-config", "--json").out)
    assert shown["port"] == {"value": 1, "origin": "cli"}


def test_print_config_knows_a_local_model(cli: Callable[..., Any], flux_folder: Path) -> None:
    answer = cli("generate", "--model-path", flux_folder, "--print-config")
    assert "num_inference_steps: 50  # model" in answer.out.splitlines()


@pytest.mark.parametrize("words", [["--num-gpus", "2"], ["--num_gpus=2"], ["--config", "c.yaml"]])
def test_what_is_not_built_is_refused_before_loading(refused: Callable[..., str], words: list[str]) -> None:
    Path("c.yaml").write_text("num_gpus: 2")
    where = "c.yaml: num_gpus" if words[0] == "--config" else words[0].split("=")[0]
    assert refused("generate", "--prompt", "x", *words) == f"{where}: not available yet"


def test_serve(refused: Callable[..., str], cli: Callable[..., Any], flux_folder: Path) -> None:
    assert refused("serve", "--prompt", "x") == "--prompt: a flag of 'generate', not of 'serve'"
    assert refused("serve", "--headless", "--enable-trace") == "--enable-trace: not available yet"
    assert refused("serve", "--headless", "--ulysses-degree", "2") == "--ulysses-degree: not available yet"
    answer = cli("serve", "--model-path", flux_folder, "--port", "30010", "--dry-run")
    assert answer.status == 0
    assert f"folder: {flux_folder}" in answer.out.splitlines()
    message = refused("serve", "--model-path", flux_folder, "--job-timeout", "soon", "--dry-run")
    assert message == "job_timeout: must be a duration such as 90s, 15m or 24h, got 'soon'"


def test_one_file_for_both_commands(cli: Callable[..., Any], flux_folder: Path) -> None:
    Path("c.json").write_text(json.dumps({"model_path": str(flux_folder), "prompt": "a fox", "port": 1}))
    for command in ("generate", "serve"):
        assert cli(command, "--config", "c.json", "--dry-run").status == 0
    notices = cli("serve", "--config", "c.json", "--dry-run", "--log-format", "text").err
    assert notices == "c.json: settings of 'generate', ignored here: prompt\n"
    assert cli("generate", "--config", "c.json", "--dry-run").err == ""
    verbose = cli("generate", "--config", "c.json", "--dry-run", "-v").err
    assert "debug: settings of the server, ignored here: c.json: port" in verbose


@pytest.mark.parametrize("line", (Path(__file__).parent / "data" / "commands.txt").read_text().splitlines())
def test_command_lines_of_the_source_documents_parse(cli: Callable[..., Any], line: str) -> None:
    assert cli(*shlex.split(line), "--print-config").status == 0


def test_unknown_variables_are_warned_of(cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGDIFF_SEEED", "1")
    answer = cli("generate", "--print-config", "-q")
    assert answer.err == "warning: unknown variable SGDIFF_SEEED; did you mean 'SGDIFF_SEED'?\n"


def test_log_lines_are_json_when_asked_for_and_on_a_server_without_a_terminal(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGDIFF_SEEED", "1")
    for words in (["generate", "--log-format", "json"], ["serve"]):
        line = json.loads(cli(*words, "--print-config").err)
        assert (line["level"], line["message"][:16]) == ("warning", "unknown variable")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli("serve", "--print-config").err.startswith("warning: ")


@pytest.mark.parametrize("name", ["SGLANG_DIFFUSION_STAGE_LOGGING", "SGDIFF_MODEL_OVERLAY_REGISTRY"])
def test_a_variable_of_what_is_not_built(
    refused: Callable[..., str], cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1")
    assert refused("generate", "--prompt", "x") == f"{name}: not available yet"
    assert cli("generate", "--prompt", "x", "--print-config").status == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SGLANG_CACHE_DIT_RDT", 'SGLANG_CACHE_DIT_RDT: must be a number, got "abc"'),
        (
            "SGLANG_USE_MODELSCOPE",
            "SGLANG_USE_MODELSCOPE: must be one of 1, true, yes, on, 0, false, no, off, got 'abc'",
        ),
    ],
)
def test_wrong_variables(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.setenv(name, "abc")
    assert refused("generate", "--prompt", "x") == message


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SGDIFF_SEED", "3,4", "SGDIFF_SEED: a list needs one entry per output, got 2 for 1"),
        ("SGDIFF_VAE_PATH", "./nope", "SGDIFF_VAE_PATH: ./nope: no such file or folder"),
        ("SGDIFF_DEVICE", "cuda", "SGDIFF_DEVICE: cuda is not available here; available: cpu"),
    ],
)
def test_the_engine_refuses_a_value_and_the_message_names_where_it_stands(
    cli: Callable[..., Any],
    flux_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    message: str,
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    words = ("generate", "--prompt", "x", "--model-path", flux_folder, "--dry-run")
    status = 1 if "PATH" in variable else 2
    with monkeypatch.context() as patch:
        patch.setenv(variable, value)
        assert cli(*words) == (status, "", f"error: {message}\n")
    key = variable.removeprefix("SGDIFF_").lower()
    Path("c.yaml").write_text(f"{key}: [{value}]" if key == "seed" else f"{key}: {value}")
    expected = f"c.yaml: {key}: {message.partition(': ')[2]}"
    assert cli(*words, "--config", "c.yaml") == (status, "", f"error: {expected}\n")
