"""The application: routers, error handlers, and the gate in front of them."""

from __future__ import annotations

import importlib

from fastapi import FastAPI
from starlette.exceptions import HTTPException

from engine.errors import SgdiffError
from sgdiff_app import __version__
from sgdiff_app.server import errors
from sgdiff_app.server.service import Service

# Each is a module of this room with a `router`.
ROUTERS = ("info",)


def create(service: Service) -> FastAPI:
    """Return the application for a service; it neither starts nor stops the queue."""
    app = FastAPI(title="sgdiff-app", version=__version__, docs_url="/docs", redoc_url=None)
    app.state.service = service
    for name in ROUTERS:
        app.include_router(importlib.import_module(f"sgdiff_app.server.{name}").router)
    app.add_exception_handler(SgdiffError, errors.known)
    app.add_exception_handler(HTTPException, errors.of_framework)
    app.add_exception_handler(Exception, errors.unknown)
    return app
