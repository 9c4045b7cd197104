"""What is known of a model without loading it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import env, schema
from engine.config import EngineConfig
from engine.errors import GenerationError, ModelError, UsageError
from engine.jobs import served
from engine.types import LoraRef


def test_another_model_keeps_only_what_is_not_of_one_model() -> None:
    config = schema.read(
        EngineConfig,
        {"model_path": "a", "model_id": "x", "lora_path": ["l"], "dit_precision": "bf16", "flow_shift": 3.0},
    )
    other = served.of_model(config, "b")
    assert (other.model_path, other.model_id, other.lora_path, other.flow_shift) == ("b", None, None, None)
    assert other.dit_precision == "bf16"


def test_the_adapters_of_the_start() -> None:
    config = schema.read(EngineConfig, {"lora_path": ["a.safetensors"], "lora_scale": [0.5]})
    assert served.adapters(config) == (LoraRef(name="default", path="a.safetensors", scale=0.5),)
    assert served.adapters(EngineConfig()) == ()
    assert served.adapters(schema.read(EngineConfig, {"lora_scale": [0.5]})) == ()  # the worker refuses it


def test_a_model_that_is_there_is_described(flux_folder: Path) -> None:
    spec = served.described(EngineConfig(model_path=str(flux_folder)), env.read())
    assert spec is not None and spec.family == "flux"
    assert served.spec_of({name: schema.plain(getattr(spec, name)) for name in spec.__slots__}).uses == spec.uses


def test_a_model_that_is_not_there() -> None:
    config = EngineConfig(model_path="/no/such/folder")
    assert served.described(config, env.read()) is None
    with pytest.raises((ModelError, UsageError)):
        served.described(config, env.read(), strict=True)


@pytest.mark.parametrize(("kind", "cls"), [("usage", UsageError), ("model", ModelError), ("", GenerationError)])
def test_errors_travel(kind: str, cls: type[Exception]) -> None:
    error = served.error_of({"kind": kind, "message": "why", "code": "some_code", "param": "size"})
    assert type(error) is cls
    assert (error.message, error.code, error.param) == ("why", "some_code", "size")
