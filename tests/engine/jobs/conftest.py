"""Queues with a worker that draws without a model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine import env, schema
from engine.config import EngineConfig
from engine.engine import resolve
from engine.jobs import Job, JobQueue, JobStore
from engine.jobs.delivery import Delivery
from engine.jobs.queue import QueueOptions
from engine.types import Request
from tests.sgdiff_app.server.serving import WORKER

TINY = {"width": 16, "height": 16, "seed": 1}
PATIENCE_S = 30.0


@dataclass
class Line:
    """A queue, and what tests do with it."""

    queue: JobQueue
    folder: Path

    def ask(self, prompt: str = "x", kind: Any = "image", **fields: Any) -> Job:
        """Put a request in; `detached` and the like go to the queue, the rest is the request's."""
        own = {name: fields.pop(name) for name in ("detached", "listener", "preview", "inputs") if name in fields}
        request = schema.read(Request, {"prompt": prompt, **TINY, **fields})
        assert self.queue.spec is not None
        resolved = resolve(request, self.queue.spec, self.queue.served)
        return self.queue.submit(request, kind, resolved=resolved, model="m", **own)

    def until(self, what: Callable[[], Any], timeout: float = PATIENCE_S) -> None:
        """Wait for something to become true."""
        changed = self.queue.supervisor.changed
        with changed:
            for _ in range(int(timeout / 0.01)):
                if what():
                    return
                changed.wait(0.01)
        raise AssertionError("waited too long")

    def ended(self, *jobs: Job) -> list[str]:
        """Wait for the end of jobs; return what they ended with."""
        self.until(lambda: all(job.finished for job in jobs))
        return [job.error["code"] if job.error else job.status for job in jobs]

    def outputs(self) -> list[str]:
        """The files of outputs, and whatever else was left there."""
        return sorted(path.name for path in (self.folder / "outputs").glob("*"))

    def scratch(self) -> list[str]:
        return sorted(path.name for path in self.queue.delivery.scratch.glob("*"))


Opener = Callable[..., Line]


def begin(
    folder: Path,
    command: Sequence[str] = WORKER,
    ready: bool = True,
    config: EngineConfig | None = None,
    cloud: Any = None,
    **options: Any,
) -> Line:
    """Start a queue."""
    delivery = Delivery(folder / "outputs", Path(tempfile.mkdtemp(dir=folder)), cloud)
    store = JobStore(folder / "jobs.sqlite3")
    queue = JobQueue(config or EngineConfig(), env.read(), store, delivery, QueueOptions(**options), command)
    queue.start()
    assert not ready or queue.supervisor.wait(60, "ready", "unhealthy") == "ready"
    return Line(queue, folder)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    """Start queues of a test's own; they are closed with it."""
    lines: list[Line] = []

    def start(folder: Path = tmp_path, **more: Any) -> Line:
        lines.append(begin(folder, **more))
        return lines[-1]

    yield start
    for line in lines:
        line.queue.close()


@pytest.fixture(scope="module")
def _one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    line = begin(tmp_path_factory.mktemp("queue"))
    yield line
    line.queue.close()


@pytest.fixture
def tuned(_one: Line) -> Iterator[Opener]:
    """Give the one queue of a module the options of a test; it is empty before and afterwards."""
    queue = _one.queue

    def tune(**options: Any) -> Line:
        queue.options = QueueOptions(**options)
        return _one

    yield tune
    queue.observers.clear()
    for job in (*queue.waiting, *queue.running.values()):
        queue.cancel(job.id)
    _one.until(lambda: not queue.running)
    for job in queue.store.page(limit=100)[0]:
        queue.delete(job.id)
    queue.durations.last.clear()
