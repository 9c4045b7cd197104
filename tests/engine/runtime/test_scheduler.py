"""Runs take turns step by step, and what runs beside a run changes nothing in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from engine.engine import Engine
from engine.errors import Cancelled, GenerationError, OutOfMemory
from engine.runtime.control import Control
from engine.runtime.scheduler import Run, StepScheduler
from engine.types import Request


def _request(engine: Engine, **fields: Any) -> Request:
    defaults = {"prompt": "a hill", "height": 64, "width": 64, "seed": 1, "num_inference_steps": 4}
    return engine.resolve(Request(**{**defaults, **fields}))


def _scheduler(engine: Engine, max_running: int = 4) -> StepScheduler:
    assert engine.executor is not None
    return StepScheduler(engine.executor.scheduler.pipeline, max_running)


def _alone(engine: Engine, request: Request) -> np.ndarray[Any, Any]:
    scheduler = _scheduler(engine)
    run = scheduler.submit(request, Control())
    while scheduler.tick():
        pass
    return _frames(run)


def _frames(run: Run) -> np.ndarray[Any, Any]:
    assert run.result is not None, run.error
    frames: np.ndarray[Any, Any] = run.result[0]
    return frames


def test_interleaved_runs_are_byte_equal_to_solo_runs(flux: Engine) -> None:
    requests = [
        _request(flux),
        _request(flux, prompt="a red boat", seed=2, height=48, width=80, num_inference_steps=6),
        _request(flux, prompt="fog", seed=3, negative_prompt="sun", true_cfg_scale=3.0),
    ]
    solo = [_alone(flux, request) for request in requests]
    scheduler = _scheduler(flux)
    order: list[int] = []
    runs = []
    for request in requests:
        seed = request.seed
        assert isinstance(seed, int)
        runs.append(scheduler.submit(request, Control(lambda progress, seed=seed: order.append(seed))))  # type: ignore[misc]
    while scheduler.tick():
        pass
    assert order != sorted(order), "the runs must really have taken turns"
    for run, frames in zip(runs, solo, strict=True):
        np.testing.assert_array_equal(_frames(run), frames)


def test_a_short_run_does_not_wait_for_a_long_one(flux: Engine) -> None:
    scheduler = _scheduler(flux)
    long = scheduler.submit(_request(flux, num_inference_steps=30), Control())
    for _ in range(4):
        scheduler.tick()
    short = scheduler.submit(_request(flux, seed=2), Control())
    while not short.finished:
        scheduler.tick()
    assert not long.finished
    assert long.state is not None
    assert long.state.step < 15


def test_one_at_a_time_when_asked(flux: Engine) -> None:
    scheduler = _scheduler(flux, max_running=1)
    first = scheduler.submit(_request(flux, num_inference_steps=6), Control())
    second = scheduler.submit(_request(flux), Control())
    while not first.finished:
        scheduler.tick()
        assert second.phase == "waiting"


def test_cancel_takes_effect_within_a_step_and_spares_the_others(flux: Engine) -> None:
    scheduler, steps = _scheduler(flux), []
    control = Control(lambda progress: steps.append(progress.step))
    doomed = scheduler.submit(_request(flux, num_inference_steps=30), control)
    other = scheduler.submit(_request(flux), Control())
    while doomed.state is None or doomed.state.step < 3:
        scheduler.tick()
    control.cancel()
    while scheduler.tick():
        pass
    assert isinstance(doomed.error, Cancelled)
    assert max(steps) <= 4
    assert doomed.state is None, "a cancelled run holds no memory"
    assert other.phase == "done"


def test_cancel_while_waiting(flux: Engine) -> None:
    scheduler, control = _scheduler(flux), Control()
    run = scheduler.submit(_request(flux), control)
    control.cancel()
    scheduler.tick()
    assert isinstance(run.error, Cancelled)


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (RuntimeError("kernel broke"), GenerationError, "generation failed: kernel broke"),
        (
            torch.OutOfMemoryError("CUDA out of memory"),
            OutOfMemory,
            (
                "not enough memory on cpu: try a smaller size or fewer frames, --vae-tiling, "
                "--text-encoder-cpu-offload, --dit-cpu-offload, or a lower precision"
            ),
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), OutOfMemory, None),
        (MemoryError(), OutOfMemory, None),
    ],
)
def test_a_failing_run_fails_alone(
    flux: Engine, monkeypatch: pytest.MonkeyPatch, raised: Exception, kind: type[Exception], message: str | None
) -> None:
    scheduler = _scheduler(flux)
    model, failing = scheduler.pipeline.model, _request(flux, prompt="break")
    predict = model.predict

    def broken(state: Any, network: Any, cond: Any) -> Any:
        if state.request.prompt == "break" and state.step == 1:
            raise raised
        return predict(state, network, cond)

    monkeypatch.setattr(model, "predict", broken)
    bad, good = scheduler.submit(failing, Control()), scheduler.submit(_request(flux), Control())
    while scheduler.tick():
        pass
    assert isinstance(bad.error, kind)
    assert message is None or bad.error.message == message
    assert good.phase == "done"
    monkeypatch.undo()
    assert _alone(flux, failing).shape == (1, 64, 64, 3), "the engine stays usable"


def test_an_abandoned_run_is_forgotten(flux: Engine) -> None:
    scheduler = _scheduler(flux)
    run = scheduler.submit(_request(flux), Control())
    scheduler.tick()
    scheduler.abandon(run)
    assert not scheduler.tick()
    assert run.state is None


def test_an_interrupt_while_another_run_is_driven_ends_that_run(flux: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = _scheduler(flux)
    run = scheduler.submit(_request(flux), Control())

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scheduler.pipeline.model, "predict", interrupted)
    scheduler.tick()
    with pytest.raises(KeyboardInterrupt):
        scheduler.tick()
    assert run.finished, "whoever waits for the run must not wait for ever"
    assert isinstance(run.error, Cancelled)


def test_an_exclusive_pipeline_runs_one_at_a_time(flux: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_scheduler(flux).pipeline.model, "exclusive", True)
    assert _scheduler(flux, max_running=4).max_running == 1
