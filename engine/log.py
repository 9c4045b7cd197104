"""Log lines of the program: one logger tree, text for people or JSON for machines."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

ROOT = "sgdiff"
LEVELS = ("debug", "info", "warning", "error")


def get(module: str) -> logging.Logger:
    """Return the logger of a module, below the program's root logger."""
    return logging.getLogger(f"{ROOT}.{module.removeprefix('engine.')}")


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        prefix = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return f"{prefix}{record.getMessage()}" + (
            f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        )


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def setup(level: str = "info", style: Literal["text", "json"] = "text") -> None:
    """Send log lines to stderr; stdout belongs to results. Calling it again replaces the handler."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if style == "json" else _Text())
    root = logging.getLogger(ROOT)
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False


def current() -> tuple[str, Literal["text", "json"]]:
    """Return what `setup` was told, for another process to do the same."""
    root = logging.getLogger(ROOT)
    style = any(isinstance(handler.formatter, _Json) for handler in root.handlers)
    return logging.getLevelName(root.level or logging.INFO).lower(), "json" if style else "text"


def quiet_libraries() -> None:
    """Keep the model libraries' own progress bars and notices off stderr; ours speaks for them."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # notices about torchvision, which nothing here needs


@contextmanager
def quiet_diffusers() -> Iterator[None]:
    """Keep the notices of diffusers off stderr meanwhile; at other times they may matter to whoever draws."""
    import diffusers

    before = diffusers.utils.logging.get_verbosity()
    diffusers.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers.utils.logging.set_verbosity(before)
