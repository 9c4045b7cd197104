"""The bar on a terminal, the lines elsewhere."""

from __future__ import annotations

import io
import logging

import pytest

from engine import log
from engine.types import Progress
from sgdiff_app.progress import CLEAR, COLOR, Bar, ClearFirst


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def step(number: int, of: int = 20, stage: str = "denoising", index: int = 0) -> Progress:
    return Progress(stage, number, of, eta_s=12.4, index=index)


def test_a_bar_shows_stage_step_and_time_left() -> None:
    stream = Terminal()
    bar = Bar(stream, color=False)
    bar.label = "[1/2] "
    bar(step(5))
    assert stream.getvalue() == f"{CLEAR}[1/2] denoising 5/20, 12 s left  " + "█" * 6 + "░" * 18
    bar.clear()
    assert stream.getvalue().endswith(CLEAR)
    bar.clear()
    assert stream.getvalue().count(CLEAR) == 2


def test_a_stage_without_steps_has_no_cells() -> None:
    stream = Terminal()
    Bar(stream, color=False)(Progress("text_encoding"))
    assert stream.getvalue() == f"{CLEAR}text encoding"


def test_colour_is_on_only_when_wanted() -> None:
    for color in (True, False):
        stream = Terminal()
        Bar(stream, color=color)(step(1))
        assert (COLOR in stream.getvalue()) is color


def test_the_bar_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    Bar(stream, color=False)(step(5))
    assert stream.getvalue() == f"{CLEAR}denoising 5/20, 12 "


def test_elsewhere_each_tenth_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    bar = Bar(io.StringIO())
    bar(Progress("encoding"))
    for number in range(26):
        bar(step(number, 25))
    bar(step(25, 25, stage="decoding"))
    assert len(caplog.messages) == 10
    assert caplog.messages[0] == "12% denoising 3/25, 12 s left"
    assert caplog.messages[-1] == "100% denoising 25/25, 12 s left"
    bar(step(25, 25, index=1))
    assert len(caplog.messages) == 11


def test_quiet_hides_it(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger(log.ROOT).setLevel("WARNING")
    stream = Terminal()
    Bar(stream)(step(5))
    Bar(io.StringIO())(step(20))
    assert (stream.getvalue(), caplog.messages) == ("", [])


def test_a_log_line_takes_the_bar_away_first() -> None:
    stream = Terminal()
    bar = Bar(stream, color=False)
    handler = logging.StreamHandler(stream)
    handler.addFilter(ClearFirst(bar))
    bar(step(1))
    handler.handle(logging.makeLogRecord({"msg": "a line"}))
    assert stream.getvalue().endswith(f"{CLEAR}a line\n")
