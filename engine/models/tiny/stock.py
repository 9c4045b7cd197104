"""Tiny models without code of their own here, which run through stock pipelines."""

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
    image_vae,
    new,
    qwen3_sizes,
    qwen_tokenizer,
)


def ovis(seeds: Seeds) -> Any:
    """Build Ovis-Image."""
    from diffusers import FlowMatchEulerDiscreteScheduler, OvisImagePipeline, OvisImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    tokenizer = qwen_tokenizer()
    return new(
        OvisImagePipeline,
        scheduler=new(FlowMatchEulerDiscreteScheduler, shift=3.0, use_dynamic_shifting=True),
        vae=flux_vae(seeds),
        text_encoder=seeds.build(Qwen3Model, Qwen3Config(**qwen3_sizes(tokenizer))),
        tokenizer=tokenizer,
        transformer=seeds.build(
            OvisImageTransformer2DModel,
            in_channels=16,
            out_channels=16,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=HEAD_DIM,
            num_attention_heads=HEADS,
            joint_attention_dim=HIDDEN,
            axes_dims_rope=(4, 6, 6),
        ),
    )


def sdxl(seeds: Seeds) -> Any:
    """Build SDXL, which has no code of its own here and runs through the stock pipeline."""
    from diffusers import (
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )

    first, second = clip_tokenizer(), clip_tokenizer()
    return new(
        StableDiffusionXLPipeline,
        vae=image_vae(seeds, scaling_factor=0.13025, force_upcast=True),
        text_encoder=clip_encoder(seeds, first),
        text_encoder_2=clip_encoder(seeds, second, projection=True),
        tokenizer=first,
        tokenizer_2=second,
        unet=seeds.build(
            UNet2DConditionModel,
            sample_size=8,
            down_block_types=(
                "DownBlock2D",
                "CrossAttnDownBlock2D",
                "CrossAttnDownBlock2D",
            ),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(8, 16, 16),
            layers_per_block=1,
            transformer_layers_per_block=[1, 1, 2],
            attention_head_dim=[2, 4, 4],
            cross_attention_dim=2 * HIDDEN,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=HIDDEN + 6 * 8,  # pooled text and six embedded numbers
            norm_num_groups=4,
        ),
        scheduler=new(
            EulerDiscreteScheduler,
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
        add_watermarker=False,
    )
