"""The application: routers, error handlers, and the gate in front of them."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse

from engine.errors import SgdiffError
from sgdiff_app import __version__
from sgdiff_app.serve import is_headless
from sgdiff_app.server import docs, errors, inputs, login, openapi, pages
from sgdiff_app.server.gate import Gate
from sgdiff_app.server.service import ClientGone, Service

# Each is a module of this room with a `router`.
ROUTERS = (
    "content",
    "images",
    "info",
    "jobs",
    "loras",
    "metrics",
    "videos",
)


def create(service: Service) -> Gate:
    """Return what serves HTTP for a service; it neither starts nor stops the queue."""
    app = routes(service)
    if is_headless(service.options):
        return Gate(app, service)
    return Gate(pages.beside(app, service, [route for router in routers() for route in router.routes]), service)


def routers(rooms: Iterable[str] = ROUTERS) -> list[APIRouter]:
    """Return the routes of rooms of the API."""
    return [importlib.import_module(f"sgdiff_app.server.{name}").router for name in rooms]


def routes(service: Service, rooms: Iterable[str] = ROUTERS) -> FastAPI:
    """Return the application behind the gate."""
    app = FastAPI(title="sgdiff-app", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.service = service
    service.queue.observers.append(lambda job: inputs.tidy(service, job))
    offered = routers(rooms)
    for router in offered:
        app.include_router(router)
    root = service.options.root_path.strip("/")
    prefix = root and f"/{root}"
    described = functools.cache(lambda: openapi.document(offered, prefix))
    app.openapi = described  # type: ignore[method-assign]

    async def list_routes(http: Request) -> HTMLResponse:
        return HTMLResponse(docs.page(described(), prefix))

    app.add_route("/docs", list_routes)
    login.add(app)
    app.add_exception_handler(SgdiffError, errors.known)
    app.add_exception_handler(HTTPException, errors.of_framework)
    app.add_exception_handler(ClientGone, errors.left)
    app.add_exception_handler(ClientDisconnect, errors.left)
    app.add_exception_handler(Exception, errors.unknown)
    return app
