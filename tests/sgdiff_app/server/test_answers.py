"""What is said of answers: it refuses what they are not, and holds for jobs in states that come and go."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from sgdiff_app.server import app, openapi
from sgdiff_app.server.answers import ANSWERS, INTEGER, TEXT, named, nullable, whole
from tests.sgdiff_app.server.conftest import Starter
from tests.sgdiff_app.server.folders import video_model

COMPONENTS = {"components": {"schemas": dict(ANSWERS)}}


def hold(name: str, answer: Any) -> None:
    """Raise ValidationError unless an answer is as it is described."""
    jsonschema_rs.validate({**named(name), **COMPONENTS}, answer)


def test_a_whole_object_has_all_its_keys_and_no_others() -> None:
    schema = whole(id=TEXT, size=nullable(INTEGER))
    jsonschema_rs.validate(schema, {"id": "a", "size": None})
    for wrong in ({"id": "a"}, {"id": "a", "size": "1"}, {"id": "a", "size": 1, "path": "/"}):
        with pytest.raises(jsonschema_rs.ValidationError):
            jsonschema_rs.validate(schema, wrong)


def test_what_is_referred_to_is_there() -> None:
    referred = set(re.findall(r"'#/components/schemas/(\w+)'", str(openapi.document(app.routers()))))
    assert referred == ANSWERS.keys()


def test_jobs_in_every_state(start: Starter, tmp_path: Path) -> None:
    server = start("--model-path", video_model(tmp_path, "T2V"), "--max-running", "1", "--output-ttl", "1h")
    body: dict[str, Any] = {"size": "64x48", "num_frames": 5, "num_inference_steps": 20}
    prompts = ("very slow", "FAULT", "a")  # the first holds the others up until it is cancelled
    ids = [server.client.post("/v1/videos", json={"prompt": p, **body}).json()["id"] for p in prompts]
    server.client.post(f"/v1/videos/{ids[1]}/cancel")
    seen, end = set[str](), time.monotonic() + 10
    while "done" not in seen:
        assert time.monotonic() < end
        for job_id in ids:
            job = server.client.get(f"/v1/jobs/{job_id}").json()
            hold("Job", job)
            hold("Video", server.client.get(f"/v1/videos/{job_id}").json())
            seen.add(job["status"])
            if job_id == ids[0] and job["status"] == "running" and job["progress"]["step"] > 2:
                server.client.post(f"/v1/jobs/{job_id}/cancel")
        time.sleep(0.02)
    assert seen == {"queued", "running", "done", "cancelled"}
    for name, path in (("Jobs", "/v1/jobs"), ("Videos", "/v1/videos")):
        hold(name, server.client.get(path).json())
