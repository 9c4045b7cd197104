"""A stage is a name, what it needs, and what it does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from engine.stages import Stage


def test_calling_a_stage_runs_it_on_the_state() -> None:
    def run(state: Any) -> None:
        state.step += 1

    stage, state = Stage("count", ("vae",), run), SimpleNamespace(step=1)
    stage(state)  # type: ignore[arg-type]
    assert state.step == 2
    assert stage.uses == ("vae",)
