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
    def rank(self) -> int:
        """The rank of the low-rank part, 0 without one."""
        return 0 if self.down is None else self.down.shape[0]

    @property
    def tensors(self) -> Iterator[torch.Tensor]:
        """Every tensor that there is."""
        yield from (part for part in (self.down, self.up, self.diff, self.bias) if part is not None)

    def weight(self, like: torch.Tensor | None = None) -> torch.Tensor | None:
        """Return what is added to the weight in fp32, on the device of `like`; None when only the bias changes."""
        place = like.device if like is not None else None

        def wide(part: torch.Tensor) -> torch.Tensor:
            return part.to(device=place, dtype=torch.float32)

        total = None if self.diff is None else wide(self.diff)
        if self.up is None or self.down is None:
            return total
        low = self.scale * (wide(self.up).flatten(1) @ wide(self.down).flatten(1))
        low = low.reshape(self.up.shape[0], *self.down.shape[1:])
        return low if total is None else total + low


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA file as one denoiser takes it. Tensors are on the CPU in the precision of the file."""

    layers: Mapping[str, Delta]  # path of a module inside the denoiser -> what is added to it
    parameters: Mapping[str, torch.Tensor] = field(default_factory=dict)  # path of a bare parameter -> what is added
    layout: str  # what wrote the file: diffusers, kohya, xlabs, comfyui, original
    skipped: tuple[str, ...] = ()  # keys of parts that are not this network: text encoders, the other expert
    unknown: tuple[str, ...] = ()  # keys that fit nothing, at most a tenth of all
    triggers: tuple[str, ...] = ()  # words that a prompt should hold
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that occur, ascending."""
        return tuple(sorted({delta.rank for delta in self.layers.values()} - {0}))

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors; one that several layers share counts once."""
        found = [part for delta in self.layers.values() for part in delta.tensors] + list(self.parameters.values())
        stores = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in found}
        return sum(stores.values())
