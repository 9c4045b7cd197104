"""Idempotency-Key: a POST that a client sends twice starts one job, and is answered for the same one."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request as HttpRequest

from engine.errors import NotFound
from engine.jobs import Job
from sgdiff_app.server.errors import invalid
from sgdiff_app.server.service import Service

HEADER = "idempotency-key"
LONGEST = 255


@asynccontextmanager
async def once(service: Service, http: HttpRequest, content: Any, job_id: str) -> AsyncIterator[Job | None]:
    """Give the job that the same request has started within a day; None when this one is to start `job_id` inside.

    `content` is what the body says, JSON-able, with its files as hashes. When the work inside raises, the key is free
    again, and so it is after the job was deleted, or came to nothing while connections waited for it. Without the
    header, None. Raises ApiError `idempotency_mismatch`.
    """
    key = http.headers.get(HEADER)
    if not key:
        yield None
        return
    if len(key) > LONGEST:
        raise invalid("invalid_idempotency_key", f"{HEADER}: must have at most {LONGEST} characters")
    while (under_way := service.keys.get(key)) is not None:  # it may fail yet, and then this one takes its place
        await under_way.wait()
    service.keys[key] = begun = asyncio.Event()
    store, digest = service.queue.store, _digest(http.url.path, content)
    bound = False
    try:
        found = await service.aside(store.remember, key, digest, job_id)
        job = await service.aside(_job, service, found[1]) if found is not None else None
        if found is not None and job is None:
            await service.aside(store.forget, key, found[1])
            await service.aside(store.remember, key, digest, job_id)
        elif found is not None and found[0] != digest:
            message = f"{HEADER}: this key was used within 24 hours for another request"
            raise invalid("idempotency_mismatch", message)
        bound = job is None
        yield job
        bound = False
    finally:
        try:
            if bound:
                store.forget(key, job_id)
        finally:  # also when the database takes nothing: others wait
            del service.keys[key]
            begun.set()


def _digest(path: str, content: Any) -> str:
    return hashlib.sha256(f"{path}\n{json.dumps(content, sort_keys=True)}".encode()).hexdigest()


def _job(service: Service, job_id: str) -> Job | None:
    """Return a job; None when it is gone, or when it ended with its connections and there is nothing of it."""
    try:
        job = service.queue.get(job_id)
    except NotFound:
        return None
    lost = job.cancelled or job.status in ("failed", "cancelled")
    return None if lost and not job.detached else job
