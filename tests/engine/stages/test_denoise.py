"""One step: guidance asks the network twice, a mask keeps what is outside of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.engine import Engine

FIELDS: dict[str, Any] = {"prompt": "x", "height": 64, "width": 64, "seed": 4, "num_inference_steps": 3}


@pytest.mark.parametrize(("scale", "forwards"), [(1.0, 3), (2.0, 6)])
def test_guidance_costs_a_second_forward(flux: Engine, scale: float, forwards: int) -> None:
    assert flux.executor is not None
    network = flux.executor.scheduler.pipeline.model.components["transformer"]
    calls: list[None] = []
    hook = network.register_forward_hook(lambda *_: calls.append(None))
    flux.generate(**FIELDS, negative_prompt="y", true_cfg_scale=scale)
    hook.remove()
    assert len(calls) == forwards


def test_outside_the_mask_the_image_stays(flux: Engine, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    Image.new("L", (64, 64), 0).save(tmp_path / "nothing.png")
    image = {"image_path": str(tmp_path / "image.png")}
    kept = flux.generate(**FIELDS, **image, mask_path=str(tmp_path / "nothing.png"), strength=1.0)[0].frames
    untouched = flux.generate(**FIELDS, **image, strength=0.0)[0].frames
    np.testing.assert_array_equal(kept, untouched)
