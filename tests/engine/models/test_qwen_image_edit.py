"""Qwen-Image-Edit through our stages equals diffusers' own pipelines, once these see where patches lie."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import QwenImageEditPipeline, QwenImageEditPlusPipeline
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from PIL import Image

from engine.engine import Engine
from engine.models.tiny.qwen_image import processor

SHARED = {"prompt": "make it blue", "num_inference_steps": 2, "height": 64, "width": 64}
GUIDED = {"negative_prompt": "snow and fog", "true_cfg_scale": 4.0}
PLAIN = {"true_cfg_scale": 1.0}
ONE, PLUS = QwenImageEditPipeline, QwenImageEditPlusPipeline
FAMILIES = {"qwen-image-edit": ONE, "qwen-image-edit-2509": PLUS, "qwen-image-edit-2511": PLUS}


@pytest.fixture(autouse=True)
def small_areas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let input pictures be looked at in 64 x 64 pixels' area, 48 x 48 by the text encoder, where two areas are used."""
    plus: Any = pipeline_qwenimage_edit_plus
    monkeypatch.setattr(plus, "VAE_IMAGE_SIZE", 96 * 96)
    monkeypatch.setattr(plus, "CONDITION_IMAGE_SIZE", 64 * 64)
    monkeypatch.setattr(
        pipeline_qwenimage_edit,
        "calculate_dimensions",
        lambda _, ratio: (*plus.calculate_dimensions(96 * 96, ratio), None),
    )


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures of three shapes: wide, high, square."""
    rng = np.random.default_rng(5)
    place = tmp_path_factory.mktemp("pictures")
    sizes = ((48, 80), (90, 40), (64, 64))
    paths = [place / f"{height}x{width}.png" for height, width in sizes]
    for path, size in zip(paths, sizes, strict=True):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return paths


@contextmanager
def corrected(encoder: Any) -> Any:
    """Give the text encoder the token types that the stock pipelines do not."""
    forward = encoder.forward

    def with_types(input_ids: torch.Tensor, **given: Any) -> Any:
        types = torch.zeros_like(input_ids)
        types[input_ids == encoder.config.image_token_id] = 1
        return forward(input_ids=input_ids, mm_token_type_ids=types, **given)

    encoder.forward = with_types
    try:
        yield
    finally:
        del encoder.forward


def stock_frames(engine: Engine, parity: Any, seed: int, images: list[Path], **fields: Any) -> np.ndarray[Any, Any]:
    """What the corrected stock call draws."""
    cls: Any = PLUS if engine.spec.max_images > 1 else ONE
    opened: Any = [Image.open(path) for path in images]
    with parity.stock(engine, cls) as pipeline, corrected(pipeline.text_encoder):
        pipeline.processor = processor(pipeline.tokenizer)
        arguments = {**SHARED, **fields, "image": opened if cls is PLUS else opened[0]}
        generator = torch.Generator().manual_seed(seed)
        frames: np.ndarray[Any, Any] = pipeline(**arguments, generator=generator, output_type="np")[0]
    return frames


def ours(engine: Engine, seed: int, images: list[Path], **fields: Any) -> np.ndarray[Any, Any]:
    (output,) = engine.generate(**{**SHARED, **fields}, image_path=[str(path) for path in images], seed=seed)
    return output.frames


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cfg", [PLAIN, GUIDED, {"negative_prompt": " "}], ids=["plain", "guided", "space"])
def test_one_picture(tiny_engine: Any, parity: Any, pictures: list[Path], family: str, cfg: dict[str, Any]) -> None:
    engine = tiny_engine(family)
    parity.same(ours(engine, 3, pictures[:1], **cfg), stock_frames(engine, parity, 3, pictures[:1], **cfg))
