"""What the request log tells at each level."""

from __future__ import annotations

from typing import Any

import pytest

from engine.types import LoraRef, Request
from sgdiff_app.server.request_log import describe
from tests.sgdiff_app.server.conftest import Starter

REQUEST = Request(
    prompt="a secret " * 40, negative_prompt="blurry", seed=7, image_path=("x.png", "y.png"), loras=(LoraRef(name="a"),)
)


@pytest.mark.parametrize(
    ("level", "names"),
    [
        (0, set()),
        (1, {"seed", "image_path", "loras"}),
        (2, {"seed", "image_path", "loras", "prompt", "negative_prompt"}),
        (3, {"seed", "image_path", "loras", "prompt", "negative_prompt"}),
    ],
)
def test_levels(level: int, names: set[str]) -> None:
    shown: dict[str, Any] = describe(REQUEST, level)
    assert names <= set(shown)
    assert ("prompt" in shown) == (level >= 2)
    assert "x.png" not in str(shown), "files are counted"
    if level == 2:
        assert shown["prompt"] == REQUEST.prompt[:200] + "…"
    if level == 3:
        assert shown["prompt"] == REQUEST.prompt


def test_jobs_are_told_with_the_request_that_brought_them(start: Starter, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    server = start("--log-requests", "--log-requests-level", "1")
    answer = server.client.post("/v1/images/generations", json={"prompt": "a secret", "size": "64x64", "seed": 7})
    assert answer.status_code == 200
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("request_log")]
    (line,) = lines
    assert line.startswith(
        f"{answer.headers['x-request-id']} asks for image {answer.json()['id']} with tiny-scenes: {{"
    )
    assert '"seed": 7' in line
    assert "a secret" not in line
    assert "a secret" not in caplog.text


def test_jobs_are_told_where_it_is_wanted_alone(start: Starter, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    server = start()
    assert server.client.post("/v1/images/generations", json={"prompt": "a", "size": "64x64"}).status_code == 200
    assert [record for record in caplog.records if record.name.endswith("request_log")] == []
