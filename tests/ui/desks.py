"""A desk over a real queue, whose worker draws flat colours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine import env
from sgdiff_app import config, serve
from sgdiff_app.server.pages import desk_of
from tests.sgdiff_app.server.serving import WORKER
from ui.desk import Desk


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
