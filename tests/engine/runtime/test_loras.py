"""Runs with different LoRAs side by side: each is drawn as it would be alone, and changes are not made too often."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.engine import Engine
from engine.errors import OutOfMemory
from engine.lora import layers
from engine.runtime import scheduler as scheduling
from engine.runtime.control import Control
from engine.runtime.scheduler import Run, StepScheduler
from engine.types import LoraRef, Request

Pixels = np.ndarray[Any, Any]
Files = dict[str, str]


@pytest.fixture(scope="module", params=["merge", "dynamic"])
def engine(flux_folder: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    settings: dict[str, Any] = {"dit_precision": "bf16", "vae_precision": "fp32", "lora_merge_mode": request.param}
    with Engine.from_pretrained(str(flux_folder), **settings) as engine:
        yield engine


@pytest.fixture(scope="module")
def files(engine: Engine, lora_file: Callable[..., Path]) -> Files:
    network = engine.loras.networks["transformer"]
    return {name: str(lora_file(network, name, seed)) for seed, name in enumerate(("ink", "neon"))}


def _request(engine: Engine, **fields: Any) -> Request:
    defaults = {"prompt": "a hill", "height": 64, "width": 64, "seed": 1, "num_inference_steps": 3}
    return engine.resolve(Request(**{**defaults, **fields}))


def _submit(engine: Engine, scheduler: StepScheduler, request: Request) -> Run:
    return scheduler.submit(request, Control(), 0, engine.loras.resolve(request.loras))


def _scheduler(engine: Engine) -> StepScheduler:
    assert engine.executor is not None
    return StepScheduler(engine.executor.scheduler.pipeline)


def _together(engine: Engine, requests: list[Request]) -> list[Pixels]:
    scheduler = _scheduler(engine)
    runs = [_submit(engine, scheduler, request) for request in requests]
    while scheduler.tick():
        pass
    frames = [run.result[0] if run.result else None for run in runs]
    assert all(one is not None for one in frames), [run.error for run in runs]
    return frames  # type: ignore[return-value]


def test_interleaved_runs_with_different_loras_are_byte_equal_to_solo_runs(
    engine: Engine, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "KEPT", 0)  # change with every step
    changed: list[Any] = []
    kind = type(engine.loras.layers["transformer"])
    apply = kind.apply
    monkeypatch.setattr(kind, "apply", lambda self, changes: (changed.append(changes), apply(self, changes)))
    sets = [
        (LoraRef(path=files["ink"]),),
        (LoraRef(path=files["neon"], scale=0.5),),
        (LoraRef(path=files["ink"]), LoraRef(path=files["neon"])),
        (),
    ]
    requests = [_request(engine, loras=loras) for loras in sets]
    solo = [_together(engine, [request])[0] for request in requests]
    alone = len(changed)
    assert all((one != other).any() for i, one in enumerate(solo) for other in solo[:i]), "each set shows"
    for together, one in zip(_together(engine, requests), solo, strict=True):
        np.testing.assert_array_equal(together, one)
    assert len(changed) - alone >= 3 * len(sets), "they must really have taken turns"


def test_the_set_in_the_weights_stays_for_ten_times_as_long_as_the_change_took(
    engine: Engine, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler, time = _scheduler(engine), [1000.0]
    monkeypatch.setattr(scheduling, "now", lambda _: time[0])
    ink, neon = (_request(engine, loras=(LoraRef(path=files[name]),), num_inference_steps=9) for name in files)
    first, second = _submit(engine, scheduler, ink), _submit(engine, scheduler, neon)
    for _ in range(3):  # both are prepared, and the first takes a step
        scheduler.tick()
    engine.loras.swapped_at, engine.loras.swap_s = time[0], 2.0
    order = [(first, 19.9, 4), (second, 20.1, 1)]
    for run, elapsed, steps in order:
        time[0] = 1000.0 + elapsed
        before = [run.state.step for run in (first, second) if run.state]
        for _ in range(steps):
            scheduler.tick()
        after = [run.state.step for run in (first, second) if run.state]
        wanted = [steps if one is run else 0 for one in (first, second)]
        assert [b - a for a, b in zip(before, after, strict=True)] == wanted
    monkeypatch.undo()
    while scheduler.tick():
        pass
    assert (first.phase, second.phase) == ("done", "done")


def test_requests_without_a_set_take_the_one_of_their_acceptance(engine: Engine, files: Files) -> None:
    plain = _request(engine)
    base = _together(engine, [plain])[0]
    engine.set_lora("ink", files["ink"])
    inked = _together(engine, [plain])[0]
    assert (inked != base).any()
    scheduler = _scheduler(engine)
    early = _submit(engine, scheduler, plain)
    engine.unmerge_lora()
    late, none = (_submit(engine, scheduler, request) for request in (plain, _request(engine, loras=())))
    while scheduler.tick():
        pass
    for run, expected in ((early, inked), (late, base), (none, base)):
        assert run.result is not None
        np.testing.assert_array_equal(run.result[0], expected)


def test_a_change_that_fails_fails_its_run_alone(engine: Engine, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [_request(engine, loras=(LoraRef(path=files["ink"]),)), _request(engine, loras=())]
    solo = [_together(engine, [request])[0] for request in requests]

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(layers.Packed, "on", full)
    scheduler = _scheduler(engine)
    runs = [_submit(engine, scheduler, request) for request in requests]
    while scheduler.tick():
        pass
    assert isinstance(runs[0].error, OutOfMemory)
    assert runs[1].result is not None
    np.testing.assert_array_equal(runs[1].result[0], solo[1])
    monkeypatch.undo()
    np.testing.assert_array_equal(_together(engine, requests)[0], solo[0])
