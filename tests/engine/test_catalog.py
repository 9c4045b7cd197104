"""The catalog: which entry a model is, and that its entries are consistent."""

from __future__ import annotations

import dataclasses
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
        ("/models/mine", None, "StableDiffusion3Pipeline", COMPONENTS, None),
        ("/models/mine", "tiny-scenes", "FluxPipeline", COMPONENTS, TINY),
        ("/models/mine", "FLUX.1-Schnell", "FluxPipeline", COMPONENTS, SCHNELL),
        ("/models/tiny-scenes", None, "FluxPipeline", COMPONENTS, TINY),
        ("/models/FLUX.1-dev", None, None, {}, DEV),
        ("/models/FLUX.1-dev", None, "StableDiffusion3Pipeline", {}, None),  # a folder that is named after another model
    ],
)
def test_match(path: str, model_id: str | None, pipeline: str | None, configs: Any, spec: ModelSpec | None) -> None:
    assert match(path, model_id, pipeline, configs) is spec


def test_an_unknown_model_id_lists_the_known() -> None:
    with pytest.raises(UsageError) as caught:
        match("/models/mine", "tiny-scene", "FluxPipeline", COMPONENTS)
    assert caught.value.param == "model_id"
    assert caught.value.message == (
        "--model-id: 'tiny-scene' is not in the catalog; did you mean 'tiny-scenes'?; "
        "known: tiny-scenes, black-forest-labs/FLUX.1-dev, black-forest-labs/FLUX.1-schnell"
    )


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.id)
def test_an_entry_is_consistent(spec: ModelSpec) -> None:
    request = schema.fields(Request)
    assert set(spec.defaults) | set(spec.uses) | set(spec.ignores) <= set(request)
    assert all(request[name].opt.optional for name in (*spec.uses, *spec.ignores))
    assert set(spec.ignores) <= set(spec.uses)
    assert {name for name in spec.defaults if request[name].opt.optional} <= set(spec.uses)
    for name, value in spec.defaults.items():
        assert schema.check(Request, name, value) == value
    assert spec.defaults["height"] * spec.defaults["width"] <= spec.max_pixels
    assert spec.default_precision("transformer") in ("fp32", "bf16", "fp16")


def test_no_two_entries_share_a_name() -> None:
    names = [name.lower() for spec in MODELS for name in {spec.id, spec.id.rsplit("/")[-1], *spec.names}]
    assert len(names) == len(set(names))


def test_precision_goes_by_component_then_model_then_bf16() -> None:
    assert (TINY.default_precision("vae"), DEV.default_precision("vae")) == ("fp32", "bf16")
    mixed = dataclasses.replace(BARE, precision={"vae": "fp32", "default": "fp16"})
    assert (mixed.default_precision("vae"), mixed.default_precision("transformer")) == ("fp32", "fp16")
