"""The normal form: what a delta adds, in fp32, and what an adapter takes in memory."""

from __future__ import annotations

import torch

from engine.lora.adapter import Adapter, Delta

generator = torch.Generator().manual_seed(0)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator)


def test_a_linear_layer_gets_scale_times_up_times_down_plus_the_full_difference() -> None:
    down, up, diff = noise(4, 6), noise(8, 4), noise(8, 6)
    added = Delta(down=down, up=up, scale=0.5, diff=diff).weight()
    assert added is not None
    torch.testing.assert_close(added, diff + 0.5 * (up @ down))


def test_a_convolution_gets_the_product_of_its_two_convolutions() -> None:
    down, up, x = noise(2, 3, 3, 3), noise(5, 2, 1, 1), noise(1, 3, 8, 8)
    added = Delta(down=down, up=up, scale=2.0).weight()
    assert added is not None and added.shape == (5, 3, 3, 3)
    chained = 2.0 * torch.conv2d(torch.conv2d(x, down), up)
    torch.testing.assert_close(torch.conv2d(x, added), chained, rtol=1e-4, atol=1e-4)


def test_half_precision_files_are_multiplied_in_single_precision() -> None:
    down, up = noise(4, 6).bfloat16(), noise(8, 4).bfloat16()
    added = Delta(down=down, up=up).weight()
    assert added is not None and added.dtype == torch.float32
    torch.testing.assert_close(added, up.float() @ down.float())


def test_a_bias_alone_leaves_the_weight() -> None:
    assert Delta(bias=noise(8)).weight() is None
    assert Delta(bias=noise(8)).rank == 0


def test_an_adapter_counts_what_layers_share_once() -> None:
    down, ups = noise(4, 6), noise(24, 4)
    layers = {f"to_{part}": Delta(down=down, up=ups[i * 8 : i * 8 + 8]) for i, part in enumerate("qkv")}
    adapter = Adapter(layers=layers, parameters={"table": noise(6)}, layout="diffusers")
    assert adapter.nbytes == 4 * (4 * 6 + 24 * 4 + 6)
    assert adapter.ranks == (4,)
