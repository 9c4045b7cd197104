"""Attention on torch's kernels equals the formula."""

from __future__ import annotations

import math

import pytest
import torch

from engine.attention import dense


def _formula(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), value)


@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_formula(masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, length, 3, 8, generator=generator, dtype=torch.float64) for length in (5, 7, 7))
    mask = torch.arange(7)[None] < torch.tensor([[4], [7]]) if masked else None
    ours = dense.torch_sdpa(query, key, value, attn_mask=mask)
    wanted = _formula(query, key, value, None if mask is None else mask[:, None, None, :])
    torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-12)
