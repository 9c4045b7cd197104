"""Conformance over HTTP: what the process survives. Numbers are those of the contract's cases."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conformance.program import SMALL, Program, model

Start = Callable[..., Program]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {family: model(family, folder) for family in ("flux", "wan")}


@pytest.fixture
def start(models: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    begun: list[Program] = []

    def begin(family: str, *flags: str, **variables: str) -> Program:
        begun.append(Program(tmp_path / "server", models.get(family, family), *flags, **variables))
        return begun[-1]

    yield begin
    for program in begun:
        if program.process.poll() is None:
            program.process.kill()
            program.process.wait()
        program.client.close()
        program.sdk.close()


def clip(program: Program, steps: int = 2, prompt: str = "a boat") -> str:
    body = {"prompt": prompt, "size": "64x64", "num_frames": 5, "num_inference_steps": steps}
    answer = program.post("/v1/videos", body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def running(program: Program, job: str) -> None:
    end = time.monotonic() + 60
    while program.job(job)["status"] != "running" or program.job(job)["progress"]["step"] < 1:
        assert time.monotonic() < end
        time.sleep(0.02)


def workers(program: Program) -> list[psutil.Process]:
    return psutil.Process(program.process.pid).children(recursive=True)


def test_case_33_a_worker_that_dies(start: Start) -> None:
    program = start("flux", SGDIFF_TEST_FAULT="exit@1", SGDIFF_TEST_STEP_DELAY_MS="20")
    program.until_healthy()
    failed = program.post("/v1/images/generations", {"prompt": "FAULT", **SMALL})
    health = program.client.get("/health")
    refused = program.post("/v1/images/generations", {"prompt": "a boat", **SMALL})
    died = time.monotonic()
    assert (failed.status_code, failed.json()["error"]["code"]) == (503, "worker_died")
    assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "worker_died")
    assert refused.headers["retry-after"] == "15"
    assert program.client.get("/v1/models").status_code == 200
    program.until_healthy()
    assert time.monotonic() - died < 60
    program.image()
    assert program.stop() == 0


def test_sigkill_in_mid_step(start: Start) -> None:
    """Running jobs fail, queued ones run, and nothing is left behind at the end."""
    program = start("wan", "--max-running", "1", SGDIFF_TEST_STEP_DELAY_MS="20")
    program.until_healthy()
    first, second = clip(program, 900), clip(program)
    running(program, first)
    (worker,) = workers(program)
    worker.kill()
    assert program.ended(first)["error"]["code"] == "worker_died"
    assert program.ended(second)["status"] == "completed"
    (worker,) = workers(program)
    assert program.stop() == 0
    assert not worker.is_running()


def test_case_34_a_request_waits_for_the_warm_up(start: Start) -> None:
    flags = ("--warmup-mode", "server", "--warmup-steps", "10", "--warmup-resolutions", "64x64")
    program = start("flux", *flags, SGDIFF_TEST_STEP_DELAY_MS="100")
    end = time.monotonic() + 60
    while program.client.get("/health").json()["status"] != "warming":
        assert time.monotonic() < end
        time.sleep(0.02)
    assert program.image()["data"]
    assert program.stop() == 0


def test_case_43_a_restart(start: Start) -> None:
    flags = ("--max-running", "1")
    program = start("wan", *flags, SGDIFF_TEST_STEP_DELAY_MS="20")
    program.until_healthy()
    done = clip(program)
    assert program.ended(done)["status"] == "completed"
    interrupted, queued = clip(program, 900), clip(program)
    running(program, interrupted)
    children = workers(program)
    program.process.kill()
    program.process.wait()
    _, alive = psutil.wait_procs(children, timeout=15)
    assert not alive, "the worker outlives its server"
    again = start("wan", *flags)
    assert again.client.get(f"/v1/videos/{done}/content").content[4:8] == b"ftyp"
    assert again.client.get(f"/v1/videos/{interrupted}").json()["error"]["code"] == "server_restart"
    assert again.ended(queued, 120)["status"] == "completed"
    assert again.stop() == 0


def test_case_53_drain(start: Start) -> None:
    program = start("wan", "--max-running", "1", SGDIFF_TEST_STEP_DELAY_MS="50")
    program.until_healthy()
    first, second = clip(program, 40), clip(program)
    running(program, first)
    program.process.send_signal(signal.SIGTERM)
    end = time.monotonic() + 10
    while program.client.get("/health").json()["status"] != "draining":
        assert time.monotonic() < end
    refused = program.post("/v1/videos", {"prompt": "a boat"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    assert 1 <= int(refused.headers["retry-after"]) <= 120
    assert program.process.wait(60) == 0
    again = start("wan")
    assert again.client.get(f"/v1/videos/{first}").json()["status"] == "completed"
    assert again.ended(second, 120)["status"] == "completed"
    assert again.stop() == 0


def test_case_53_a_waiting_picture_is_told_of_the_drain(start: Start) -> None:
    program = start("flux", "--max-running", "1", SGDIFF_TEST_STEP_DELAY_MS="50")
    program.until_healthy()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(program.post, "/v1/images/generations", {"prompt": "a", **SMALL, "num_inference_steps": 40})
        time.sleep(0.5)
        second = pool.submit(program.post, "/v1/images/generations", {"prompt": "b", **SMALL})
        time.sleep(0.3)
        program.process.send_signal(signal.SIGTERM)
        assert (second.result().status_code, second.result().json()["error"]["code"]) == (503, "draining")
        assert first.result().status_code == 200
    assert program.process.wait(60) == 0


def test_a_connection_that_closes_frees_the_device(start: Start) -> None:
    program = start("flux", "--max-running", "1", SGDIFF_TEST_STEP_DELAY_MS="50")
    program.until_healthy()

    def leave() -> None:
        import httpx

        with pytest.raises(httpx.ReadTimeout):
            program.post("/v1/images/generations", {"prompt": "a", **SMALL, "num_inference_steps": 900}, timeout=1)

    thread = threading.Thread(target=leave)
    thread.start()
    thread.join()
    begun = time.monotonic()
    program.image(num_inference_steps=1)
    assert time.monotonic() - begun < 20
    (job,) = program.client.get("/v1/jobs?status=cancelled").json()["data"]
    assert job["error"]["code"] == "cancelled"
    assert program.stop() == 0


def test_a_short_picture_overtakes_a_long_one(start: Start) -> None:
    program = start("flux", SGDIFF_TEST_STEP_DELAY_MS="50")
    program.until_healthy()
    ends: dict[int, float] = {}

    def draw(steps: int) -> Any:
        answer = program.image(num_inference_steps=steps)
        ends[steps] = time.monotonic()
        return answer

    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(draw, 30)
        time.sleep(0.3)
        pool.submit(draw, 4).result()
        long.result()
    assert ends[4] < ends[30]
    assert program.stop() == 0


def test_case_59_another_model(start: Start, models: dict[str, str]) -> None:
    program = start("flux")
    program.until_healthy()
    answer = program.post("/v1/models/load", {"model": "tiny-scenes"})
    assert answer.status_code == 200, answer.text
    assert program.client.get("/v1/models").json()["data"][0]["id"] == "tiny-scenes"
    program.image()
    assert program.stop() == 0


def test_a_model_that_cannot_be_loaded_ends_the_program(start: Start, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no-such-model"):
        start("no-such-org/no-such-model", "--offline").until_healthy()
