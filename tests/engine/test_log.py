"""Log lines: stderr only, text for people or one JSON object a line."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from engine import log


@pytest.fixture(autouse=True)
def _own_logger() -> Iterator[None]:
    root = logging.getLogger(log.ROOT)
    kept = root.handlers[:], root.level, root.propagate
    yield
    root.handlers[:], root.propagate = kept[0], kept[2]
    root.setLevel(kept[1])


def test_text_goes_to_stderr_alone(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup()
    logger = log.get("engine.hub")
    logger.debug("unheard")
    logger.info("loading %s", "tiny-scenes")
    logger.warning("no effect")
    logger.error("broken")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "loading tiny-scenes\nwarning: no effect\nerror: broken\n"


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup(style="json")
    log.get("engine.hub").warning("größer\nals %d", 3)
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    entry = json.loads(line)
    assert entry.pop("time")[10] == "T"
    assert entry == {"level": "warning", "logger": "sgdiff.hub", "message": "größer\nals 3"}


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_traceback_is_kept_with_its_line(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    log.setup(style=style)  # type: ignore[arg-type]
    try:
        raise ValueError("the cause")
    except ValueError:
        log.get("engine.hub").exception("it failed")
    text = capsys.readouterr().err
    if style == "json":
        (line,) = text.splitlines()
        text = f"error: {json.loads(line)['message']}\n{json.loads(line)['exception']}\n"
    assert text.startswith("error: it failed\nTraceback (most recent call last):\n")
    assert text.endswith("ValueError: the cause\n")


@pytest.mark.parametrize(
    ("level", "heard"),
    [("debug", "debug: d\ni\nwarning: w\n"), ("info", "i\nwarning: w\n"), ("warning", "warning: w\n"), ("error", "")],
)
def test_level(level: str, heard: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert level in log.LEVELS
    log.setup(level)
    logger = log.get("engine.loader")
    logger.debug("d")
    logger.info("i")
    logger.warning("w")
    assert capsys.readouterr().err == heard


def test_setting_up_twice_does_not_say_it_twice(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup()
    log.setup("warning", "json")
    log.setup()
    log.get("engine.hub").info("once")
    assert capsys.readouterr().err == "once\n"


def test_a_handler_of_the_host_program_does_not_repeat_it(caplog: pytest.LogCaptureFixture) -> None:
    log.setup()
    log.get("engine.hub").warning("once")
    assert caplog.messages == []


def test_other_libraries_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("debug")
    logging.getLogger("urllib3").debug("chatter")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("engine.hub", "sgdiff.hub"),
        ("engine.stages.denoise", "sgdiff.stages.denoise"),
        ("sgdiff_app.cli", "sgdiff.sgdiff_app.cli"),
    ],
)
def test_a_logger_is_named_after_its_module(module: str, name: str) -> None:
    assert log.get(module).name == name


def test_diffusers_is_quiet_for_a_while_only() -> None:
    from diffusers.utils import logging as theirs

    before = theirs.get_verbosity()
    with log.quiet_diffusers():
        assert theirs.get_verbosity() == theirs.ERROR
    assert theirs.get_verbosity() == before
