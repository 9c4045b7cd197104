"""A desk over a real queue, whose worker draws flat colours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from engine import env
from sgdiff_app import config, serve
from sgdiff_app.server.pages import desk_of
from tests.sgdiff_app.server.serving import WORKER
from ui.desk import Desk, Snapshot

T = TypeVar("T")


@contextmanager
def desk_at(folder: Path, *flags: str) -> Iterator[Desk]:
    """Give a desk whose worker is ready."""
    argv = ["--data-dir", str(folder / "data"), "--output-path", str(folder / "outputs")]
    argv += ["--input-save-path", str(folder / "inputs"), *flags]
    service = serve.build(config.load(argv, "serve"), env.read(), WORKER)
    service.queue.start()
    try:
        assert service.queue.supervisor.wait(60, "ready", "unhealthy") == "ready"
        yield desk_of(service)
    finally:
        service.queue.close()


def following(desk: Desk, client: str) -> Iterator[Snapshot]:
    """Follow the jobs of a client as a page does; leave it with `close`."""
    return stepping(desk.follow(client))


def stepping(found: AsyncGenerator[T, None]) -> Iterator[T]:
    """Go through an asynchronous generator step by step, in an event loop of its own."""

    async def step() -> T:
        return await anext(found)

    with asyncio.Runner() as runner:
        try:
            while True:
                try:
                    value = runner.run(step())
                except StopAsyncIteration:
                    return
                yield value
        finally:
            runner.run(found.aclose())
