"""Many tensors in one block of memory: one copy moves all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch

from engine import log
from engine.lora.adapter import Adapter, Delta

logger = log.get(__name__)
LARGEST = 2**30  # bytes of a block of several tensors
ALIGNED = 256  # bytes, as fast kernels like it


@dataclass(frozen=True, slots=True)
class Packed:
    """An adapter whose tensors lie in one block of host memory of its own: what happens to the file changes nothing."""

    adapter: Adapter
    block: torch.Tensor

    def on(self, device: torch.device) -> Adapter:
        """Return the adapter on a device."""
        if device == self.block.device:
            return self.adapter
        there, start = self.block.to(device, non_blocking=True), self.block.data_ptr()
        return _mapped(self.adapter, lambda tensor: _view(there, tensor.data_ptr() - start, tensor))


def pack(adapter: Adapter, pin: bool) -> Packed:
    """Copy an adapter into a block, page-locked if asked for; a tensor that several layers share is there once."""
    parts = [part for delta in adapter.layers.values() for part in delta.tensors]
    found = {_key(part): part for part in (*parts, *adapter.parameters.values())}
    block, views = _block(found.values(), pin)
    copies = dict(zip(found, views, strict=True))
    for key, part in found.items():
        copies[key].copy_(part)
    return Packed(_mapped(adapter, lambda part: copies[_key(part)]), block)


def empty_like(tensors: Iterable[torch.Tensor], pin: bool) -> list[torch.Tensor]:
    """Return host memory for copies of some tensors, in blocks of at most 1 GiB or one tensor."""
    made: list[torch.Tensor] = []
    group: list[torch.Tensor] = []
    for tensor in tensors:
        if group and sum(map(_bytes, (*group, tensor))) > LARGEST:
            made += _block(group, pin)[1]
            group = []
        group.append(tensor)
    return made + _block(group, pin)[1]


def _block(tensors: Iterable[torch.Tensor], pin: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
    offsets, size, listed = list[int](), 0, list(tensors)
    for tensor in listed:
        offsets.append(size)
        size += _bytes(tensor)
    try:
        block = torch.empty(size, dtype=torch.uint8, pin_memory=pin)
    except RuntimeError as error:
        if not pin:
            raise
        logger.warning("page-locked memory is used up, LoRA goes on slower without it: %s", error)
        block = torch.empty(size, dtype=torch.uint8)
    return block, [_view(block, offset, tensor) for offset, tensor in zip(offsets, listed, strict=True)]


def _bytes(tensor: torch.Tensor) -> int:
    return -(-tensor.numel() * tensor.element_size() // ALIGNED) * ALIGNED


def _view(block: torch.Tensor, offset: int, like: torch.Tensor) -> torch.Tensor:
    return block[offset : offset + like.numel() * like.element_size()].view(like.dtype).view(like.shape)


def _key(part: torch.Tensor) -> tuple[object, ...]:
    return part.data_ptr(), part.shape, part.stride(), part.dtype


def _mapped(adapter: Adapter, change: Callable[[torch.Tensor], torch.Tensor]) -> Adapter:
    """Return an adapter with every tensor put through `change`."""

    def part(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else change(tensor)

    layers = {
        path: Delta(
            down=part(delta.down), up=part(delta.up), scale=delta.scale, diff=part(delta.diff), bias=part(delta.bias)
        )
        for path, delta in adapter.layers.items()
    }
    return replace(
        adapter, layers=layers, parameters={path: change(tensor) for path, tensor in adapter.parameters.items()}
    )
