"""Which attention backend a network gets."""

from __future__ import annotations

import torch

from engine import log
from engine.errors import UsageError

logger = log.get(__name__)
FLASH = ("fa", "fa2", "fa3", "fa4")


def select(wanted: str | None, device: torch.device) -> str:
    """Return the backend to use on `device`; None lets the device decide.

    Raises UsageError when the one asked for cannot run, except for FlashAttention, which falls back with a warning.
    """
    if wanted is None or wanted == "torch_sdpa":
        return "torch_sdpa"
    if wanted in FLASH:
        logger.warning("attention_backend: %s is not installed, using torch_sdpa", wanted)
        return "torch_sdpa"
    if wanted == "torch_cudnn_sdpa" and device.type != "cuda":
        raise UsageError(f"attention_backend: {wanted} needs CUDA, not {device.type}; available: torch_sdpa")
    return wanted
