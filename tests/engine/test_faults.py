"""Delays and failures on request: only when asked, only where asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import env, faults
from engine.env import Environment
from engine.errors import OutOfMemory, UsageError
from engine.faults import Faults


def make(fault: str | None = None, delay_ms: float = 0) -> Faults:
    return Faults(Environment(cache_root=Path("cache"), test_fault=fault, test_step_delay_ms=delay_ms))


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr(faults.time, "sleep", taken.append)
    return taken


def test_nothing_happens_unasked(pauses: list[float]) -> None:
    for step in range(20):
        make().strike("FAULT", step)
    assert pauses == []


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("error", RuntimeError, "a test asked for this error"),
        ("oom", OutOfMemory, "a test asked for this memory error"),
        ("exit", SystemExit, "70"),
    ],
)
def test_it_strikes_at_its_step_alone(kind: str, error: type[BaseException], message: str) -> None:
    struck = make(f"{kind}@3")
    for step in (1, 2, 4, 5):
        struck.strike("a FAULT here", step)
    with pytest.raises(error, match=message):
        struck.strike("a FAULT here", 3)


def test_it_spares_prompts_without_the_mark() -> None:
    make("error@3").strike("a lighthouse without fault", 3)


def test_it_pauses_after_every_step_of_any_prompt(pauses: list[float]) -> None:
    slow = make("error@2", 40)
    slow.strike("x", 1)
    slow.strike("x", 2)
    assert pauses == [0.04, 0.04]


@pytest.mark.parametrize("text", ["error", "error@", "error@x", "crash@3", "oom@-1"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        make(text)
    assert caught.value.message == f"SGDIFF_TEST_FAULT: must be error@K, oom@K or exit@K, got '{text}'"


def test_a_step_without_a_kind_is_refused() -> None:
    with pytest.raises(UsageError) as error:
        Faults(env.read({"SGDIFF_TEST_FAULT": "@3"}))
    assert error.value.message == "SGDIFF_TEST_FAULT: must be error@K, oom@K or exit@K, got '@3'"
