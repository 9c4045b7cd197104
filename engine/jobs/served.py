"""What can be known of a model in a process without torch: its settings, its description, its adapters at start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine import hub
from engine.catalog import ModelSpec
from engine.config import EngineConfig
from engine.env import Environment
from engine.errors import GenerationError, ModelError, SgdiffError, UsageError
from engine.lora import refs
from engine.types import LoraRef

# Settings that were made for one model and mean nothing, or something else, to another one.
OF_ONE_MODEL = (
    "model_id", "revision", "pipeline_class_name", "component_paths", "component_weights_paths", "flow_shift",
    "embedded_cfg_scale", "text_encoder_precisions", "layerwise_offload_components", "vae_config", "lora_path",
    "lora_nickname", "lora_scale", "lora_target", "lora_target_modules", "lora_weight_name", "lora_alpha",
    "warmup_resolutions", "warmup_num_frames",
)  # fmt: skip


def of_model(config: EngineConfig, model_path: str) -> EngineConfig:
    """Return the settings of a process for another model than the one that it was started with."""
    default = EngineConfig()
    return replace(config, model_path=model_path, **{name: getattr(default, name) for name in OF_ONE_MODEL})


def adapters(config: EngineConfig) -> tuple[LoraRef, ...]:
    """Return the adapters that a worker starts with; none when they are wrong, which the worker will say."""
    try:
        return refs.of_config(config)
    except UsageError:
        return ()


def described(config: EngineConfig, environment: Environment, strict: bool = False) -> ModelSpec | None:
    """Return what can be known of a model without its weights and without torch; None when a worker must tell.

    Raises ModelError or UsageError with `strict`; without it the worker will say what is wrong.
    """
    try:
        plan = hub.plan(config, environment)
        spec = plan.spec
        if spec is None or spec.family == "passthrough" or config.backend == "diffusers" or not plan.cached:
            return None
        from engine.engine import spec_of as full

        return full(replace(config, offline=True), environment)[1]
    except (ModelError, UsageError):
        if strict:
            raise
        return None


def spec_of(told: Mapping[str, Any]) -> ModelSpec:
    """Return the description of a model that a worker sent."""
    known: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    return ModelSpec(**known)


def error_of(told: Mapping[str, Any]) -> SgdiffError:
    """Return an error that a worker sent."""
    kinds: dict[str, type[SgdiffError]] = {"usage": UsageError, "model": ModelError}
    kind = kinds.get(told["kind"], GenerationError)
    return kind(told["message"], code=told["code"], param=told["param"])
