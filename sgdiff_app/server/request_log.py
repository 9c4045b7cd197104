"""The request log: which request is being answered, and what is told of the jobs that requests become."""

from __future__ import annotations

import json
from contextvars import ContextVar
from typing import Any

from engine import log, schema
from engine.jobs import Job
from engine.types import Request

logger = log.get(__name__)

request_id: ContextVar[str] = ContextVar("request_id", default="-")  # of the request that a coroutine answers

PARAMETERS, PROMPTS, EVERYTHING = 1, 2, 3
TEXTS = ("prompt", "negative_prompt")
FILES = ("image_path", "mask_path", "video_path")
SHOWN = 200  # characters of a prompt below the highest level


def tell(job: Job, level: int) -> None:
    """Log what a job was asked for."""
    text = json.dumps(describe(job.request, level), ensure_ascii=False)
    logger.info("%s asks for %s %s with %s: %s", request_id.get(), job.kind, job.id, job.model, text)


def describe(request: Request, level: int) -> dict[str, Any]:
    """Return what a level tells of a request: 0 nothing, 1 numbers and words, 2 prompts cut short, 3 whole prompts.

    Files are counted and never named.
    """
    shown: dict[str, Any] = {}
    for name, value in schema.plain(request).items() if level >= PARAMETERS else ():
        if name in FILES:
            shown[name] = len(value) if isinstance(value, list) else 1
        elif name not in TEXTS or level >= EVERYTHING:
            shown[name] = value
        elif level >= PROMPTS:
            shown[name] = value if len(value) <= SHOWN else value[:SHOWN] + "…"
    return shown
