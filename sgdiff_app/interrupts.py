"""Ctrl-C and SIGTERM: the first asks the run to stop within a step, the second stops at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Protocol, Self


class Cancellable(Protocol):
    """What a run can be stopped by."""

    def cancel(self) -> None: ...


class Interrupts:
    """Signal handlers while work is going on; `status` is the exit status once a signal came."""

    def __init__(self) -> None:
        self.control: Cancellable | None = None
        self.status: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self.status is not None
        self.status = self.status or 128 + number
        if self.control is None or again:
            raise KeyboardInterrupt
        self.control.cancel()
