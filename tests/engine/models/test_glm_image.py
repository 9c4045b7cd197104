"""GLM-Image through our stages equals diffusers' own pipeline over the same modules, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import GlmImagePipeline
from diffusers.pipelines.glm_image import pipeline_glm_image
from PIL import Image
from transformers import GlmImageProcessor

from engine.engine import Engine
from engine.errors import Cancelled, InputError
from engine.runtime.control import Control
from engine.types import Request

SHARED = {"prompt": 'a sign that says "hello"', "num_inference_steps": 3, "max_sequence_length": 64}
SIZE = {"height": 64, "width": 96}


@pytest.fixture
def engine(tiny_engine: Callable[..., Engine]) -> Engine:
    return tiny_engine("glm-image")


@pytest.fixture
def short_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the prior's preview, which it draws before a picture, have 4 tokens in place of 256."""
    monkeypatch.setattr(
        GlmImageProcessor, "_get_target_shape", lambda self, height, width: (height // 32, width // 32, 2, 2)
    )


def _ours(engine: Engine, seed: int, **fields: Any) -> np.ndarray[Any, Any]:
    (output,) = engine.generate(**{**SHARED, **SIZE, **fields}, seed=seed)
    return output.frames


def _stock(engine: Engine, parity: Any, seed: int, **fields: Any) -> np.ndarray[Any, Any]:
    arguments = {**SHARED, **SIZE, **fields}
    frames: np.ndarray[Any, Any] = parity.stock_frames(engine, GlmImagePipeline, seed, **arguments)
    return frames


@pytest.mark.parametrize("prompt", ["a cat", 'a sign that says "hello"'])
def test_text_to_image(engine: Engine, parity: Any, prompt: str) -> None:
    parity.same(_ours(engine, 7, prompt=prompt), _stock(engine, parity, 7, prompt=prompt))
