"""HunyuanVideo through our stages equals diffusers' own pipeline over the same modules, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from diffusers import HunyuanVideoPipeline

from engine.engine import Engine

SHARED: dict[str, Any] = {
    "prompt": "a red house", "height": 32, "width": 32, "num_frames": 9, "num_inference_steps": 3,
    "max_sequence_length": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def hunyuan(tiny_engine: Any) -> Engine:
    engine: Engine = tiny_engine("hunyuan-video")
    return engine


def _ours(engine: Engine, seed: int, **fields: Any) -> np.ndarray[Any, Any]:
    (output,) = engine.generate(**{**SHARED, **fields}, seed=seed)
    return output.frames


@pytest.fixture
def check(hunyuan: Engine, parity: Any) -> Any:
    """Assert that ours and the stock call draw the same, and return it."""

    def run(seed: int, engine: Engine = hunyuan, embedded: float = 6.0, **fields: Any) -> np.ndarray[Any, Any]:
        ours = _ours(engine, seed, embedded_cfg_scale=embedded, **fields)
        arguments = {**SHARED, **fields, "guidance_scale": embedded}
        if "guidance_scale" in fields:
            arguments["true_cfg_scale"] = fields["guidance_scale"]
        parity.same(ours, parity.stock_frames(engine, HunyuanVideoPipeline, seed, **arguments))
        return ours

    return run


@pytest.mark.parametrize(("size", "frames"), [((32, 32), 9), ((32, 64), 5), ((48, 32), 1)])
def test_text_to_video(check: Any, size: tuple[int, int], frames: int) -> None:
    ours = check(7, height=size[0], width=size[1], num_frames=frames)
    assert ours.shape == (frames, *size, 3)
