"""The page beside the API: the desk that it asks, and which of the two a path belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse

from engine import env
from sgdiff_app import __version__
from sgdiff_app.options import MB
from sgdiff_app.server.gate import PAGE
from sgdiff_app.server.later import Later
from sgdiff_app.server.service import Service

if TYPE_CHECKING:
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Receive, Scope, Send

    from ui.desk import Desk, Options

API = "v1"  # what is below it is never a page, whether or not there is a route
TITLE, ICONS = "sgdiff-app", (192, 512)
ELSEWHERE = re.compile(r"/file=\s*/*[a-z][a-z0-9+.-]+:", re.IGNORECASE)  # Gradio would fetch it, and answer as our own
FOLDER = "page"  # below the data folder: what browsers upload, and copies of what they look at


class Doors:
    """Gives a request to the API when the first part of its path is one of the API's, else to the page."""

    def __init__(self, api: FastAPI, pages: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self.api, self.pages = api, pages
        self.firsts = firsts((*api.routes, *routes))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; the page alone has something to do when the server starts and ends."""
        own = scope["type"] == "http" and first(_path(scope)) in self.firsts
        if not own:
            scope[PAGE] = True
            if is_elsewhere(scope):
                await not_given(scope, receive, send)
                return
        await (self.api if own else self.pages)(scope, receive, send)


def is_elsewhere(scope: Scope) -> bool:
    """Say whether the page is asked for a file of another server."""
    return scope["type"] == "http" and ELSEWHERE.search(_path(scope)) is not None


async def not_given(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer whoever asks for such a file."""
    await JSONResponse({"detail": "files of other servers are not given"}, 404)(scope, receive, send)


def firsts(routes: Iterable[BaseRoute]) -> frozenset[str]:
    """Return the first parts of the paths of the API."""
    return frozenset({API, *(first(getattr(route, "path", "")) for route in routes)} - {""})


def first(path: str) -> str:
    """Return the first part of a path."""
    return path.lstrip("/").partition("/")[0]


def _path(scope: Scope) -> str:
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(root) if path.startswith(f"{root}/") else path


def options_of(service: Service) -> Options:
    """Return what a service decides about its page."""
    from ui.desk import Options

    given = service.options
    folder = Path(given.input_save_path).expanduser() if given.input_save_path else service.queue.delivery.scratch
    return Options(
        version=__version__,
        data=service.data,
        inputs=folder,
        model_name=lambda: service.name,
        model_switch=given.model_switch,
        lora_dirs=_folders(given.lora_allowed_dirs),
        max_upload=given.max_body_mb * MB,
        root_path=given.root_path.strip("/") and f"/{given.root_path.strip('/')}",
        login=bool(service.access.digests),
    )


def _folders(given: tuple[str, ...] | None) -> tuple[Path, ...] | None:
    return None if given is None else tuple(Path(entry).expanduser() for entry in given)


def desk_of(service: Service) -> Desk:
    """Return what the page of a service asks."""
    from ui.desk import Desk

    return Desk(service.queue, service.environment, options_of(service))


async def manifest(http: Request) -> JSONResponse:
    """Describe the page to browsers that install it; every path is relative, as a proxy may add a prefix."""
    icons = [{"src": f"./pwa_icon/{side}", "sizes": f"{side}x{side}", "type": "image/png"} for side in ICONS]
    answer = {"name": TITLE, "short_name": TITLE, "start_url": "./", "scope": "./", "display": "standalone"}
    return JSONResponse({**answer, "icons": icons}, headers={"content-type": "application/manifest+json"})


def beside(api: FastAPI, service: Service, routes: Iterable[BaseRoute]) -> ASGIApp:
    """Return the API, whose `routes` are in routers, and the page as one application."""
    env.prepare_page(service.data / FOLDER)

    def build() -> FastAPI:
        from ui import app  # seconds, and only after the environment is prepared

        pages = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        pages.add_route("/manifest.json", manifest)
        app.mount(pages, desk_of(service))
        return pages

    return Doors(api, Later(build), routes)
