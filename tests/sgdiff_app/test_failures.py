"""How the end of a failed command is told, wherever --json and the log level were set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sgdiff_app import commands, failures

MESSAGE = '--steps: must be an integer, got "x"'
WRONG = ["generate", "--steps", "x"]


def config(text: str) -> list[str]:
    Path("c.yaml").write_text(text)
    return ["--config", "c.yaml"]


@pytest.mark.parametrize(
    ("words", "text", "variables", "printed"),
    [
        ([], "", {}, False),
        (["--json"], "", {}, True),
        (["--json=true"], "", {}, True),
        (["--json", "yes"], "", {}, True),
        (["--json", "false"], "", {}, False),
        (["--json", "--no-json"], "", {}, False),
        (["--nonsense", "--json"], "", {}, True),
        (["--prompt", "--json"], "", {}, True),
        (["--json=nonsense"], "", {}, False),
        ([], "", {"SGDIFF_JSON": "1"}, True),
        (["--json=false"], "", {"SGDIFF_JSON": "1"}, False),
        ([], "json: true", {}, True),
        ([], "json: true\nnonsense: 1", {}, True),
        ([], "json: false", {"SGDIFF_JSON": "1"}, False),
        ([], "json: [", {"SGDIFF_JSON": "1"}, True),
        ([], "json: true", {"SGDIFF_CONFIG": "c.yaml", "SGDIFF_STEPS": "x"}, True),
    ],
)
def test_the_object_is_printed_wherever_it_was_asked_for(
    cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    text: str,
    variables: dict[str, str],
    printed: bool,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    named = config(text)
    answer = cli(*WRONG, *words, *([] if "SGDIFF_CONFIG" in variables else named))
    assert answer.status == 2
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    if printed:
        error = {"code": json.loads(answer.out)["error"]["code"], "message": answer.err[7:-1]}
        assert json.loads(answer.out) == {"status": "failed", "error": error}
    else:
        assert answer.out == ""


@pytest.mark.parametrize(
    ("words", "variables", "traced"),
    [
        ([], {}, False),
        (["-v"], {}, True),
        (["--verbose"], {}, True),
        (["--log-level", "debug"], {}, True),
        (["--log-level=debug"], {}, True),
        (["--log-level", "info"], {"SGDIFF_LOG_LEVEL": "debug"}, False),
        (["-q"], {"SGDIFF_LOG_LEVEL": "debug"}, False),
        ([], {"SGDIFF_LOG_LEVEL": "debug"}, True),
        (["--config", "c.yaml"], {}, True),
    ],
)
def test_the_traceback_comes_at_debug_level_however_it_was_set(
    cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    variables: dict[str, str],
    traced: bool,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config("verbose: true")
    answer = cli(*WRONG, *words)
    assert answer.status == 2
    assert ("Traceback" in answer.err) is traced
    assert answer.err.endswith(f"error: {MESSAGE}\n")


def test_without_a_command_there_is_nothing_to_trace(cli: Callable[..., Any]) -> None:
    assert cli("-v") == (2, "", "error: unknown command '-v'\n")


@pytest.mark.parametrize(("words", "out"), [([], ""), (["--json=1"], '"code": "cancelled"')])
def test_a_signal_before_the_work_begins(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, words: list[str], out: str
) -> None:
    def stop(command: str, argv: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "run", stop)
    answer = cli("generate", *words)
    assert (answer.status, answer.err) == (130, "")
    assert answer.out == (f'{{"status": "failed", "error": {{{out}, "message": "cancelled"}}}}\n' if out else "")


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    failures.complain("first\nsecond")
    assert capsys.readouterr().err == "error: first second\n"
