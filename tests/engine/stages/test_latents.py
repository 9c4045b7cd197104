"""The starting point of a run: noise by seed alone, or an image under noise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from engine.engine import Engine
from engine.runtime.control import Control
from engine.types import Request, State


def _begin(engine: Engine, **fields: object) -> State:
    assert engine.executor is not None
    defaults = {"prompt": "x", "height": 64, "width": 64, "num_inference_steps": 4}
    request = engine.resolve(Request(**{**defaults, **fields}))  # type: ignore[arg-type]
    return engine.executor.scheduler.pipeline.begin(request, Control())


def test_noise_depends_on_the_seed_alone(flux: Engine) -> None:
    first, again, other = (
        _begin(flux, seed=seed, prompt=text).latents for seed, text in ((1, "a"), (1, "b"), (2, "a"))
    )
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("strength", [0.2, 0.9])
def test_the_image_shines_through_the_noise_by_strength(flux: Engine, tmp_path: Path, strength: float) -> None:
    Image.new("RGB", (64, 64), (255, 40, 40)).save(tmp_path / "red.png")
    state = _begin(flux, seed=3, num_inference_steps=10, image_path=(str(tmp_path / "red.png"),), strength=strength)
    assert state.latents is not None
    assert state.timesteps is not None
    assert state.image_latents is not None
    assert state.noise is not None
    sigma = state.timesteps[0] / 1000
    torch.testing.assert_close(state.latents, sigma * state.noise + (1 - sigma) * state.image_latents)
