"""What may be said to a run, and heard from it."""

from __future__ import annotations

import pytest

from engine.errors import Cancelled
from engine.runtime.control import Control
from engine.types import Progress


def test_a_cancelled_run_is_told_so() -> None:
    control = Control()
    control.check()
    control.cancel()
    with pytest.raises(Cancelled, match=r"^cancelled$"):
        control.check()


def test_every_listener_hears_progress_and_can_leave() -> None:
    always: list[Progress] = []
    sometimes: list[Progress] = []
    control = Control(always.append)
    with control.heard_by(sometimes.append):
        control.tell(Progress("denoising", 1, 2))
    control.tell(Progress("denoising", 2, 2))
    assert [progress.step for progress in always] == [1, 2]
    assert [progress.step for progress in sometimes] == [1]
