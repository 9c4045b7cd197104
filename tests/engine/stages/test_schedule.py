"""How many steps an input image of some strength takes, on a scheduler of the run's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.engine import Engine
from engine.runtime.control import Control
from engine.types import Request, State


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inputs") / "picture.png"
    Image.new("RGB", (64, 64), (200, 100, 50)).save(path)
    return path


def _begin(engine: Engine, **fields: object) -> State:
    assert engine.executor is not None
    request = engine.resolve(Request(prompt="x", height=64, width=64, seed=0, num_inference_steps=10, **fields))  # type: ignore[arg-type]
    return engine.executor.scheduler.pipeline.begin(request, Control())


@pytest.mark.parametrize(("strength", "steps"), [(1.0, 10), (0.7, 7), (0.25, 3), (0.05, 1), (0.0, 0)])
def test_strength_keeps_the_last_steps(flux: Engine, picture: Path, strength: float, steps: int) -> None:
    whole = _begin(flux)
    cut = _begin(flux, image_path=(str(picture),), strength=strength)
    assert cut.steps == steps
    assert whole.timesteps is not None
    assert cut.timesteps is not None
    np.testing.assert_array_equal(cut.timesteps.numpy(), whole.timesteps.numpy()[10 - steps :])


def test_every_run_has_its_own_scheduler(flux: Engine) -> None:
    first, second = _begin(flux), _begin(flux)
    assert first.scheduler is not second.scheduler
