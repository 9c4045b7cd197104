"""The settings of an engine: their defaults are the contract's, and every setting describes itself."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from engine import catalog, schema
from engine.config import CacheDitParams, DitConfig, EngineConfig, NunchakuConfig, VaeConfig
from engine.errors import NotAvailable, UsageError
from engine.schema import Field
from engine.types import LoraRef, Request

NOUNS = (EngineConfig, Request, VaeConfig, DitConfig, NunchakuConfig, CacheDitParams, LoraRef)
# A request takes these as a plain map until step caching is built; the engine's are checked key by key.
DESCRIBED_TWICE = {"cache_dit_params"}


def described() -> Iterator[tuple[type, Field]]:
    for noun in NOUNS:
        for field in schema.fields(noun).values():
            yield noun, field


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("model_path", "tiny-scenes"),
        ("model_id", None),
        ("backend", "auto"),
        ("trust_remote_code", False),
        ("component_paths", {}),
        ("offline", False),
        ("load_format", "auto"),
        ("device", "auto"),
        ("dit_precision", None),
        ("vae_precision", None),
        ("text_encoder_precisions", None),
        ("vae_tiling", None),
        ("vae_slicing", False),
        ("num_gpus", 1),
        ("tp_size", 1),
        ("sp_degree", None),
        ("ring_degree", 1),
        ("dp_size", 1),
        ("executor", "auto"),
        ("dist_timeout", 3600),
        ("attention_backend", None),
        ("diffusers_attention_backend", "native"),
        ("performance_mode", "auto"),
        ("dit_cpu_offload", None),
        ("dit_offload_prefetch_size", 0.0),
        ("vae_cpu_offload", False),
        ("pin_cpu_memory", True),
        ("lora_merge_mode", "auto"),
        ("enable_torch_compile", False),
        ("warmup_steps", 1),
        ("enable_teacache", False),
        ("cfg_gate_step", 1.0),
        ("disable_conditioning_cache", False),
        ("conditioning_cache_max_size_mb", 512.0),
        ("max_pixels", None),
    ],
)
def test_a_default_is_that_of_the_contract(name: str, default: object) -> None:
    assert getattr(EngineConfig(), name) == default


def test_the_vae_is_loaded_by_task() -> None:
    assert (EngineConfig().vae_config.load_encoder, EngineConfig().vae_config.load_decoder) == (None, True)


def test_the_default_model_is_known() -> None:
    spec = catalog.by_name(EngineConfig().model_path)
    assert spec is not None
    assert spec.id == "tiny-scenes"


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("model", "model_path"),
        ("pipeline", "pipeline_class_name"),
        ("precision", "dit_precision"),
        ("sp_size", "sp_degree"),
        ("dp", "dp_size"),
        ("data_parallel_size", "dp_size"),
        ("layerwise_offload_modules", "layerwise_offload_components"),
        ("mode", "performance_mode"),
    ],
)
def test_an_alias_of_the_contract_is_known(alias: str, name: str) -> None:
    assert schema.find(EngineConfig, alias).name == name


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("steps", "num_inference_steps"),
        ("image_paths", "image_path"),
        ("num_samples", "num_outputs_per_prompt"),
        ("num_outputs", "num_outputs_per_prompt"),
        ("n", "num_outputs_per_prompt"),
        ("metadata", "embed_recipe"),
    ],
)
def test_an_alias_of_a_request_is_known(alias: str, name: str) -> None:
    assert schema.find(Request, alias).name == name


def test_it_is_frozen_and_engines_share_no_map() -> None:
    config = EngineConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.device = "cuda"  # type: ignore[misc]
    assert config.component_paths is not EngineConfig().component_paths
    assert config == EngineConfig()


def test_nested_keys_are_read_strictly() -> None:
    config = schema.read(EngineConfig, {"vae_config": {"load_encoder": False}, "precision": "bf16"})
    assert config == EngineConfig(vae_config=VaeConfig(load_encoder=False), dit_precision="bf16")
    with pytest.raises(UsageError) as caught:
        schema.read(EngineConfig, {"vae_config": {"load_encode": True}})
    assert caught.value.message == "vae_config.load_encode: unknown name; did you mean 'load_encoder'?"
    with pytest.raises(UsageError) as caught:
        schema.read(EngineConfig, {"precision": "fp8"})
    assert caught.value.message == 'precision: must be one of fp16, bf16, fp32, got "fp8"'


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_gpus", 2, "num_gpus: not available yet"),
        ("vae_config", VaeConfig(use_parallel_tiling=True), "vae_config.use_parallel_tiling: not available yet"),
        ("executor", "ray", "executor: 'ray' is not available yet; available: auto, inline"),
    ],
)
def test_what_is_not_built_is_refused(name: str, value: object, message: str) -> None:
    with pytest.raises(NotAvailable) as caught:
        schema.require_available(EngineConfig, name, value)
    assert caught.value.message == message


def test_every_default_is_available() -> None:
    for noun, field in described():
        schema.require_available(noun, field.name, field.default)


def test_every_default_is_json_and_passes_its_own_check() -> None:
    for noun, field in described():
        plain = json.loads(json.dumps(schema.plain(field.default)))
        assert schema.check(noun, field.name, plain) == field.default, f"{noun.__name__}.{field.name}"


def test_every_setting_has_a_help_line_and_a_topic() -> None:
    for noun, field in described():
        place = f"{noun.__name__}.{field.name}"
        assert 0 < len(field.opt.help) <= 90, place
        assert not field.opt.help.endswith(".") or field.opt.help.endswith("..."), place
        assert "\n" not in field.opt.help, place
        assert field.opt.topic, place


def test_every_field_of_a_noun_is_described() -> None:
    for noun in NOUNS:
        assert set(schema.fields(noun)) == {field.name for field in dataclasses.fields(noun)}


def test_only_request_fields_are_optional() -> None:
    """`optional` is about which model uses a field; an engine's own field is shared with Request when it says so."""
    for noun, field in described():
        assert not field.opt.optional or field.name in schema.fields(Request), f"{noun.__name__}.{field.name}"


def test_an_unbuilt_choice_is_a_choice_and_one_is_left() -> None:
    for noun, field in described():
        if isinstance(field.opt.later, tuple):
            assert set(field.opt.later) < set(field.choices), f"{noun.__name__}.{field.name}"


def test_a_name_is_described_once() -> None:
    """A flag that both an engine and a request have is one description; no alias is a second setting's name."""
    meanings: dict[str, list[Field]] = defaultdict(list)
    for noun in (EngineConfig, Request):
        for field in schema.fields(noun).values():
            for name in field.names:
                meanings[name].append(field)
    for name, fields in meanings.items():
        if name not in DESCRIBED_TWICE:
            assert all(field == fields[0] for field in fields), name
    assert len(meanings) > 120
    for noun in NOUNS:
        names = [name for field in schema.fields(noun).values() for name in field.names]
        assert len(names) == len(set(names)), noun.__name__


def test_an_environment_name_means_one_setting() -> None:
    owners: dict[str, set[str]] = defaultdict(set)
    for _, field in described():
        for name in field.opt.env:
            owners[name].add(field.name)
    assert all(len(names) == 1 for names in owners.values()), owners
    assert owners["SGLANG_CACHE_DIT_RDT"] == {"residual_diff_threshold"}


def test_names_are_the_ones_python_and_flags_can_have() -> None:
    for noun, field in described():
        assert all(name.isidentifier() for name in field.names), f"{noun.__name__}.{field.name}"
        assert field.flag == "--" + field.name.replace("_", "-")


def test_cache_settings_have_the_names_of_the_environment() -> None:
    """Each Cache-DiT setting can come from a variable, but for the nested second transformer."""
    missing: dict[str, Any] = {n: f for n, f in schema.fields(CacheDitParams).items() if not f.opt.env}
    assert set(missing) == {"secondary"}
