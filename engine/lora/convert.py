"""Further layouts of LoRA files, put into diffusers' names by diffusers' own converters."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from engine.lora.names import CONVERTERS

# What the converters raise when a file is not of a layout that they know.
NOT_THEIRS = (ValueError, KeyError, IndexError, AttributeError, TypeError, RuntimeError, AssertionError)


def converted(state: Mapping[str, torch.Tensor], network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors under diffusers' names, alphas among them; nothing when no converter knows the layout."""
    name = CONVERTERS.get(type(network).__name__)
    if name is None:
        return {}
    from diffusers.loaders import lora_pipeline

    is_unet = name == "StableDiffusionXLLoraLoaderMixin"
    options = {"unet_config": network.config} if is_unet else {}
    try:
        result = getattr(lora_pipeline, name).lora_state_dict(dict(state), **options)
    except NOT_THEIRS:
        return {}
    tensors, alphas = result if isinstance(result, tuple) else (result, None)
    return {**tensors, **{key: torch.tensor(float(value)) for key, value in (alphas or {}).items()}}
