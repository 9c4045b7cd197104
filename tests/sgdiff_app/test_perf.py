"""The timing file: the contract's keys, and the outputs of a run taken together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine import env
from engine.errors import OutputError
from engine.types import Output, Request, Timings
from sgdiff_app import perf


def output(steps: tuple[float, ...], peak: float) -> Output:
    memory = {
        "denoising": {"allocated_mb": 1.0, "reserved_mb": 1.0, "peak_allocated_mb": peak, "peak_reserved_mb": peak}
    }
    timings = Timings(sum(steps) + 1, (("encoding", 1.0), ("denoising", sum(steps))), steps, memory, peak)
    return Output(np.zeros((1, 8, 8, 3), np.uint8), Request(prompt="a fox", seed=1), {}, timings)


def test_the_times_of_all_outputs_add_up() -> None:
    content = perf.content([output((5.0, 6.0), 3.0), output((7.0,), 2.0)], "id", env.read(), "model", "cpu")
    assert content.keys() == {
        "timestamp", "request_id", "commit_hash", "tag", "total_duration_ms", "steps", "denoise_steps_ms",
        "memory_checkpoints", "meta",
    }  # fmt: skip
    assert (content["request_id"], content["tag"], content["total_duration_ms"]) == ("id", "cli_generate", 20.0)
    assert content["steps"] == [{"name": "encoding", "duration_ms": 2.0}, {"name": "denoising", "duration_ms": 18.0}]
    assert content["denoise_steps_ms"] == [
        {"step": 0, "duration_ms": 5.0}, {"step": 1, "duration_ms": 6.0}, {"step": 2, "duration_ms": 7.0},
    ]  # fmt: skip
    assert content["memory_checkpoints"]["denoising"].keys() == {
        "allocated_mb", "reserved_mb", "peak_allocated_mb", "peak_reserved_mb",
    }  # fmt: skip
    meta = content["meta"]
    assert (meta["prompt"], meta["model"], meta["device"], meta["outputs"]) == ("a fox", "model", "cpu", 2)
    assert meta["request"]["seed"] == 1
    json.dumps(content)


def test_the_bytes_of_an_input_are_left_out() -> None:
    drawn = output((1.0,), 1.0)
    request = drawn.request.replace(image_path=("data:image/png;base64,AAAA", "a.png"), mask_path="DATA:image/gif;x")
    content = perf.content([replace(drawn, request=request)], "id", env.read(), "model", "cpu")
    shown = content["meta"]["request"]
    assert (shown["image_path"], shown["mask_path"]) == (["data:image/png", "a.png"], "DATA:image/gif")


def test_files_appear_whole() -> None:
    perf.write(Path("a/perf.json"), {"x": 0})
    first = Path("a/perf.json").stat().st_ino
    perf.write(Path("a/perf.json"), {"x": 1})
    assert Path("a/perf.json").stat().st_ino != first  # renamed over, not written into
    perf.write(Path("a/frames.npy"), np.arange(3))
    assert json.loads(Path("a/perf.json").read_text()) == {"x": 1}
    assert np.load("a/frames.npy").tolist() == [0, 1, 2]
    assert sorted(path.name for path in Path("a").iterdir()) == ["frames.npy", "perf.json"]


def test_a_failed_write_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OutputError, match=r"^frames.npy: cannot be written: no space left on the disk$"):
        perf.write(Path("frames.npy"), np.arange(3))
    assert list(Path().iterdir()) == []
