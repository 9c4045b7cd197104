"""Wan through our stages equals diffusers' own pipelines over the same modules, to the last bit."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanImageToVideoPipeline, WanPipeline
from PIL import Image

from engine.catalog import ModelSpec
from engine.engine import Engine
from engine.errors import UsageError
from engine.runtime.control import Control
from engine.types import Progress, Request

Pixels = np.ndarray[Any, Any]
SHARED: dict[str, Any] = {
    "prompt": "a red house", "height": 32, "width": 32, "num_frames": 9, "num_inference_steps": 2,
    "negative_prompt": "snow", "guidance_scale": 4.0,
}  # fmt: skip


def ours(engine: Engine, seed: int, **fields: Any) -> Pixels:
    (output,) = engine.generate(**{**SHARED, **fields}, seed=seed)
    return output.frames


@pytest.fixture
def check(parity: Any) -> Any:
    """Assert that ours and the stock call draw the same, and return it; `shift` and `boundary` are the stock call's."""

    def run(
        engine: Engine, seed: int, shift: float, image: Path | None = None, boundary: float | None = None, **fields: Any
    ) -> Pixels:
        given = {**SHARED, **fields}
        cls = WanImageToVideoPipeline if image else WanPipeline
        sources = {"image_path": str(image)} if image else {}
        frames = ours(engine, seed, **fields, **sources)
        arguments = {name: value for name, value in given.items() if name not in ("flow_shift", "boundary_ratio")}
        if image:
            arguments["image"] = Image.open(image)
        with parity.stock(engine, cls) as pipeline:
            pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, flow_shift=shift)
            if boundary:
                pipeline.register_to_config(boundary_ratio=boundary)
            generator = torch.Generator().manual_seed(seed)
            parity.same(frames, pipeline(**arguments, generator=generator, output_type="np").frames[0])
        return frames

    return run


@pytest.fixture(scope="module")
def wan(tiny_engine: Any) -> Engine:
    engine: Engine = tiny_engine("wan")
    return engine


@pytest.mark.parametrize(("size", "frames"), [((32, 32), 9), ((32, 64), 5), ((48, 32), 1)])
def test_text_to_video(wan: Engine, check: Any, size: tuple[int, int], frames: int) -> None:
    assert check(wan, 7, 3.0, height=size[0], width=size[1], num_frames=frames).shape == (frames, *size, 3)


def test_a14b(tiny_engine: Any, check: Any) -> None:
    check(tiny_engine("wan-a14b"), 7, 12.0, guidance_scale_2=3.0, num_inference_steps=4)


def test_i2v(tiny_engine: Any, check: Any, picture: Any) -> None:
    check(tiny_engine("wan-i2v"), 7, 3.0, image=picture)


def test_i2v_a14b(tiny_engine: Any, check: Any, picture: Any) -> None:
    check(tiny_engine("wan-i2v-a14b"), 7, 5.0, image=picture, num_inference_steps=4, guidance_scale_2=2.0)


def test_ti2v(tiny_engine: Any, check: Any, picture: Any) -> None:
    check(tiny_engine("wan-ti2v"), 7, 5.0, height=64, width=96)
    check(tiny_engine("wan-ti2v"), 7, 5.0, image=picture, height=64, width=96)


def test_fast(tiny_engine: Any) -> None:
    engine = tiny_engine("fastwan")
    engine.generate(prompt="x", height=32, width=32, num_frames=9)
