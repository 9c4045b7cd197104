"""Latents to pixels: cancel between tiles, tiles on demand."""

from __future__ import annotations

from typing import Any

import pytest

from engine.engine import Engine
from engine.errors import Cancelled
from engine.runtime.control import Control
from engine.stages.decode import decode
from engine.types import Progress, Request

FIELDS: dict[str, Any] = {"prompt": "x", "height": 128, "width": 128, "seed": 4, "num_inference_steps": 1}


@pytest.fixture
def tiled(flux: Engine) -> Any:
    assert flux.executor is not None
    pipeline = flux.executor.scheduler.pipeline
    vae, pipeline.auto_tiling = pipeline.model.components["vae"], False
    vae.enable_tiling()
    yield vae
    vae.disable_tiling()
    pipeline.auto_tiling = True


def test_cancel_takes_effect_between_two_tiles(flux: Engine, tiled: Any) -> None:
    control = Control()
    tiles: list[None] = []

    def count(*_: Any) -> None:
        tiles.append(None)
        if len(tiles) == 2:
            control.cancel()

    hook = tiled.decoder.register_forward_hook(count)
    with pytest.raises(Cancelled):
        list(flux.run(Request(**FIELDS), control))
    assert len(tiles) == 2
    tiles.clear()
    list(flux.run(Request(**FIELDS)))
    hook.remove()
    assert len(tiles) > 4, "there were tiles left to spare"


def test_decoding_is_announced(flux: Engine) -> None:
    stages: list[str] = []

    def report(progress: Progress) -> None:
        stages.append(progress.stage)

    list(flux.run(Request(**FIELDS), Control(report)))
    assert stages[-1] == "decoding"


@pytest.mark.parametrize(("room", "tiled"), [(10.0, True), (1e12, False)])
def test_tiles_when_the_whole_does_not_fit(flux: Engine, room: float, tiled: bool) -> None:
    assert flux.executor is not None
    pipeline = flux.executor.scheduler.pipeline
    state = pipeline.begin(flux.resolve(Request(**FIELDS)), Control())
    decode(pipeline.model, room)(state)
    assert pipeline.model.components["vae"].use_tiling is tiled
    pipeline.model.components["vae"].disable_tiling()
