"""Spans and steps of a run on the CPU, and the perf file made from them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import torch

from engine import profiler
from engine.profiler import Profile, perf_dump
from engine.types import Timings

MEMORY = {"allocated_mb", "reserved_mb", "peak_allocated_mb", "peak_reserved_mb"}


class Clock:
    """A clock that a test moves; reading it takes no time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(profiler, "time", clock)
    return clock


@pytest.fixture
def profile(clock: Clock) -> Profile:
    return Profile(torch.device("cpu"))


def run(profile: Profile, clock: Clock) -> Timings:
    with profile.span("encode"):
        clock.now += 0.5
    for duration in (0.25, 0.125):
        clock.now += 7  # another run's step
        with profile.step():
            clock.now += duration
    profile.close_steps()
    with profile.span("decode"):
        clock.now += 1
    return profile.timings()


def test_a_run_counts_its_own_time_only(profile: Profile, clock: Clock) -> None:
    timings = run(profile, clock)
    assert timings.stages == (("encode", 500.0), ("denoising", 375.0), ("decode", 1000.0))
    assert timings.denoise_steps == (250.0, 125.0)
    assert timings.total_ms == 1875.0
    assert profile.elapsed_s() == 15.875


def test_memory_is_taken_after_every_span(profile: Profile, clock: Clock) -> None:
    timings = run(profile, clock)
    assert set(timings.memory) == {"encode", "denoising", "decode"}
    for entry in timings.memory.values():
        assert set(entry) == MEMORY
        assert 0 < entry["allocated_mb"] <= entry["peak_allocated_mb"] < 1e6
    assert timings.peak_memory_mb == max(entry["peak_allocated_mb"] for entry in timings.memory.values())


def test_the_memory_of_a_device_and_the_share_of_this_process() -> None:
    told = profiler.device_memory(torch.device("cpu"))
    assert told.keys() == {"device", "name", "total_mb", "free_mb", *MEMORY}
    assert (told["device"], told["name"]) == ("cpu", "cpu")
    assert 0 < told["allocated_mb"] < told["total_mb"] and 0 < told["free_mb"] < told["total_mb"]


def test_the_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 8 * 10**9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Big GPU")
    monkeypatch.setattr(profiler, "used_memory", lambda device: {"allocated_mb": 5.0})
    told = profiler.device_memory(torch.device("cuda", 1))
    assert (told["device"], told["name"], told["allocated_mb"]) == ("cuda:1", "Big GPU", 5.0)
    assert (told["free_mb"] * 8, told["free_mb"] > 900) == (told["total_mb"], True)


def test_an_empty_run_has_no_peak(profile: Profile) -> None:
    assert profile.timings() == Timings(0, (), (), {}, 0.0)


def test_a_failed_span_is_not_recorded(profile: Profile) -> None:
    with pytest.raises(ValueError, match="broken"), profile.span("encode"):
        raise ValueError("broken")
    assert profile.timings().stages == ()


def test_two_runs_do_not_mix(clock: Clock) -> None:
    first, second = Profile(torch.device("cpu")), Profile(torch.device("cpu"))
    for profile, duration in ((first, 1.0), (second, 2.0), (first, 1.0)):
        with profile.step():
            clock.now += duration
    assert (first.steps_ms(), second.steps_ms()) == ([1000.0, 1000.0], [2000.0])


def test_perf_dump_has_the_keys_of_the_contract(profile: Profile, clock: Clock) -> None:
    meta: dict[str, Any] = {"prompt": "x", "model": "tiny-scenes"}
    dump = perf_dump(run(profile, clock), request_id="abc", commit=None, tag="cli_generate", meta=meta)
    dump = json.loads(json.dumps(dump))
    taken = datetime.fromisoformat(dump.pop("timestamp"))
    assert taken.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - taken) < timedelta(minutes=1)
    memory = dump.pop("memory_checkpoints")
    assert {name: set(entry) for name, entry in memory.items()} == {
        "encode": MEMORY,
        "denoising": MEMORY,
        "decode": MEMORY,
    }
    assert dump == {
        "request_id": "abc",
        "commit_hash": None,
        "tag": "cli_generate",
        "total_duration_ms": 1875.0,
        "steps": [
            {"name": "encode", "duration_ms": 500.0},
            {"name": "denoising", "duration_ms": 375.0},
            {"name": "decode", "duration_ms": 1000.0},
        ],
        "denoise_steps_ms": [{"step": 0, "duration_ms": 250.0}, {"step": 1, "duration_ms": 125.0}],
        "meta": meta,
    }


def test_the_clock_only_goes_on() -> None:
    times = [profiler.now(torch.device("cpu")) for _ in range(3)]
    assert times == sorted(times)
