"""The normal form of an adapter: for each module of a denoiser, what is added to its weight and bias."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What an adapter of strength 1 adds to one module: `scale * up @ down + diff` to its weight, `bias` to its bias.

    `down` and `up` come together. Both have the dimensions of the module's weight: (rank, in) and (out, rank) for a
    linear layer, (rank, in, height, width) and (out, rank, 1, 1) for a convolution.
    """

    down: torch.Tensor | None = None
    up: torch.Tensor | None = None
    scale: float = 1.0  # alpha / rank, or alpha / sqrt(rank) when rank-stabilized
    diff: torch.Tensor | None = None  # in the shape of the weight; `scale` does not apply
    bias: torch.Tensor | None = None  # in the shape of the bias; `scale` does not apply

    @property
    def tensors(self) -> Iterator[torch.Tensor]:
        """Every tensor that there is."""
        yield from (part for part in (self.down, self.up, self.diff, self.bias) if part is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA file as one denoiser takes it. Tensors are on the CPU in the precision of the file, of 8 bits in bf16."""

    layers: Mapping[str, Delta]  # path of a module inside the denoiser -> what is added to it
    parameters: Mapping[str, torch.Tensor] = field(default_factory=dict)  # path of a bare parameter -> what is added
    layout: str  # how its keys are written: diffusers, kohya, xlabs, comfyui, peft, bare
    skipped: tuple[str, ...] = ()  # keys of parts that are not this network: text encoders, the other expert
    unknown: tuple[str, ...] = ()  # keys that fit nothing, at most a tenth of all
    triggers: tuple[str, ...] = ()  # words that a prompt should hold
    metadata: Mapping[str, str] = field(default_factory=dict)
