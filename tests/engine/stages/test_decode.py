"""Latents to pixels: cancel between tiles, tiles on demand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.configuration_utils import FrozenDict

from engine.engine import Engine
from engine.errors import Cancelled, GenerationError
from engine.passes.vae import peak_bytes
from engine.runtime.control import Control
from engine.stages.decode import decode, to_frames
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
@pytest.mark.parametrize("before", [True, False])
def test_tiles_when_the_whole_does_not_fit(flux: Engine, room: float, tiled: bool, before: bool) -> None:
    assert flux.executor is not None
    pipeline = flux.executor.scheduler.pipeline
    state = pipeline.begin(flux.resolve(Request(**FIELDS)), Control())
    vae, seen = pipeline.model.components["vae"], []
    vae.use_tiling = before
    hook = vae.decoder.register_forward_pre_hook(lambda *_: seen.append(vae.use_tiling))
    decode(pipeline.model, room)(state)
    hook.remove()
    assert set(seen) == {tiled}
    assert vae.use_tiling is before, "what another run encodes must not depend on this one"
    vae.disable_tiling()


def test_more_frames_take_more_room() -> None:
    decoded: list[bool] = []
    config = FrozenDict({"base_dim": 96})
    vae = SimpleNamespace(config=config, dtype=torch.float32, use_tiling=False)
    model: Any = SimpleNamespace(components={"vae": vae}, decode=lambda _: decoded.append(vae.use_tiling))
    for frames in (None, 9):
        state: Any = SimpleNamespace(grid=(480, 832), request=Request(num_frames=frames))
        decode(model, peak_bytes(vae, (480, 832), 1))(state)
    assert decoded == [False, True]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_not_finite_are_no_black_picture(value: float) -> None:
    pixels = torch.full((1, 4, 4, 3), 0.5)
    state: Any = SimpleNamespace(pixels=pixels, request=Request(height=4, width=4))
    assert (to_frames(state) == 128).all()
    pixels[0, 1, 2, 0] = value
    with pytest.raises(GenerationError) as caught:
        to_frames(state)
    assert caught.value.message == (
        "the model drew pixels that are not finite (NaN): try --dit-precision fp32 or --vae-precision fp32"
    )
