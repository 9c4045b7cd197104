"""Tiny Z-Image models."""

from __future__ import annotations

from typing import Any

from engine.models.tiny.parts import HEADS, HIDDEN, Seeds, flux_vae, new, qwen3_sizes, qwen_tokenizer


def turbo(seeds: Seeds, shift: float = 3.0) -> Any:
    """Build Z-Image-Turbo, or Z-Image with its shift of 6."""
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline
    from transformers import Qwen3Config, Qwen3Model

    tokenizer = qwen_tokenizer()
    return new(
        ZImagePipeline,
        scheduler=new(FlowMatchEulerDiscreteScheduler, shift=shift),
        vae=flux_vae(seeds),
        text_encoder=seeds.build(Qwen3Model, Qwen3Config(**qwen3_sizes(tokenizer))),
        tokenizer=tokenizer,
        transformer=seeds.build(_transformer),
    )


def base(seeds: Seeds) -> Any:
    return turbo(seeds, shift=6.0)


def _transformer() -> Any:
    import torch
    from diffusers import ZImageTransformer2DModel

    network: Any = new(
        ZImageTransformer2DModel,
        in_channels=4,
        dim=64,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=HEADS,
        n_kv_heads=HEADS,
        cap_feat_dim=HIDDEN,
        axes_dims=[4, 6, 6],
        axes_lens=[1024, 64, 64],
    )
    for token in (network.x_pad_token, network.cap_pad_token):  # made as zeros, which would hide a wrong one
        torch.nn.init.normal_(token)
    return network
