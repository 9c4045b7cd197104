"""Servers for the tests of the routes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.sgdiff_app.server.serving import Running, Server

if TYPE_CHECKING:
    from openai import OpenAI

Starter = Callable[..., Running]
Sdk = Callable[[Running], "OpenAI"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Start servers with flags of their own; they end with the test."""
    servers: list[Server] = []

    def begin(*flags: str, folder: Path | None = None) -> Running:
        servers.append(Server(*flags, folder=folder or tmp_path))
        return servers[-1].__enter__()

    yield begin
    for server in servers:
        server.__exit__()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all tests of a module, with the bundled picture model's description."""
    with Server(folder=tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def sdk() -> Iterator[Sdk]:
    """Official clients of servers, closed with the test."""
    from openai import OpenAI  # takes a second, and few tests need it

    with ExitStack() as stack:
        yield lambda server: stack.enter_context(OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0))
