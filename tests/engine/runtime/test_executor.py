"""The executor drives runs in the caller's own thread."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from engine.engine import Engine
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
