"""How long a run is, in tokens: of the prompt, of input images, of latents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from engine.types import State


def count(components: Mapping[str, Any], state: State) -> dict[str, int]:
    """Return the tokens of a run: `text` as the main text encoder counts them, `image`, `latents`."""
    patch = _patch(components)
    return {
        "text": _text(components, state.request.prompt or ""),
        "image": sum(_places(entry, patch) for entry in (state.image_latents, state.reference) if entry is not None),
        "latents": 0 if state.latents is None else _places(state.latents, patch),
    }


def _text(components: Mapping[str, Any], prompt: str) -> int:
    names = sorted(name for name, part in components.items() if name.startswith("tokenizer") and part is not None)
    return len(components[names[-1]](prompt)["input_ids"]) if names else 0


def _patch(components: Mapping[str, Any]) -> int:
    """Return how many latent places make a token of the denoiser."""
    config = getattr(components.get("transformer"), "config", {})
    size = config.get("patch_size") if isinstance(config, Mapping) else None
    return math.prod(size) if isinstance(size, list | tuple) else (size or 1) ** 2


def _places(latents: torch.Tensor, patch: int) -> int:
    """Return the tokens of latents, packed (1, tokens, channels) or (1, channels, [frames,] height, width)."""
    if latents.ndim == 3:
        return int(latents.shape[1])
    return max(1, math.prod(latents.shape[2:]) // patch)
