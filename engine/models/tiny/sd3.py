"""A tiny Stable Diffusion 3.5."""

from __future__ import annotations

from typing import Any

from engine.models.tiny.parts import (
    HEAD_DIM,
    HEADS,
    HIDDEN,
    Seeds,
    clip_encoder,
    clip_tokenizer,
    image_vae,
    new,
    t5_sizes,
    t5_tokenizer,
)


def large(seeds: Seeds) -> Any:
    """Build Stable Diffusion 3.5 large."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import T5Config, T5EncoderModel

    clip, t5 = clip_tokenizer(), t5_tokenizer()
    return new(
        StableDiffusion3Pipeline,
        scheduler=new(FlowMatchEulerDiscreteScheduler, shift=3.0),
        vae=image_vae(seeds, use_quant_conv=False, use_post_quant_conv=False, scaling_factor=1.5305, shift_factor=0.06),
        text_encoder=clip_encoder(seeds, clip, projection=True),
        tokenizer=clip,
        text_encoder_2=clip_encoder(seeds, clip, projection=True),
        tokenizer_2=clip,
        text_encoder_3=seeds.build(T5EncoderModel, T5Config(**{**t5_sizes(t5), "d_model": 2 * HIDDEN})),
        tokenizer_3=t5,
        transformer=seeds.build(
            SD3Transformer2DModel,
            sample_size=32,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=HEAD_DIM,
            num_attention_heads=HEADS,
            joint_attention_dim=2 * HIDDEN,
            caption_projection_dim=HEADS * HEAD_DIM,
            pooled_projection_dim=2 * HIDDEN,
            pos_embed_max_size=24,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ),
    )
