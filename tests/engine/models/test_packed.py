"""What families with packed latents share."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.engine import Engine


@pytest.mark.parametrize("family", ["flux", "qwen-image"])
def test_a_token_is_two_by_two_latents_of_every_channel(tiny_engine: Callable[..., Engine], family: str) -> None:
    engine = tiny_engine(family)
    assert engine.executor is not None
    model: Any = engine.executor.scheduler.pipeline.model
    state: Any = SimpleNamespace(grid=(32, 48))
    latents = torch.arange(4 * 4 * 6, dtype=torch.float32).view(1, 4, 4, 6)
    packed = model.pack(latents)
    assert model.tokens(state) == (2, 3)
    assert packed.shape == (1, 6, 16)
    assert sorted(packed[0, 1].tolist()) == sorted(latents[0, :, :2, 2:4].flatten().tolist())
