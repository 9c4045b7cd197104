"""The description of the API is true: every route is in it, and what it says of answers holds; nothing answers 5xx."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from sgdiff_app.server import app, openapi
from tests.sgdiff_app.server.conftest import Starter
from tests.sgdiff_app.server.folders import video_model
from tests.sgdiff_app.server.serving import Running, Server

BOUNDED = ("--offline", "--max-image-mb", "1", "--job-timeout", "10s", "--max-pixels", "65536")
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
EXAMPLES = settings(
    max_examples=12,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("clips")
    with Server("--model-path", video_model(folder, "T2V"), *BOUNDED, folder=folder) as running:
        yield running


DESCRIBED = openapi.document(app.routers())
SCHEMA = schemathesis.openapi.from_dict(DESCRIBED)
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]


PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
PICTURE = {"prompt": "a boat", "size": "64x48"}
# Bodies that are served; most of those that are made up are not.
SERVED: dict[str, dict[str, Any]] = {
    "POST /v1/images/generations": PICTURE,
    "POST /v1/images/edits": {**PICTURE, "image": PIXEL},
    "POST /v1/videos": {**PICTURE, "num_frames": 5},
    "POST /v1/videos/{video_id}/remix": {"prompt": "a ship"},
    "POST /v1/set_lora": {"lora_nickname": "a", "lora_path": "owner/a"},
    "POST /v1/merge_lora_weights": {},
    "PATCH /v1/jobs/{job_id}": {"starred": True},
}
SELDOM = ("GET /metrics", "GET /v1/jobs/{job_id}/preview")  # answer otherwise without a flag, or a job that runs


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Server(*BOUNDED, folder=tmp_path_factory.mktemp("pictures")) as running:
        yield running


def made(server: Running) -> str:
    """Return the id of something that was drawn."""
    spec = server.service.queue.spec
    assert spec is not None
    if not spec.is_video:
        return str(server.client.post("/v1/images/generations", json=PICTURE).json()["id"])
    job_id = str(server.client.post("/v1/videos", json={**PICTURE, "num_frames": 5}).json()["id"])
    with server.client.stream("GET", f"/v1/jobs/{job_id}/events") as events:
        list(events.iter_lines())
    return job_id


def likely(body: Any, served: dict[str, Any], count: int) -> dict[str, Any]:
    """Return a body that is served but for a few fields of one that was made up."""
    found = body if isinstance(body, dict) else {}
    names = sorted(found.keys() - {*served, "loras", "model", "num_frames", "height", "width"})
    return {**served, **{name: found[name] for name in names[count % 7 :][: count % 3]}}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_answers_are_as_described(clips: Running, pictures: Running, operation: Any) -> None:
    server = pictures if "/images/" in operation.path else clips
    statuses, count = set[int](), -1
    served = {**SERVED, "POST /v1/models/load": {"model": server.service.name}}
    server.client.post("/v1/set_lora", json=SERVED["POST /v1/set_lora"])

    @EXAMPLES
    @given(operation.as_strategy())
    def check(case: Any) -> None:
        nonlocal count
        count += 1
        if count % 2 == 0:
            if operation.label in served and case.media_type == "application/json":
                case.body, case.headers = likely(case.body, served[operation.label], count), {}
            for name in {"job_id", "video_id", "image_id"} & case.path_parameters.keys():
                case.path_parameters[name] = made(server)
            if "id" in case.path_parameters:
                case.path_parameters["id"] = "WanPipeline" if count % 4 else "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
            case.query = case.query if count % 4 else {}
        statuses.add(case.call_and_validate(base_url=server.url, checks=CHECKS).status_code)

    check()
    if "200" in operation.definition.raw["responses"] and operation.label not in SELDOM:
        assert 200 in statuses


def test_every_route_is_described() -> None:
    found = {(method, path) for path, method, _ in openapi.routes_of(app.routers())}
    assert found == openapi.operations().keys()
    body = DESCRIBED["paths"]["/v1/images/edits"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    form, plain = (body[kind]["schema"]["properties"] for kind in ("multipart/form-data", "application/json"))
    assert form["image"] == {"type": "array", "items": {"type": "string", "format": "binary"}}
    assert (plain["n"]["minimum"], plain["n"]["maximum"], plain["n"]["default"]) == (1, 10, 1)
    assert plain["quality"]["enum"][:4] == ["auto", "low", "medium", "high"]
    assert plain["embed_recipe"]["default"] is False
    assert plain["loras"]["items"]["properties"].keys() >= {"name", "path", "scale", "target"}


def test_below_a_prefix(start: Starter) -> None:
    server = start("--root-path", "/pictures")
    assert server.client.get("/pictures/openapi.json").json()["servers"] == [{"url": "/pictures"}]


def test_the_docs_are_served(pictures: Running) -> None:
    assert "/openapi.json" in pictures.client.get("/docs").text
    assert pictures.client.get("/openapi.json").json() == json.loads(json.dumps(DESCRIBED))


WORDS = (
    "prompt", "size", "n", "seed", "loras", "image", "url", "extra_body", "lora_nickname", "strength", "model",
    "priority", "starred", "num_inference_steps", "output_format", "cache_dit_params", "a[b]", "", "\ud800",
)  # fmt: skip
ODD = (
    None,
    True,
    -1,
    0,
    1e308,
    10**40,
    -(2**63),
    "",
    "x" * 5000,
    "\0",
    "\ud800",
    "0x10",
    "nan",
    [],
    {},
    [[[]]],
    "🎨",
    0.5,
)
PATHS = ("/v1/images/generations", "/v1/images/edits", "/v1/videos", "/v1/set_lora", "/v1/merge_lora_weights",
         "/v1/unmerge_lora_weights", "/v1/models/load", "/v1/jobs/img_x", "/v1/videos/video_x/remix",
         "/v1/videos/video_x/cancel", "/v1/jobs/img_x/cancel")  # fmt: skip
EDGE = b'--edge\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'


def value(dice: random.Random, depth: int = 0) -> Any:
    if depth < 4 and dice.random() < 0.3:
        entries = [value(dice, depth + 1) for _ in range(dice.randrange(4))]
        return entries if dice.random() < 0.5 else {dice.choice(WORDS): entry for entry in entries}
    return dice.choice(ODD)


def bad_body(dice: random.Random) -> tuple[bytes, str]:
    """Return a body that is most likely wrong, and what it says that it is."""
    fields = {dice.choice(WORDS): value(dice) for _ in range(dice.randrange(6))}
    text = json.dumps(fields).encode()
    match dice.randrange(9):
        case 0:
            return text, "application/json"
        case 1:
            return json.dumps({"prompt": "p", **fields}).encode(), "application/json"
        case 2:
            return text[: dice.randrange(len(text))], "application/json"
        case 3:
            return dice.randbytes(dice.randrange(200)), "application/json"
        case 4:
            deep = dice.choice((10, 1000, 100_000))
            return b'{"prompt":' + b"[" * deep + b"]" * dice.choice((deep, 0)), "application/json"
        case 5:
            return text, dice.choice(
                ("text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data", "a/b/c")
            )
        case 6:
            return b"prompt=" + dice.randbytes(30), "application/x-www-form-urlencoded"
        case 7:
            return dice.randbytes(300), "multipart/form-data; boundary=edge"
    names = [
        dice.choice((*WORDS, "image[]", "l[][a]", "d[x", "[]", "a" * 300)).encode(errors="replace") for _ in range(4)
    ]
    kinds = (b"", b'; filename="x"', b'; filename="../../x.png"')
    parts = [EDGE % (name, dice.choice(kinds), dice.randbytes(dice.randrange(40))) for name in names]
    return b"".join(parts) + dice.choice((b"--edge--\r\n", b"--edge", b"")), "multipart/form-data; boundary=edge"


@pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")  # of a form that is cut off
def test_bad_bodies(pictures: Running) -> None:
    """A thousand of them: no fault of the server, an envelope for each refusal, and it draws as before."""
    dice, refused = random.Random(7), 0
    for number in range(1000):
        content, kind = bad_body(dice)
        method, path = dice.choice(("POST", "POST", "POST", "PATCH")), dice.choice(PATHS)
        answer = pictures.client.request(method, path, content=content, headers={"content-type": kind})
        assert answer.status_code < 500, (number, method, path, kind, content[:500], answer.text)
        if answer.status_code >= 400:
            refused += 1
            assert answer.json()["error"].keys() == {"message", "type", "param", "code"}, (number, answer.text)
    assert refused > 800
    assert pictures.client.post("/v1/images/generations", json=PICTURE).status_code == 200
