"""LoRA files of every common layout, read into the normal form for a live denoiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from engine.lora.adapter import Adapter


def read(
    source: Path | Mapping[str, torch.Tensor],
    network: torch.nn.Module,
    *,
    target: str = "transformer",
    alpha: float | None = None,
    modules: Sequence[str] | None = None,
) -> Adapter:
    """Return what the LoRA file `source` adds to `network`.

    `target` is the network's component name, `alpha` the training alpha for a file that lacks it, `modules` the
    endings of the module names that alone are taken. Raises UsageError `lora_incompatible`.
    """
    raise NotImplementedError
