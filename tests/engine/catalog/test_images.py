"""Folders of the models that draw pictures are told apart."""

from __future__ import annotations

from typing import Any

import pytest

from engine.catalog import match


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
