"""Denoisers of the tiny models, and LoRA files made for them."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import pytest
import torch


@functools.cache
def denoiser(family: str) -> Any:
    """The transformer or UNet of a tiny model, the same object each time."""
    from engine.models import tiny
    from engine.models.tiny.parts import Seeds

    module, function = tiny.FAMILIES[family].split(":")
    pipeline = getattr(importlib.import_module(f"engine.models.tiny.{module}"), function)(Seeds(0))
    return getattr(pipeline, "transformer", None) or pipeline.unet


class Lora:
    """Makes the tensors of adapters."""

    rank = 3

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(7)

    denoiser = staticmethod(denoiser)

    @staticmethod
    def added(delta: Any) -> torch.Tensor:
        """What a delta adds to a weight, as its definition says, in fp32."""
        low = (
            delta.scale * torch.tensordot(delta.up.float().flatten(1), delta.down.float(), 1)
            if delta.up is not None
            else 0
        )
        total: torch.Tensor = low + (0 if delta.diff is None else delta.diff.float())
        return total

    def noise(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)

    def halves(self, network: Any, targets: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Down and up of one file module that stands for the rows of all targets."""
        weights = [network.get_submodule(target).weight for target in targets]
        rows = sum(weight.shape[0] for weight in weights)
        kernel = weights[0].shape[2:]
        return self.noise(self.rank, *weights[0].shape[1:]), self.noise(rows, self.rank, *(1 for _ in kernel))


@pytest.fixture
def lora() -> Lora:
    return Lora()
