"""The application as a whole: nothing of it is open, and a proxy may put it below a prefix."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sgdiff_app.server.app import routes
from tests.sgdiff_app.server.conftest import Starter
from tests.sgdiff_app.server.serving import Running

OPEN = {"/health", "/ready", "/liveness", "/health_generate"}


def test_every_route_but_probes_asks_for_the_key(start: Starter) -> None:
    server = start("--api-key", "k")
    paths = [*routes(server.service).openapi()["paths"], "/docs", "/openapi.json", "/metrics", "/", "/nope"]
    assert len(paths) > 20
    let_in = {path for path in paths if server.client.get(path).status_code != 401}
    assert let_in == OPEN
    assert server.client.get("/v1/models", headers={"authorization": "Bearer k"}).status_code == 200


def test_below_a_prefix_of_a_proxy(start: Starter) -> None:
    server = start("--root-path", "/pictures")
    for path in ("/pictures/v1/models", "/v1/models"):
        assert server.client.get(path).json()["object"] == "list"
    assert server.client.get("/picturesque/v1/models").status_code == 404
    assert "'/pictures/openapi.json'" in server.client.get("/docs").text


def test_unknown_routes_and_wrong_methods(server: Running) -> None:
    for method, path, status, code in (
        ("GET", "/v1/meshes", 404, "not_found"),
        ("GET", "/stats", 404, "not_found"),
        ("GET", "/health/", 404, "not_found"),
        ("POST", "/v1/images/generations/", 404, "not_found"),
        ("GET", "/v1/jobs/x/events/y", 404, "not_found"),
        ("DELETE", "/health", 405, "method_not_allowed"),
        ("OPTIONS", "/health", 405, "method_not_allowed"),
        ("PROPFIND", "/v1/jobs", 405, "method_not_allowed"),
        ("PUT", "/docs", 405, "method_not_allowed"),
    ):
        answer = server.client.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), path
        assert answer.json()["error"]["type"] == "invalid_request_error"
        assert answer.headers["x-request-id"].startswith("req_")
        assert (status == 405) == ("allow" in answer.headers)
    head = server.client.head("/health")  # has no body to tell why in
    assert (head.status_code, head.content, head.headers["allow"]) == (405, b"", "GET")


SERVE = """
import sys
from engine import env
from sgdiff_app import config, serve
from sgdiff_app.server.app import create
flags = ["--headless", "--data-dir", sys.argv[1], "--enable-metrics"]
service = serve.build(config.load(flags, "serve"), env.read())
create(service).app.openapi()
service.queue.close()
print(*sys.modules)
"""


def test_the_process_that_serves_does_without_models(tmp_path: Path) -> None:
    loaded = subprocess.check_output([sys.executable, "-c", SERVE, str(tmp_path / "data")], text=True).split()
    assert "fastapi" in loaded
    assert not {"torch", "diffusers", "transformers", "gradio", "boto3"} & set(loaded)
