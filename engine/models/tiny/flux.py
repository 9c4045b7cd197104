"""Tiny FLUX.1 models."""

from __future__ import annotations

from typing import Any

from engine.models.tiny.parts import (
    HEAD_DIM,
    HEADS,
    HIDDEN,
    Seeds,
    clip_encoder,
    clip_tokenizer,
    flux_vae,
    new,
    t5_sizes,
    t5_tokenizer,
)


def dev(seeds: Seeds, guidance_embeds: bool = True) -> Any:
    """Build FLUX.1-dev, or schnell when it has no guidance embedding."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        FluxPipeline,
        FluxTransformer2DModel,
    )
    from transformers import T5Config, T5EncoderModel

    dynamic = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    return new(
        FluxPipeline,
        scheduler=new(
            FlowMatchEulerDiscreteScheduler,
            shift=3.0 if guidance_embeds else 1.0,
            **(dynamic if guidance_embeds else {}),
        ),
        vae=flux_vae(seeds),
        text_encoder=clip_encoder(seeds, clip),
        tokenizer=clip,
        text_encoder_2=seeds.build(T5EncoderModel, T5Config(**t5_sizes(t5))),
        tokenizer_2=t5,
        transformer=seeds.build(
            FluxTransformer2DModel,
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=HEAD_DIM,
            num_attention_heads=HEADS,
            joint_attention_dim=HIDDEN,
            pooled_projection_dim=HIDDEN,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(4, 6, 6),
        ),
    )


def schnell(seeds: Seeds) -> Any:
    return dev(seeds, guidance_embeds=False)
