"""Health, what is served, and switching it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from openai import NotFoundError, OpenAI

from engine import hub
from tests.sgdiff_app.server.conftest import Starter
from tests.sgdiff_app.server.serving import Running

SEVEN = ("model_path", "task_type", "pipeline_name", "pipeline_class", "num_gpus", "dit_precision", "vae_precision")


def sdk(server: Running) -> OpenAI:
    return OpenAI(base_url=server.url + "/v1", api_key="x", max_retries=0)


def error_of(answer: Any) -> dict[str, Any]:
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return dict(error)


def test_health(server: Running) -> None:
    for path in ("/health", "/ready", "/health_generate", "/liveness"):
        assert server.client.get(path).json() == {"status": "ok"}, path


def test_models(server: Running) -> None:
    found = server.client.get("/models").json()
    assert set(SEVEN) <= found.keys()
    assert (found["model_path"], found["task_type"], found["num_gpus"]) == ("tiny-scenes", "T2I", 1)
    assert found["pipeline_name"] == found["pipeline_class"].lower().replace("pipeline", "_pipeline")
    assert found["defaults"]["size"] == "256x256"
    assert server.client.get("/v1/model_info").json() == {"model_path": "tiny-scenes"}


def test_model_info(server: Running) -> None:
    found = server.client.get("/model_info").json()
    assert found["is_generation"] is True
    assert (found["output_types"], found["is_image_gen"]) == (["image"], True)


def test_server_info(server: Running) -> None:
    found = server.client.get("/server_info").json()
    assert found["queue"] == {"waiting": 0, "running": 0}
    assert found["served_model_name"] == "tiny-scenes"
    assert found["uptime_s"] >= 0
    assert found["lora_enabled"] is True


def test_a_model_without_a_denoiser_takes_no_adapters(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = server.service.queue.supervisor
    monkeypatch.setattr(supervisor, "told", {**supervisor.told, "takes_loras": False})
    assert server.client.get("/server_info").json()["lora_enabled"] is False


def test_cards(server: Running) -> None:
    """Conformance cases 2, 3 and 4."""
    listed = server.client.get("/v1/models").json()
    assert listed["object"] == "list"
    (card,) = listed["data"]
    assert {"id", "object", "num_gpus", "task_type", "dit_precision", "vae_precision"} <= card.keys()
    assert server.client.get(f"/v1/models/{card['id']}").json() == card
    assert sdk(server).models.retrieve("tiny-scenes").model_dump(exclude_unset=True) == card
    refused = error_of(server.client.get("/v1/models/nope"))
    assert (refused["code"], refused["param"]) == ("model_not_found", "model")
    assert refused["type"] == "invalid_request_error"
    with pytest.raises(NotFoundError):
        sdk(server).models.retrieve("nope")


def test_names(start: Starter) -> None:
    """Conformance case 5; ids with a slash as the SDK and as users write them."""
    server = start("--served-model-name", "our/picture model", "--model-alias", "dall-e-3")
    (card,) = server.client.get("/v1/models").json()["data"]
    assert (card["id"], card["root"]) == ("our/picture model", "tiny-scenes")
    assert sdk(server).models.retrieve("our/picture model").id == card["id"]  # sends %2F
    for name in ("our/picture%20model", "dall-e-3", "tiny-scenes"):
        assert server.client.get(f"/v1/models/{name}").json() == card


def test_cards_outlive_the_worker(start: Starter) -> None:
    server = start()
    card = server.client.get("/v1/models").json()
    child = server.service.queue.supervisor.child
    assert child is not None
    child.process.kill()
    end = time.monotonic() + 10
    while server.service.queue.health != "unhealthy":
        assert time.monotonic() < end
        time.sleep(0.005)
    assert server.client.get("/health").json()["status"] in ("unhealthy", "ok")
    assert server.client.get("/v1/models").json() == card


def test_cards_before_the_worker_has_told(start: Starter) -> None:
    server = start("--dit-precision", "fp32")
    server.service.queue.supervisor.told = {}
    assert server.client.get("/models").json()["dit_precision"] == "fp32"
    server.service.queue.supervisor.spec = None  # of a model that no catalog knows
    (card,) = server.client.get("/v1/models").json()["data"]
    assert (card["id"], card["task_type"], card["supported_task_types"]) == ("tiny-scenes", None, [])


def test_switching(start: Starter, tmp_path: Path) -> None:
    """Conformance case 59, with a folder below the data folder in place of a second bundled model."""
    folder = hub.bundled("tiny-scenes")
    assert folder is not None
    shutil.copytree(folder, tmp_path / "data" / "models" / "mine")
    server = start("--served-model-name", "pictures", "--lora-path", str(tmp_path / "of-the-first"))
    answer = server.client.post("/v1/models/load", json={"model": "mine"})
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "model": "mine"})
    (card,) = server.client.get("/v1/models").json()["data"]
    assert (card["id"], card["root"]) == ("mine", "mine")
    assert server.service.queue.supervisor.config.lora_path is None
    assert server.client.get("/v1/models/pictures").status_code == 404  # a name of the first model
    again = server.client.post("/v1/models/load", json={"model": "mine"})
    assert again.json() == answer.json()
    back = server.client.post("/v1/models/load", json={"model": "pictures"})
    assert back.json() == {"status": "ok", "model": "pictures"}
    assert server.client.get("/models").json()["model_path"] == "tiny-scenes"


def test_switching_off(start: Starter) -> None:
    server = start("--no-model-switch")
    answer = server.client.post("/v1/models/load", json={"model": "tiny-motion"})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "model_switch_disabled")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "no-such-model"}, 404, "model_not_found"),
        ({"model": "https://example.com/model"}, 400, "invalid_model_path"),
        ({"model": "../../etc"}, 400, "invalid_model_path"),
        ({"model": "/etc"}, 400, "invalid_model_path"),
        ({"model": "a\u0000b"}, 400, "invalid_model_path"),
        ({"model": 3}, 400, "invalid_model"),
        ({}, 400, "missing_parameter"),
        ({"model": "x", "revision": "y"}, 400, "unknown_parameter"),
    ],
)
def test_a_wrong_model(server: Running, body: dict[str, Any], status: int, code: str) -> None:
    answer = server.client.post("/v1/models/load", json=body)
    assert (answer.status_code, error_of(answer)["code"]) == (status, code)
    assert server.client.get("/models").json()["model_path"] == "tiny-scenes"
