"""The command line as tests call it: in this process, with what it printed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from engine import log
from sgdiff_app.cli import main


class Answer(NamedTuple):
    """What a command line came to."""

    status: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Relative paths are below the test's own folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _levels(_heard_logs: None) -> Iterator[None]:
    """A level that one command line sets is not the next one's: setting it anew also forgets who was enabled."""
    root = logging.getLogger(log.ROOT)
    root.setLevel(logging.INFO)
    yield
    root.setLevel(logging.INFO)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run a command line."""

    def run(*words: object) -> Answer:
        status = main([str(word) for word in words])
        return Answer(status, *capsys.readouterr())

    return run


@pytest.fixture
def refused(cli: Callable[..., Answer]) -> Callable[..., str]:
    """Run a command line that is wrong and return its message."""

    def run(*words: object) -> str:
        answer = cli(*words)
        assert (answer.status, answer.out) == (2, "")
        assert answer.err.startswith("error: ")
        assert answer.err.count("\n") == 1
        return answer.err.removeprefix("error: ").strip()

    return run
