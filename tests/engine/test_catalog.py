"""The catalog: which entry a model is, and that its entries are consistent."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

from engine import schema
from engine.catalog import MODELS, ModelSpec, by_name, match
from engine.errors import UsageError
from engine.types import Request

TINY, DEV, SCHNELL = MODELS[:3]
BARE = ModelSpec(id="bare", family="x", pipeline="X", tasks=("T2I",))
COMPONENTS = {"transformer": {"guidance_embeds": True, "num_layers": 1}, "vae": {}}


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("tiny-scenes", TINY),
        ("black-forest-labs/FLUX.1-dev", DEV),
        ("Black-Forest-Labs/flux.1-DEV", DEV),
        ("FLUX.1-schnell", SCHNELL),
        ("/models/flux.1-schnell", SCHNELL),
        ("/models/FLUX.1-Schnell/", SCHNELL),
        ("someone/FLUX.1-dev", DEV),
        ("FLUX.1-dev-lora", None),
        ("FLUX.1", None),
        ("", None),
    ],
)
def test_a_model_is_known_by_its_id_and_its_folder(name: str, spec: ModelSpec | None) -> None:
    assert by_name(name) is spec


@pytest.mark.parametrize(
    ("path", "model_id", "pipeline", "configs", "spec"),
    [
        ("/models/mine", None, "FluxPipeline", COMPONENTS, DEV),
        ("/models/mine", None, "FluxPipeline", {"transformer": {"guidance_embeds": False}}, SCHNELL),
        ("/models/mine", None, "FluxPipeline", {"transformer": {}}, None),
        ("/models/mine", None, "FluxPipeline", {}, None),
        ("/models/mine", None, "SanaPipeline", COMPONENTS, None),
        ("/models/mine", "tiny-scenes", "FluxPipeline", COMPONENTS, TINY),
        ("/models/mine", "FLUX.1-Schnell", "FluxPipeline", COMPONENTS, SCHNELL),
        ("/models/tiny-scenes", None, "FluxPipeline", COMPONENTS, TINY),
        ("/models/FLUX.1-dev", None, None, {}, DEV),
        ("/models/FLUX.1-dev", None, "SanaPipeline", {}, None),  # a folder that is named after another model
    ],
)
def test_match(path: str, model_id: str | None, pipeline: str | None, configs: Any, spec: ModelSpec | None) -> None:
    assert match(path, model_id, pipeline, configs) is spec


EXPERTS = {"transformer": {"in_channels": 16}, "transformer_2": {"_class_name": "WanTransformer3DModel"}}


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
        ("WanPipeline", EXPERTS, "Wan2.2-T2V-A14B-Diffusers"),
        ("WanPipeline", {"transformer": {"num_attention_heads": 40}}, "Wan2.1-T2V-14B-Diffusers"),
        ("WanPipeline", {"model_index": {"expand_timesteps": True}}, "Wan2.2-TI2V-5B-Diffusers"),
        ("WanPipeline", {"transformer": {"num_attention_heads": 12}}, "Wan2.1-T2V-1.3B-Diffusers"),
        ("WanImageToVideoPipeline", EXPERTS, "Wan2.2-I2V-A14B-Diffusers"),
        ("WanImageToVideoPipeline", {"transformer": {"in_channels": 36}}, "Wan2.1-I2V-14B-480P-Diffusers"),
        ("WanDMDPipeline", {"transformer": {"in_channels": 48}}, "FastWan2.2-TI2V-5B-FullAttn-Diffusers"),
        ("WanDMDPipeline", {"transformer": {"in_channels": 16}}, "FastWan2.1-T2V-1.3B-Diffusers"),
        ("HunyuanVideoPipeline", {"scheduler": {"shift": 17.0}}, "FastHunyuan-diffusers"),
        ("HunyuanVideoPipeline", {"scheduler": {"shift": 7.0}}, "HunyuanVideo"),
    ],
)
def test_a_folder_tells_the_models_of_one_pipeline_class_apart(pipeline: str, configs: Any, name: str) -> None:
    spec = match("/models/mine", None, pipeline, configs)
    assert spec is not None and spec.id.rsplit("/", 1)[-1] == name


def test_an_unknown_model_id_lists_the_known() -> None:
    with pytest.raises(UsageError) as caught:
        match("/models/mine", "tiny-scene", "FluxPipeline", COMPONENTS)
    assert caught.value.param == "model_id"
    known = ", ".join(spec.id for spec in MODELS)
    hint = "did you mean 'tiny-scenes'?"
    assert caught.value.message == f"--model-id: 'tiny-scene' is not in the catalog; {hint}; known: {known}"


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.id)
def test_an_entry_is_consistent(spec: ModelSpec) -> None:
    request = schema.fields(Request)
    assert set(spec.defaults) | set(spec.uses) | set(spec.ignores) <= set(request)
    assert all(request[name].opt.optional for name in (*spec.uses, *spec.ignores))
    assert set(spec.ignores) <= set(spec.uses)
    if spec.family != "passthrough":  # what a stock call takes is read off its signature
        assert {name for name in spec.defaults if request[name].opt.optional} <= set(spec.uses)
    for name, value in spec.defaults.items():
        assert schema.check(Request, name, value) == value
    assert spec.defaults["num_inference_steps"] <= spec.limits.get("num_inference_steps", 1000)
    assert spec.cfg_scale is None or spec.cfg_scale in spec.uses
    assert ("num_frames" in spec.defaults) == ("fps" in spec.defaults) == spec.is_video
    assert spec.defaults["height"] * spec.defaults["width"] <= spec.max_pixels
    assert spec.default_precision("transformer") in ("fp32", "bf16", "fp16")


def test_no_two_entries_share_a_name() -> None:
    names = [name.lower() for spec in MODELS for name in {spec.id, spec.id.rsplit("/")[-1], *spec.names}]
    assert len(names) == len(set(names))


def test_precision_goes_by_component_then_model_then_bf16() -> None:
    assert (TINY.default_precision("vae"), DEV.default_precision("vae")) == ("fp32", "bf16")
    mixed = dataclasses.replace(BARE, precision={"vae": "fp32", "default": "fp16"})
    assert (mixed.default_precision("vae"), mixed.default_precision("transformer")) == ("fp32", "fp16")


def test_variants_are_stock_pipelines_over_the_same_components() -> None:
    import diffusers  # it takes its time

    for spec in (spec for spec in MODELS if spec.variants):
        own = set(inspect.signature(getattr(diffusers, spec.pipeline).__init__).parameters)
        for name in spec.variants.values():
            needed = inspect.signature(getattr(diffusers, name).__init__).parameters.values()
            assert {part.name for part in needed if part.default is inspect.Parameter.empty} <= own, name
