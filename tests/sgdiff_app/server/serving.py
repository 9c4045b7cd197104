"""A server in this process, by default with a worker that draws without a model, and a client for it."""

from __future__ import annotations

import asyncio
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn

from engine import env
from sgdiff_app import config, serve
from sgdiff_app.server.app import create
from sgdiff_app.server.protocol import Protocol
from sgdiff_app.server.service import Service

WORKER = (sys.executable, str(Path(__file__).parent / "null_worker.py"))


@dataclass
class Running:
    """A server that listens on a free port of loopback."""

    url: str
    service: Service
    client: httpx.Client


class Server:
    """uvicorn in a thread."""

    def __init__(self, *flags: str, folder: Path, command: tuple[str, ...] = WORKER, page: bool = False) -> None:
        argv = ["--data-dir", str(folder / "data"), "--output-path", str(folder / "outputs")]
        argv += ["--input-save-path", str(folder / "inputs"), *([] if page else ["--headless"]), *flags]
        self.service = serve.build(config.load(argv, "serve"), env.read(), command)
        settings = uvicorn.Config(
            create(self.service), port=0, http=Protocol, log_config=None, lifespan="on" if page else "off"
        )
        self.server = uvicorn.Server(settings)
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve()), daemon=True)

    def __enter__(self) -> Running:
        self.service.queue.start()
        self.thread.start()
        while not self.server.started:
            self.thread.join(0.01)
            assert self.thread.is_alive()
        assert self.service.queue.supervisor.wait(60, "ready", "unhealthy") == "ready"
        port = self.server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=url, timeout=30)
        return Running(url, self.service, self.client)

    def __exit__(self, *error: object) -> None:
        self.client.close()
        self.server.should_exit = True
        self.server.force_exit = True
        self.thread.join(10)
        self.service.queue.close()
        if self.service.webhooks is not None:
            self.service.webhooks.close(0.0)
