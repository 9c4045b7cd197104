"""The executor drives runs in the caller's own thread."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.engine import Engine
from engine.errors import UsageError
from engine.types import Output, Progress

FIELDS: dict[str, Any] = {"prompt": "a hill", "height": 64, "width": 64, "num_inference_steps": 3}


def test_leaving_the_stream_frees_the_run(flux: Engine) -> None:
    assert flux.executor is not None
    stream = flux.stream(**FIELDS, seed=1)
    assert isinstance(next(stream), Progress)
    stream.close()  # type: ignore[attr-defined]
    scheduler = flux.executor.scheduler
    assert not scheduler.active
    assert not scheduler.waiting


def test_two_threads_share_one_engine(flux: Engine) -> None:
    wanted = {seed: flux.generate(**FIELDS, seed=seed)[0].frames for seed in (1, 2)}
    drawn: dict[int, Output] = {}

    def draw(seed: int) -> None:
        (drawn[seed],) = flux.generate(**FIELDS, seed=seed)

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, frames in wanted.items():
        np.testing.assert_array_equal(drawn[seed].frames, frames)


def test_a_stream_hears_every_step_whoever_drives_it(flux: Engine) -> None:
    stream = flux.stream(**{**FIELDS, "num_inference_steps": 12}, seed=1)
    steps = [next(stream)]
    flux.generate(**FIELDS, seed=2)  # drives the stream's run too, in between
    steps += list(stream)
    heard = [event.step for event in steps if isinstance(event, Progress) and event.stage == "denoising"]
    assert heard == list(range(1, 13))


def test_a_listener_cannot_draw(flux: Engine) -> None:
    errors: list[str] = []

    def draw(progress: Progress) -> None:
        with pytest.raises(UsageError) as error:
            flux.generate(**FIELDS, seed=2)
        errors.append(error.value.message)

    assert flux.generate(**FIELDS, seed=1, on_progress=draw)
    assert set(errors) == {"an engine can neither draw nor change LoRAs from inside its own progress callback"}


def test_closing_between_two_outputs(flux_folder: Path) -> None:
    engine = Engine.from_pretrained(str(flux_folder))
    stream = engine.stream(**FIELDS, seed=1, n=2)
    while not isinstance(next(stream), Output):
        pass
    engine.close()
    with pytest.raises(UsageError, match=r"^the engine is closed$"):
        list(stream)
