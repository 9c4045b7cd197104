"""Handles and the router: our networks go through our attention, everybody else's do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel
from diffusers.models.transformers import transformer_flux

from engine import attention

SIZES: dict[str, Any] = {
    "in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 4,
    "joint_attention_dim": 32, "pooled_projection_dim": 32, "axes_dims_rope": (4, 6, 6),
}  # fmt: skip


@pytest.fixture
def networks() -> Iterator[tuple[Any, Any]]:
    torch.manual_seed(0)
    ours, stock = FluxTransformer2DModel(**SIZES).eval(), FluxTransformer2DModel(**SIZES).eval()
    stock.load_state_dict(ours.state_dict())
    yield ours, stock
    attention.remove(ours)


def _forward(network: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        result: torch.Tensor = network(
            hidden_states=torch.randn(1, 16, 16, generator=generator),
            encoder_hidden_states=torch.randn(1, 5, 32, generator=generator),
            pooled_projections=torch.randn(1, 32, generator=generator),
            timestep=torch.tensor([0.5]),
            img_ids=torch.zeros(16, 3),
            txt_ids=torch.zeros(5, 3),
            return_dict=False,
        )[0]
    return result


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    seen: list[tuple[int, ...]] = []
    attend = attention.BACKENDS["torch_sdpa"]

    def counted(query: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(tuple(query.shape))
        return attend(query, *args, **kwargs)

    monkeypatch.setitem(attention.BACKENDS, "torch_sdpa", counted)
    return seen


def test_every_attention_call_of_an_installed_network_is_ours(networks: Any, calls: list[Any]) -> None:
    ours, _ = networks
    attention.install(ours, "torch_sdpa")
    _forward(ours)
    assert calls == [(1, 21, 4, 16)] * 2, "one call a block, over text and image tokens"


def test_a_stock_network_in_the_same_process_is_untouched(networks: Any, calls: list[Any]) -> None:
    ours, stock = networks
    before = _forward(stock)
    attention.install(ours, "torch_sdpa")
    after = _forward(stock)
    assert calls == []
    assert torch.equal(before, after)
    with pytest.raises(ValueError, match="nonsense"):
        stock.set_attention_backend("nonsense")  # diffusers' own backends still answer


def test_remove_gives_the_network_back(networks: Any, calls: list[Any]) -> None:
    ours, stock = networks
    attention.install(ours, "torch_sdpa")
    attention.remove(ours)
    assert torch.equal(_forward(ours), _forward(stock))
    assert calls == []


def test_installing_twice_routes_once(networks: Any, calls: list[Any]) -> None:
    ours, _ = networks
    attention.install(ours, "torch_sdpa")
    attention.install(ours, "torch_sdpa")
    _forward(ours)
    assert len(calls) == 2


def test_the_router_traces_in_one_graph(networks: Any) -> None:
    ours, stock = networks
    attention.install(ours, "torch_sdpa")
    for block in ours.single_transformer_blocks:
        block.compile(backend="eager", fullgraph=True)
    assert torch.equal(_forward(ours), _forward(stock))


def test_a_mask_that_hides_nothing_is_left_out(networks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = networks
    query = torch.ones(1, 3, 4, 16)
    masks = list[Any]()

    def attend(query: torch.Tensor, *_: Any, attn_mask: Any = None, **__: Any) -> torch.Tensor:
        masks.append(attn_mask)
        return query

    monkeypatch.setitem(attention.BACKENDS, "torch_sdpa", attend)
    mask = torch.ones(1, 3, dtype=torch.bool)
    for masked in (True, False):
        attention.install(ours, "torch_sdpa", masked)
        handle = ours.transformer_blocks[0].attn.processor._attention_backend
        transformer_flux.dispatch_attention_fn(query, query, query, attn_mask=mask, backend=handle)
    assert masks[0] is mask
    assert masks[1] is None


def test_a_network_with_attention_of_its_own_keeps_it(caplog: pytest.LogCaptureFixture) -> None:
    sizes = {"num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2, "caption_projection_dim": 16}
    network = SD3Transformer2DModel(**sizes, joint_attention_dim=8, pooled_projection_dim=8, pos_embed_max_size=8)
    attention.install(network, "torch_sdpa")
    assert caplog.text == ""
    attention.install(network, "torch_cudnn_sdpa")
    assert "attention_backend: torch_cudnn_sdpa has no effect on SD3Transformer2DModel" in caplog.text
