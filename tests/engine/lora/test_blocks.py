"""An adapter in one block is the same adapter, and none of the file's memory."""

from __future__ import annotations

import pytest
import torch

from engine.lora import blocks
from engine.lora.adapter import Adapter, Delta


def _adapter() -> Adapter:
    down = torch.randn(2, 5)
    return Adapter(
        layers={
            "q": Delta(down=down, up=torch.randn(3, 2), scale=0.5),
            "k": Delta(down=down, up=torch.randn(3, 2), bias=torch.randn(3)),
            "norm": Delta(diff=torch.randn(7, dtype=torch.bfloat16)),
        },
        parameters={"table": torch.randn(1, 3, 2).transpose(1, 2)},
        layout="test",
        triggers=("pixel art",),
    )


def test_every_value_is_the_same_in_memory_of_its_own() -> None:
    adapter = _adapter()
    packed = blocks.pack(adapter, pin=False)
    for path, delta in adapter.layers.items():
        copy = packed.adapter.layers[path]
        assert copy.scale == delta.scale
        for before, after in zip(delta.tensors, copy.tensors, strict=True):
            assert torch.equal(before, after)
            assert before.dtype == after.dtype
    assert torch.equal(packed.adapter.parameters["table"], adapter.parameters["table"])
    assert packed.adapter.triggers == ("pixel art",)
    for delta in adapter.layers.values():
        for part in delta.tensors:
            part.zero_()
    assert packed.adapter.layers["q"].down is not None
    assert packed.adapter.layers["q"].down.abs().sum() > 0, "the file may go away"


def test_what_layers_share_is_there_once() -> None:
    packed = blocks.pack(_adapter(), pin=False)
    shared = packed.adapter.layers
    assert shared["q"].down is not None
    assert shared["k"].down is not None
    assert shared["q"].down.data_ptr() == shared["k"].down.data_ptr()
    assert packed.block.nbytes == blocks.ALIGNED * 6  # down, two ups, bias, diff, table


def test_on_another_device_the_layout_is_kept() -> None:
    packed = blocks.pack(_adapter(), pin=False)
    there = packed.on(torch.device("meta"))
    assert there.layers["q"].up is not None
    assert (there.layers["q"].up.device.type, there.layers["q"].up.shape) == ("meta", (3, 2))
    assert packed.on(torch.device("cpu")) is packed.adapter


def test_memory_for_copies_has_the_shapes() -> None:
    like = [torch.randn(3, 4), torch.randn(5, dtype=torch.bfloat16), torch.randn(())]
    made = blocks.empty_like(like, pin=False)
    assert [(one.shape, one.dtype) for one in made] == [(one.shape, one.dtype) for one in like]
    for one, value in zip(made, like, strict=True):
        one.copy_(value)
    assert all(torch.equal(one, value) for one, value in zip(made, like, strict=True))
    assert blocks.empty_like([], pin=False) == []


def test_memory_for_copies_comes_in_blocks_that_the_host_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "LARGEST", 2 * blocks.ALIGNED)
    made = blocks.empty_like([torch.zeros(3) for _ in range(5)] + [torch.zeros(1000)], pin=False)
    stores = [one.untyped_storage() for one in made]
    assert len({store.data_ptr() for store in stores}) == 4
    assert [store.nbytes() // blocks.ALIGNED for store in stores] == [2, 2, 2, 2, 1, 16]
