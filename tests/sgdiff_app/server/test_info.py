"""Health and what is served."""

from __future__ import annotations

from tests.sgdiff_app.server.serving import Running


def test_health(server: Running) -> None:
    assert server.client.get("/health").json() == {"status": "ok"}
    assert server.client.get("/liveness").json() == {"status": "ok"}
