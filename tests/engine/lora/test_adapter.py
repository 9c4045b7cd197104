"""The normal form: which tensors a delta has."""

from __future__ import annotations

import torch

from engine.lora.adapter import Delta


def test_a_delta_lists_the_tensors_that_it_has() -> None:
    down, up, bias = torch.zeros(4, 6), torch.zeros(8, 4), torch.zeros(8)
    assert [*map(id, Delta(down=down, up=up, bias=bias).tensors)] == [*map(id, (down, up, bias))]
    assert [*Delta().tensors] == []
