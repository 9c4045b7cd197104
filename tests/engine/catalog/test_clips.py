"""Folders of the models that draw clips are told apart."""

from __future__ import annotations

from typing import Any

import pytest

from engine.catalog import match

EXPERTS = {"transformer": {"in_channels": 16}, "transformer_2": {"_class_name": "WanTransformer3DModel"}}


@pytest.mark.parametrize(
    ("pipeline", "configs", "name"),
    [
        ("WanPipeline", EXPERTS, "Wan2.2-T2V-A14B-Diffusers"),
        ("WanPipeline", {"transformer": {"num_attention_heads": 40}}, "Wan2.1-T2V-14B-Diffusers"),
        ("WanPipeline", {"model_index": {"expand_timesteps": True}}, "Wan2.2-TI2V-5B-Diffusers"),
        ("WanPipeline", {"transformer": {"num_attention_heads": 12}}, "Wan2.1-T2V-1.3B-Diffusers"),
        ("WanImageToVideoPipeline", EXPERTS, "Wan2.2-I2V-A14B-Diffusers"),
        ("WanImageToVideoPipeline", {"transformer": {"in_channels": 36}}, "Wan2.1-I2V-14B-480P-Diffusers"),
        ("WanDMDPipeline", {"vae": {"is_residual": True}}, "FastWan2.2-TI2V-5B-FullAttn-Diffusers"),
        ("WanDMDPipeline", {"vae": {"is_residual": False}}, "FastWan2.1-T2V-1.3B-Diffusers"),
        ("HunyuanVideoPipeline", {"scheduler": {"shift": 17.0}}, "FastHunyuan-diffusers"),
        ("HunyuanVideoPipeline", {"scheduler": {"shift": 7.0}}, "HunyuanVideo"),
    ],
)
def test_a_folder_tells_the_models_of_one_pipeline_class_apart(pipeline: str, configs: Any, name: str) -> None:
    spec = match("/models/mine", None, pipeline, configs)
    assert spec is not None and spec.id.rsplit("/", 1)[-1] == name
