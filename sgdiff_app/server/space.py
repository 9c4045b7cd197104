"""A Space: the page and the API in one process that draws by itself, served by Gradio as its hosts expect."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.routing import BaseRoute, Match

from engine import env, log
from engine.config import EngineConfig
from engine.env import Environment
from engine.jobs import JobStore
from engine.jobs.delivery import Delivery
from engine.jobs.inline import Fence, InlineQueue
from sgdiff_app import config
from sgdiff_app.options import LogOptions, ServerOptions
from sgdiff_app.serve import limits_of
from sgdiff_app.server import app, pages
from sgdiff_app.server.access import Access, keys_of
from sgdiff_app.server.gate import Gate
from sgdiff_app.server.service import Service

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from sgdiff_app.config import Settings

logger = log.get(__name__)

# What differs from `serve` unless the environment says otherwise: strangers share one model for a while.
DEFAULTS: Mapping[str, Any] = {"model_switch": False, "output_ttl": "2h", "max_queue": 32, "max_body_mb": 32}
OPEN_ROOMS = ("content", "images", "info")  # of the API, that show nobody what others draw
HOSTS = ("*",)  # a public page has nothing that a page of somebody else could not ask for itself


class Beside(BaseRoute):
    """Leads paths of the API to the API, whose answers are those of `serve`; all else that may be is the page."""

    def __init__(self, gate: Gate, firsts: frozenset[str]) -> None:
        self.gate, self.firsts = gate, firsts

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Say whether a request is for the API, or for what the page must not give."""
        own = scope["type"] == "http" and pages.first(scope["path"]) in self.firsts
        return (Match.FULL if own or pages.is_elsewhere(scope) else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer it."""
        from ui import inline

        if pages.is_elsewhere(scope):
            await pages.not_given(scope, receive, send)
            return
        with inline.visitor(Request(scope)):
            await self.gate(scope, receive, send)


@dataclass(slots=True)
class Space:
    """What runs: the service of the API, the desk of the page, the queue of both."""

    service: Service
    queue: InlineQueue
    data: Path

    def gate(self) -> Gate:
        """Return the API; without a key, the part of it that may be open to everybody."""
        rooms = app.ROUTERS if self.service.access.digests else OPEN_ROOMS
        return Gate(app.routes(self.service, rooms), self.service)

    def start(self) -> tuple[Any, str]:
        """Load the model and serve; return the page and the place where it is."""
        env.prepare_page(self.data / pages.FOLDER)
        from ui import inline

        self.queue.start()
        desk = inline.InlineDesk(self.queue, self.service.environment, pages.options_of(self.service))
        page, served = inline.launch(desk)
        rooms = app.routers(app.ROUTERS)
        firsts = pages.firsts(route for router in rooms for route in router.routes)
        served.router.routes.insert(0, Beside(self.gate(), firsts))  # the page has a route for every path
        return page, str(page.local_url)

    def close(self) -> None:
        """Let go of everything, files included."""
        self.queue.close()
        shutil.rmtree(self.data, ignore_errors=True)


def run(
    lend: Callable[..., Any] | None = None,
    caps: Mapping[str, int] | None = None,
    loras: Sequence[str] | None = None,
) -> None:
    """Serve until the process is ended. `lend` is `spaces.GPU`; `caps` and `loras` bound what a request may ask for.

    Settings come from the environment, such as SGDIFF_MODEL_PATH. Raises UsageError and ModelError.
    """
    settings = config.load((), "serve")
    options = settings.noun(LogOptions)
    log.setup(options.log_level, options.log_format or "text")
    space = build(settings, env.read(), lend, Fence(caps=caps or {}, loras=None if loras is None else tuple(loras)))
    try:
        page, url = space.start()
        logger.info("%s: serving at %s", space.service.name, url)
        page.block_thread()
    finally:
        space.close()


def build(
    settings: Settings, environment: Environment, lend: Callable[..., Any] | None = None, fence: Fence | None = None
) -> Space:
    """Return the Space that settings describe; nothing is started. Raises UsageError."""
    from ui import inline

    options = options_of(settings)
    data = Path(tempfile.mkdtemp(prefix="sgdiff-space-"))
    queue = InlineQueue(
        settings.noun(EngineConfig),
        environment,
        JobStore(data / "jobs.sqlite3"),
        Delivery(data / "outputs", data / "scratch"),
        limits_of(options),
        device=inline.device(lend),
        fence=fence,
    )
    service = Service(queue, options, environment, data, access=Access(keys_of(options)))
    return Space(service, queue, data)


def options_of(settings: Settings) -> ServerOptions:
    """Return the settings of the server, with the defaults of a Space and the name that its host gave it."""
    given = {name: value for name, value in DEFAULTS.items() if (name,) not in settings.entries}
    options, host = settings.noun(ServerOptions), env.space_host()
    given["input_save_path"] = ""
    if options.max_running is None and not env.is_zero_gpu():
        given["max_running"] = 1  # one device for all: the next one waits, and the page says so
    if host is not None:
        given |= {"allowed_hosts": options.allowed_hosts or HOSTS, "public_base_url": f"https://{host}"}
    return replace(options, **given)
