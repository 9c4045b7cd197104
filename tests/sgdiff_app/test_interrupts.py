"""Signals: the first cancels, the second stops at once."""

from __future__ import annotations

import signal

import pytest

from sgdiff_app.interrupts import Interrupts


class Run:
    cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_cancels_and_the_second_stops(number: signal.Signals, status: int) -> None:
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        run = Run()
        interrupts.control = run
        signal.raise_signal(number)
        assert (run.cancelled, interrupts.status) == (1, status)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert (run.cancelled, interrupts.status) == (1, status)
    assert signal.getsignal(number) is before


def test_without_a_run_the_first_stops() -> None:
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert interrupts.status == 143
