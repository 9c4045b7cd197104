"""Tiny Wan models."""

from __future__ import annotations

from typing import Any

from engine.models.tiny.parts import HEAD_DIM, HEADS, HIDDEN, Seeds, new, t5_sizes, t5_tokenizer


def t2v(seeds: Seeds) -> Any:
    """Build Wan2.1 text-to-video."""
    from diffusers import (
        AutoencoderKLWan,
        UniPCMultistepScheduler,
        WanPipeline,
        WanTransformer3DModel,
    )
    from transformers import UMT5Config, UMT5EncoderModel

    tokenizer = t5_tokenizer()
    return new(
        WanPipeline,
        tokenizer=tokenizer,
        text_encoder=seeds.build(UMT5EncoderModel, UMT5Config(**t5_sizes(tokenizer))),
        vae=seeds.build(
            AutoencoderKLWan,
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        scheduler=new(UniPCMultistepScheduler, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        transformer=seeds.build(
            WanTransformer3DModel,
            num_attention_heads=HEADS,
            attention_head_dim=HEAD_DIM,
            in_channels=4,
            out_channels=4,
            text_dim=HIDDEN,
            freq_dim=32,
            ffn_dim=64,
            num_layers=2,
            rope_max_seq_len=64,
        ),
    )
