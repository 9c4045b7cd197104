"""Folders of the models that draw pictures are told apart."""

from __future__ import annotations

from typing import Any

import pytest

from engine.catalog import IMG2IMG, by_name, match
from engine.errors import UsageError
from engine.resolve import resolve
from engine.types import Request


@pytest.mark.parametrize(
    ("pipeline", "configs", "name"),
    [
        ("Flux2KleinPipeline", {"model_index": {"is_distilled": True}}, "FLUX.2-klein-4B"),
        ("Flux2KleinPipeline", {"model_index": {"is_distilled": False}}, "FLUX.2-klein-base-4B"),
        ("Flux2KleinPipeline", {"transformer": {"num_attention_heads": 32}}, "FLUX.2-klein-base-9B"),
        ("ZImagePipeline", {"scheduler": {"shift": 6.0}}, "Z-Image"),
        ("ZImagePipeline", {"scheduler": {"shift": 3.0}}, "Z-Image-Turbo"),
        ("QwenImageEditPlusPipeline", {"transformer": {"zero_cond_t": True}}, "Qwen-Image-Edit-2511"),
        ("QwenImageEditPlusPipeline", {"transformer": {}}, "Qwen-Image-Edit-2509"),
    ],
)
def test_a_folder_tells_the_models_of_one_pipeline_class_apart(pipeline: str, configs: Any, name: str) -> None:
    spec = match("/models/mine", None, pipeline, configs)
    assert spec is not None and spec.id.rsplit("/", 1)[-1] == name


@pytest.mark.parametrize("side", ["height", "width"])
def test_sd3_has_positions_for_3072_pixels_a_side(side: str) -> None:
    spec = by_name("stable-diffusion-3.5-large")
    assert spec is not None and spec.variants == {IMG2IMG: "StableDiffusion3Img2ImgPipeline"}
    other = "width" if side == "height" else "height"
    assert resolve(Request(prompt="x", **{side: 3072, other: 512}), spec)
    with pytest.raises(UsageError) as caught:
        resolve(Request(prompt="x", **{side: 3088, other: 512}), spec)
    assert caught.value.message == f"{side}: must be at most 3072 for {spec.id}, got 3088"
