"""A video job as /v1/videos shows it, and how soon to ask again."""

from __future__ import annotations

import copy
from typing import Any

from engine.jobs import Job
from engine.jobs.job import FINAL
from engine.media import FPS
from sgdiff_app.server import content
from sgdiff_app.server.service import Service

WORDS = {"queued": "queued", "running": "in_progress", "done": "completed", "failed": "failed", "cancelled": "failed"}
POLL_HEADER = "openai-poll-after-ms"
SOONEST_MS, LATEST_MS, USUAL_MS = 250, 2000, 1000
LOOKS = 20  # until a job ends, as far as its end can be told


def video(service: Service, job: Job) -> dict[str, Any]:
    """Return the Video object of a job; every key is always there. It asks the queue, so it belongs in a thread."""
    status, queue = job.status, service.queue  # the status first: it is what changes last when a job ends
    ended, done = status in FINAL, status == "done"
    there = range(len(job.artifacts)) if done and not job.expired else ()
    links = [content.url_of(service, job, index) for index in there] or None
    return {
        "id": job.id,
        "object": "video",
        "model": job.model,
        "status": WORDS[status],
        "progress": job.percent if ended else min(job.percent, 99),
        "created_at": int(job.created_at),
        "completed_at": int(job.completed_at) if ended and job.completed_at is not None else None,
        "expires_at": int(job.expires_at) if ended and job.expires_at is not None else None,
        "prompt": job.request.prompt,
        **described(job, done),
        "quality": job.notes.get("quality") or "standard",
        "remixed_from_video_id": job.notes.get("remixed_from"),
        "error": job.error if ended else None,
        "num_outputs": job.resolved.num_outputs_per_prompt,
        "queue_position": queue.position(job),
        "eta_s": _rounded(queue.eta_s(job)),
        "url": links[0] if links else None,
        "urls": links,
        "inference_time_s": _rounded(job.inference_s) if done else None,
        "queue_time_s": _rounded(job.queue_s),
        "peak_memory_mb": _rounded(job.peak_memory_mb) if done else None,
        "revised_prompt": None,
    }


def accepted(service: Service, job: Job) -> dict[str, Any]:
    """Return the Video object of a job as it was taken in, however far it is by now."""
    first = copy.copy(job)
    first.status, first.percent, first.started_at, first.completed_at = "queued", 0, None, None
    told, queue = video(service, first), service.queue
    return {**told, "queue_position": queue.position(job) or 0, "eta_s": _rounded(queue.eta_s(job))}


def described(job: Job, done: bool) -> dict[str, Any]:
    """Return what describes the file: of a finished one as it is, before that as it is planned."""
    planned = job.resolved
    seed = planned.seed[0] if isinstance(planned.seed, tuple) else planned.seed
    width, height, frames, fps = planned.width, planned.height, planned.num_frames, planned.fps or FPS
    if done and job.artifacts:
        made = job.artifacts[0]
        width, height, frames, fps, seed = made.width, made.height, made.frames, made.fps or fps, made.seed
    return {
        "size": f"{width}x{height}" if width and height else "auto",  # a stock pipeline may decide itself
        "seconds": str(max(1, round((frames or 1) / fps))),
        "num_frames": frames,
        "fps": fps,
        "seed": seed,
    }


def poll_headers(told: dict[str, Any]) -> dict[str, str]:
    """Return the header that says when to ask again for a Video object; none for a finished one."""
    if told["status"] in ("completed", "failed"):
        return {}
    eta_s = told["eta_s"]
    pause_ms = USUAL_MS if eta_s is None else int(eta_s * 1000 / LOOKS)
    return {POLL_HEADER: str(max(SOONEST_MS, min(LATEST_MS, pause_ms)))}


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)
