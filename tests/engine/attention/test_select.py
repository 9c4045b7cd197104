"""Which backend a network gets, and what is said when it cannot be the one asked for."""

from __future__ import annotations

import pytest
import torch

from engine.attention.select import select
from engine.errors import UsageError

CPU = torch.device("cpu")


def test_the_cpu_has_torch_sdpa() -> None:
    assert select(None, CPU) == "torch_sdpa"


def test_cudnn_needs_cuda() -> None:
    with pytest.raises(UsageError) as error:
        select("torch_cudnn_sdpa", CPU)
    assert error.value.message == "attention_backend: torch_cudnn_sdpa needs CUDA, not cpu; available: torch_sdpa"


def test_flash_attention_falls_back_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert select("fa3", CPU) == "torch_sdpa"
    assert caplog.messages == ["attention_backend: fa3 is not installed, using torch_sdpa"]
