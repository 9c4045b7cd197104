"""The page of the routes: every one is on it, and a browser without a network shows it."""

from __future__ import annotations

import re

from sgdiff_app.server import app, docs, openapi
from tests.sgdiff_app.server.serving import Running


def test_every_route_is_on_the_page_and_nothing_is_from_elsewhere(server: Running) -> None:
    answer = server.client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    for path, methods in openapi.document(app.routers())["paths"].items():
        for method, told in methods.items():
            assert f"<td>{method.upper()}</td><td><code>{path}</code></td><td>{told['summary']}" in answer.text
    assert not re.search(r"//|<script|src=", answer.text)


def test_words_are_escaped_and_a_prefix_is_kept() -> None:
    described = {"info": {"title": "a", "version": "1"}, "paths": {"/x": {"get": {"summary": "a < b"}}}}
    page = docs.page(described, "/api")
    assert "a &lt; b" in page and "<code>/api/x</code>" in page and "href='/api/openapi.json'" in page
