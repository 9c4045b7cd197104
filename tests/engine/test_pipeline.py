"""A run begins, advances step by step and finishes; devices are picked with a clear word."""

from __future__ import annotations

import pytest
import torch

from engine.engine import Engine
from engine.errors import UsageError
from engine.pipeline import pick_device
from engine.runtime.control import Control
from engine.types import Progress, Request


def test_begin_advance_finish(flux: Engine) -> None:
    assert flux.executor is not None
    pipeline, heard = flux.executor.scheduler.pipeline, list[Progress]()
    request = flux.resolve(Request(prompt="x", height=64, width=48, seed=1, num_inference_steps=3))
    state = pipeline.begin(request, Control(heard.append), index=5)
    assert (state.step, state.steps) == (0, 3)
    advanced = []
    while pipeline.advance(state):
        advanced.append(state.step)
    assert advanced == [1, 2]
    assert state.step == 3
    assert not pipeline.advance(state), "advancing a finished run does nothing"
    frames, timings = pipeline.finish(state)
    assert frames.shape == (1, 64, 48, 3)
    names = [name for name, _ in timings.stages]
    wanted = ["text_encoding", "image_encoding", "timestep_preparation", "latent_preparation", "denoising", "decoding"]
    assert names == wanted
    assert len(timings.denoise_steps) == 3
    assert timings.total_ms == pytest.approx(sum(duration for _, duration in timings.stages))
    assert timings.peak_memory_mb > 1
    assert {progress.index for progress in heard} == {5}
    assert [progress.stage for progress in heard if progress.stage in wanted] == [
        *wanted[:4],
        *["denoising"] * 3,
        "decoding",
    ]


def test_auto_picks_what_is_there() -> None:
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu").type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="the message is that of a machine without CUDA")
def test_a_missing_device_is_named() -> None:
    with pytest.raises(UsageError) as error:
        pick_device("cuda")
    assert error.value.message == "device: cuda is not available here; available: cpu"
