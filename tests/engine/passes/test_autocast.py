"""Components in different precisions: what reaches one is cast to its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from diffusers.models.modeling_utils import ModelMixin

from engine.passes.autocast import casting, kept

HALF = torch.bfloat16


class Network(ModelMixin):
    """Gives back what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2, dtype=HALF)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs


def test_a_network_takes_everything_in_its_own_dtype() -> None:
    network, whole = Network(), torch.ones(1, 2)
    with casting([network], None):
        (first, listed), named = network(whole, [whole], nested={"embeds": (whole,)}, ids=whole.long(), mode="x")
    assert (first.dtype, listed[0].dtype, named["nested"]["embeds"][0].dtype) == (HALF, HALF, HALF)
    assert (named["ids"].dtype, named["mode"]) == (torch.int64, "x")
    assert network(whole)[0][0] is whole, "nothing is left behind"


def test_timesteps_keep_their_digits() -> None:
    network, timestep = Network(), torch.tensor([757.25])
    with casting([network], None):
        (given,), _ = network(timestep)
    assert given is timestep


def test_a_vae_encodes_and_decodes_in_its_own_dtype_of_that_moment() -> None:
    sizes: dict[str, Any] = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    vae: Any = AutoencoderTiny(**sizes).to(HALF)
    picture = torch.zeros(1, 3, 16, 16)
    with casting([], vae), torch.no_grad():
        assert vae.encode(picture).latents.dtype is HALF
        vae.to(torch.float32)
        assert vae.decode(torch.zeros(1, 4, 2, 2, dtype=HALF)).sample.dtype is torch.float32
    assert "decode" not in vars(vae)


def test_a_failure_leaves_no_cast_behind() -> None:
    network, whole = Network(), torch.ones(1, 2)
    with pytest.raises(ZeroDivisionError), casting([network], None):
        raise ZeroDivisionError
    assert network(whole)[0][0] is whole


def _raise_and_fail(vae: Any) -> None:
    vae.to(torch.float32)
    raise ZeroDivisionError


def test_a_vae_keeps_its_precision_and_its_digits() -> None:
    vae: Any = AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
    vae.register_to_config(force_upcast=True)
    with kept(vae):
        assert not vae.config.force_upcast, "fp32 cannot be raised"
    assert vae.config.force_upcast
    with pytest.raises(ZeroDivisionError), kept(vae.to(HALF)):
        _raise_and_fail(vae)
    assert vae.dtype is HALF
    with kept(None):
        pass
