"""Conformance over HTTP: what the process survives. Numbers are those of the contract's cases."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.conformance.program import SMALL, Program, model, png

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


def cost(worker: psutil.Process) -> float:
    """Return the seconds of computing that a worker has used."""
    spent = worker.cpu_times()
    return spent.user + spent.system


# A program takes some ten seconds of computing to start, so one lives through several cases, a function each.


def test_cases_33_34_and_59_a_program_of_pictures(start: Start) -> None:
    flags = ("--warmup-mode", "server", "--warmup-steps", "30", "--warmup-resolutions", "64x64")
    program = start("flux", *flags, SGDIFF_TEST_FAULT="exit@1", SGDIFF_TEST_STEP_DELAY_MS="50")
    case_34_a_request_waits_for_the_warm_up(program)
    a_short_picture_overtakes_a_long_one(program)
    case_33_a_worker_that_dies(program)
    case_59_another_model(program)
    assert program.stop() == 0


def case_34_a_request_waits_for_the_warm_up(program: Program) -> None:
    end = time.monotonic() + 120
    while program.client.get("/health").json()["status"] != "warming":
        assert time.monotonic() < end
        time.sleep(0.02)
    assert program.image()["data"]


def a_short_picture_overtakes_a_long_one(program: Program) -> None:
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


def case_33_a_worker_that_dies(program: Program) -> None:
    failed = program.post("/v1/images/generations", {"prompt": "FAULT", **SMALL})
    health = program.client.get("/health")
    refused = program.post("/v1/images/generations", {"prompt": "a boat", **SMALL})
    assert (failed.status_code, failed.json()["error"]["code"]) == (503, "worker_died")
    assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "worker_died")
    assert refused.headers["retry-after"] == "15"
    assert program.client.get("/v1/models").status_code == 200
    program.until_healthy()
    program.image()


def case_59_another_model(program: Program) -> None:
    answer = program.post("/v1/models/load", {"model": "tiny-motion"}, timeout=240)
    assert answer.status_code == 200, answer.text
    assert program.client.get("/v1/models").json()["data"][0]["id"] == "tiny-motion"
    assert program.ended(clip(program))["status"] == "completed"


def test_cases_23_43_and_53_a_program_of_clips_that_starts_again(start: Start) -> None:
    flags = ("--max-running", "1")
    program = start("wan", *flags, SGDIFF_TEST_STEP_DELAY_MS="20")
    program.until_healthy()
    case_23_a_picture_for_a_model_that_takes_none(program)
    done, gone = sigkill_in_mid_step(program)
    interrupted, queued = killed_in_mid_step(program)
    again = start("wan", *flags, SGDIFF_TEST_STEP_DELAY_MS="20")
    case_43_a_restart(again, done, interrupted, queued)
    assert not gone.is_running()
    first, second = case_53_drain(again)
    last = start("wan")
    assert last.client.get(f"/v1/videos/{first}").json()["status"] == "completed"
    assert last.ended(second, 120)["status"] == "completed"
    (worker,) = workers(last)
    assert last.stop() == 0
    assert not worker.is_running()


def case_23_a_picture_for_a_model_that_takes_none(program: Program) -> None:
    answer = program.client.post("/v1/videos", data={"prompt": "a boat"}, files={"input_reference": png()})
    assert answer.status_code == 400
    assert "input_reference is not supported" in answer.json()["error"]["message"]


def sigkill_in_mid_step(program: Program) -> tuple[str, psutil.Process]:
    """Kill the worker: running jobs fail, queued ones run. Return one that ran, and the next worker."""
    first, second = clip(program, 900), clip(program)
    running(program, first)
    (worker,) = workers(program)
    spent = cost(worker)
    worker.kill()
    assert program.ended(first)["error"]["code"] == "worker_died"
    assert program.ended(second, 120)["status"] == "completed"
    (another,) = workers(program)
    assert cost(another) < 2 * spent, "a worker that comes back costs what the first did"
    return second, another


def killed_in_mid_step(program: Program) -> tuple[str, str]:
    """Kill the program; return what it drew and what it had not begun."""
    interrupted, queued = clip(program, 900), clip(program)
    running(program, interrupted)
    children = workers(program)
    program.process.kill()
    program.process.wait()
    _, alive = psutil.wait_procs(children, timeout=15)
    assert not alive, "the worker outlives its server"
    return interrupted, queued


def case_43_a_restart(again: Program, done: str, interrupted: str, queued: str) -> None:
    assert again.client.get(f"/v1/videos/{done}/content").content[4:8] == b"ftyp"
    assert again.client.get(f"/v1/videos/{interrupted}").json()["error"]["code"] == "server_restart"
    assert again.ended(queued, 120)["status"] == "completed"


def case_53_drain(program: Program) -> tuple[str, str]:
    """Stop the program; return what it finished before it ended and what it kept for the next."""
    first, second = clip(program, 90), clip(program)
    running(program, first)
    program.process.send_signal(signal.SIGTERM)
    end = time.monotonic() + 10
    while program.client.get("/health").json()["status"] != "draining":
        assert time.monotonic() < end
    refused = program.post("/v1/videos", {"prompt": "a boat"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    assert 1 <= int(refused.headers["retry-after"]) <= 120
    assert program.process.wait(60) == 0
    return first, second


def test_case_53_a_program_that_runs_one_picture_at_a_time(start: Start) -> None:
    program = start("flux", "--max-running", "1", SGDIFF_TEST_STEP_DELAY_MS="50")
    program.until_healthy()
    a_connection_that_closes_frees_the_device(program)
    case_53_a_waiting_picture_is_told_of_the_drain(program)


def a_connection_that_closes_frees_the_device(program: Program) -> None:
    with pytest.raises(httpx.ReadTimeout):
        program.post("/v1/images/generations", {"prompt": "a", **SMALL, "num_inference_steps": 900}, timeout=1)
    begun = time.monotonic()
    program.image(num_inference_steps=1)
    assert time.monotonic() - begun < 20
    (job,) = program.client.get("/v1/jobs?status=cancelled").json()["data"]
    assert job["error"]["code"] == "cancelled"


def case_53_a_waiting_picture_is_told_of_the_drain(program: Program) -> None:
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(program.post, "/v1/images/generations", {"prompt": "a", **SMALL, "num_inference_steps": 40})
        time.sleep(0.5)
        second = pool.submit(program.post, "/v1/images/generations", {"prompt": "b", **SMALL})
        time.sleep(0.3)
        program.process.send_signal(signal.SIGTERM)
        assert (second.result().status_code, second.result().json()["error"]["code"]) == (503, "draining")
        assert first.result().status_code == 200
    assert program.process.wait(60) == 0


def test_a_model_that_cannot_be_loaded_ends_the_program(start: Start) -> None:
    with pytest.raises(AssertionError, match="no-such-model"):
        start("no-such-org/no-such-model", "--offline").until_healthy()
