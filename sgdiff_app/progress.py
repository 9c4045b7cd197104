"""How far a run is, on stderr: a bar on a terminal, otherwise a log line at each tenth."""

from __future__ import annotations

import logging
import shutil
import sys
from typing import TextIO

from engine import log
from engine.types import Progress

logger = log.get(__name__)
CELLS = 24
CLEAR, COLOR, PLAIN = "\r\x1b[K", "\x1b[36m", "\x1b[0m"


class Bar:
    """Shows the Progress of one output after another.

    `label` stands before each line where there are several outputs. With a log level above info nothing is shown.
    """

    def __init__(self, stream: TextIO | None = None, color: bool = True) -> None:
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.color = color
        self.label = ""
        self._drawn = False
        self._tenth: tuple[str, int, int] | None = None
        self._hidden = not logger.isEnabledFor(logging.INFO)

    def __call__(self, progress: Progress) -> None:
        """Show one Progress."""
        if self._hidden:
            return
        if self.terminal:
            self._draw(progress)
        else:
            self._line(progress)

    def clear(self) -> None:
        """Take the bar off the terminal, so that another line can be written."""
        if self._drawn:
            self.stream.write(CLEAR)
            self.stream.flush()
            self._drawn = False

    def _draw(self, progress: Progress) -> None:
        text = describe(progress)
        if progress.steps:
            full = CELLS * progress.step // progress.steps
            cells = "█" * full + "░" * (CELLS - full)
            text = f"{text}  {cells}"
        width = shutil.get_terminal_size().columns - 1
        text = f"{self.label}{text}"[:width]
        self.stream.write(f"{CLEAR}{COLOR}{text}{PLAIN}" if self.color else f"{CLEAR}{text}")
        self.stream.flush()
        self._drawn = True

    def _line(self, progress: Progress) -> None:
        if not progress.steps:
            return
        tenth = (self.label, progress.index, 10 * progress.step // progress.steps)
        if tenth != self._tenth and tenth[2] > 0:
            logger.info("%s%d%% %s", self.label, 100 * progress.step // progress.steps, describe(progress))
        self._tenth = tenth


def describe(progress: Progress) -> str:
    """Return stage, step, steps and the seconds left."""
    text = progress.stage.replace("_", " ")
    if progress.steps:
        text += f" {progress.step}/{progress.steps}"
    if progress.eta_s is not None:
        text += f", {progress.eta_s:.0f} s left"
    return text


class ClearFirst(logging.Filter):
    """Takes the bar away before a log line is written."""

    def __init__(self, bar: Bar) -> None:
        super().__init__()
        self.bar = bar

    def filter(self, record: logging.LogRecord) -> bool:
        self.bar.clear()
        return True
