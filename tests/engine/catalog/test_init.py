"""The catalog: which entry a model is, and that its entries are consistent."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from engine import schema
from engine.catalog import MODELS, ModelSpec, by_name, match
from engine.errors import UsageError
from engine.types import Request

TINY, DEV, SCHNELL = MODELS[:3]
CACHE, I2V = "/hub/models", "WanImageToVideoPipeline"
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
        ("/hub/models--Qwen--Qwen-Image-2512/snapshots/0123abc", by_name("Qwen/Qwen-Image-2512")),
        ("/hub/models--Qwen--Qwen-Image-2512/snapshots/0123abc/", by_name("Qwen/Qwen-Image-2512")),
        ("models--Wan-AI--Wan2.1-I2V-14B-720P-Diffusers", by_name("Wan2.1-I2V-14B-720P")),
        ("/hub/models--Qwen--Qwen-Image-2512/mine", None),
        ("/hub/models--someone--mine/snapshots/0123abc", None),
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
        (f"{CACHE}--Wan-AI--Wan2.1-I2V-14B-720P-Diffusers/snapshots/1", None, I2V, {}, by_name("Wan2.1-I2V-14B-720P")),
        ("/models/FLUX.1-dev", None, "SanaPipeline", {}, None),  # a folder that is named after another model
    ],
)
def test_match(path: str, model_id: str | None, pipeline: str | None, configs: Any, spec: ModelSpec | None) -> None:
    assert match(path, model_id, pipeline, configs) is spec


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


def test_variants_are_stock_pipelines_over_the_same_components() -> None:
    import diffusers  # it takes its time

    for spec in (spec for spec in MODELS if spec.variants):
        own = set(inspect.signature(getattr(diffusers, spec.pipeline).__init__).parameters)
        for name in spec.variants.values():
            needed = inspect.signature(getattr(diffusers, name).__init__).parameters.values()
            assert {part.name for part in needed if part.default is inspect.Parameter.empty} <= own, name
