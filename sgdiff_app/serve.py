"""`serve`: from settings to a running server; drains on the first signal, ends at once on the second."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from engine import log
from engine.config import EngineConfig
from engine.env import Environment
from engine.errors import UsageError
from engine.jobs import JobQueue, JobStore
from engine.jobs.delivery import Delivery
from engine.jobs.queue import QueueOptions
from sgdiff_app.config import Settings
from sgdiff_app.options import OutputOptions, ServerOptions

if TYPE_CHECKING:
    from fastapi import FastAPI

    from sgdiff_app.server.service import Service

logger = log.get(__name__)
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str, where: str) -> float:
    """Return the seconds of a duration such as 90, 90s, 15m, 24h. Raises UsageError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", text.strip())
    if found is None:
        raise UsageError(f"{where}: must be a duration such as 90s, 15m or 24h, got '{text}'", param=where)
    return float(found[1]) * UNITS[found[2] or "s"]


def build(settings: Settings, environment: Environment, command: tuple[str, ...] | None = None) -> Service:
    """Return the service that settings describe; nothing is started. Raises UsageError and OutputError."""
    import tempfile

    import platformdirs

    from engine.jobs.child import COMMAND
    from sgdiff_app.server import webhooks
    from sgdiff_app.server.service import Service

    options, output = settings.noun(ServerOptions), settings.noun(OutputOptions)
    limits = QueueOptions(
        max_queue=options.max_queue,
        max_running=options.max_running,
        job_timeout_s=duration(options.job_timeout, "job_timeout") if options.job_timeout else None,
        output_ttl_s=duration(options.output_ttl, "output_ttl") if options.output_ttl else None,
        requeue=options.requeue_on_restart,
    )
    hooks = webhooks.of_options(options)
    data = Path(options.data_dir or platformdirs.user_data_path("sgdiff", appauthor=False))
    scratch = Path(tempfile.mkdtemp(prefix="sgdiff-"))
    folder = Path(output.output_path).expanduser() if output.output_path else None
    queue = JobQueue(
        settings.noun(EngineConfig),
        environment,
        JobStore(data / "jobs.sqlite3"),
        Delivery(folder, scratch),
        limits,
        command or COMMAND,
    )
    ready = duration(options.ready_timeout, "ready_timeout")
    if hooks is not None:
        queue.observers.append(hooks.hear)
    return Service(queue, options, environment, ready_timeout_s=ready, webhooks=hooks)


def run(settings: Settings, environment: Environment) -> int:
    """Serve until told to stop; return the exit status. Raises SgdiffError before anything listens."""
    service = build(settings, environment)
    from sgdiff_app.server.app import create

    return asyncio.run(_serve(create(service), service))


async def _serve(app: FastAPI, service: Service) -> int:
    import uvicorn

    options = service.options
    config = uvicorn.Config(app, options.host, options.port, log_config=None, lifespan="off", access_log=False)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    service.queue.start()
    serving = asyncio.create_task(server.serve())
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
    await service.aside(service.queue.drain, float(options.http_graceful_shutdown_timeout))
    if service.webhooks is not None:
        await service.aside(service.webhooks.close)
    server.should_exit = True
    await serving
    return 0
