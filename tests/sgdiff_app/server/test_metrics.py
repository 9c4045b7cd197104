"""/metrics: there when asked for, with numbers that follow what happened, and nothing of anybody in the labels."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.errors import NotAvailable
from engine.jobs import Job
from engine.types import Artifact, LoraRef, Request
from sgdiff_app.server.metrics import Metrics
from tests.sgdiff_app.server.conftest import Starter
from tests.sgdiff_app.server.serving import Running

NAMES = {
    "num_queue_reqs", "num_running_reqs", "requests_total", "request_latency_seconds", "queue_time_seconds",
    "stage_seconds", "generation_batch_size", "peak_memory_bytes", "lora_loaded_adapters", "lora_active_adapters",
    "http_requests_total",
}  # fmt: skip
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    """Every number by name and labels."""
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}


def value(found: Samples, name: str, **labels: str) -> float:
    return found.get((f"sgdiff_{name}", frozenset(labels.items())), 0.0)


def test_without_the_flag_there_is_no_such_route(server: Running) -> None:
    answer = server.client.get("/metrics")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert "--enable-metrics" in answer.json()["error"]["message"]


def test_numbers_follow_what_happens(start: Starter) -> None:
    server = start("--enable-metrics")
    before = samples(server.client.get("/metrics").text)
    assert value(before, "num_running_reqs") == value(before, "num_queue_reqs") == 0
    server.client.get("/v1/models/secret-name")
    server.client.get("/secret-path")
    server.client.request("SECRET", "/v1/models")
    job = Job("img_1", "image", "m", "m", Request(prompt="a secret"), Request(prompt="a secret"), "done",
              created_at=10.0, started_at=11.0, completed_at=14.0)  # fmt: skip
    job.stages, job.peak_memory_mb = {"denoising": 2500.0}, 12.0
    job.artifacts = [Artifact("x.png", "image/png", 64, 64, 1, seed) for seed in (1, 2)]
    failed = Job("img_2", "image", "m", "m", job.request, job.request, "failed", created_at=10.0, completed_at=14.0)
    for ended in (job, failed):
        for observer in server.service.queue.observers:
            observer(ended)
    answer = server.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found = samples(answer.text)
    assert value(found, "requests_total", status="done") == value(found, "requests_total", status="failed") == 1
    assert value(found, "request_latency_seconds_sum") == 4
    assert value(found, "queue_time_seconds_sum") == 1
    assert value(found, "stage_seconds_sum", stage="denoising") == 2.5
    assert value(found, "generation_batch_size_count") == 2
    assert value(found, "peak_memory_bytes") == 12e6
    count = value(found, "http_requests_total", route="/v1/models/{id:path}", method="GET", status="404")
    assert count == 1, answer.text
    assert value(found, "http_requests_total", route="none", method="GET", status="404") == 1
    assert "secret" not in answer.text.lower()
    assert "_created" not in answer.text


def test_adapters_are_counted(start: Starter) -> None:
    server = start("--enable-metrics")
    supervisor = server.service.queue.supervisor
    supervisor.loras, supervisor.adapters = (LoraRef(name="a", path="x"), LoraRef(name="b", path="y")), 3
    found = samples(server.client.get("/metrics").text)
    assert (value(found, "lora_active_adapters"), value(found, "lora_loaded_adapters")) == (2, 3)


@pytest.mark.parametrize(("namespace", "prefix"), [("sgdiff", "sgdiff_"), ("sglang", "sglang:diffusion_")])
def test_names(start: Starter, namespace: str, prefix: str) -> None:
    server = start("--enable-metrics", "--metrics-namespace", namespace)
    lines = server.client.get("/metrics").text.splitlines()
    assert {line.split()[2] for line in lines if line.startswith("# TYPE ")} == {prefix + name for name in NAMES}


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NotAvailable, match=r"pip install 'sgdiff-app\[metrics\]'"):
        Metrics("sgdiff")
