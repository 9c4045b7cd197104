"""Tiny HunyuanVideo models."""

from __future__ import annotations

from typing import Any

from engine.models.tiny.parts import (
    HEAD_DIM,
    HEADS,
    HIDDEN,
    LLAMA_MARKS,
    Seeds,
    clip_encoder,
    clip_tokenizer,
    new,
    qwen_tokenizer,
)


def t2v(seeds: Seeds, shift: float = 7.0) -> Any:
    """Build HunyuanVideo, which FastHunyuan differs from in the shift of its schedule."""
    from diffusers import (
        AutoencoderKLHunyuanVideo,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideoPipeline,
        HunyuanVideoTransformer3DModel,
    )
    from transformers import LlamaConfig, LlamaModel

    llama, clip = qwen_tokenizer(LLAMA_MARKS), clip_tokenizer()
    sizes = LlamaConfig(
        vocab_size=len(llama),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=4,  # the third hidden state from the end is read
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=llama.eos_token_id,
        pad_token_id=llama.pad_token_id,
    )
    return new(
        HunyuanVideoPipeline,
        text_encoder=seeds.build(LlamaModel, sizes),
        tokenizer=llama,
        text_encoder_2=clip_encoder(seeds, clip),
        tokenizer_2=clip,
        vae=seeds.build(
            AutoencoderKLHunyuanVideo,
            latent_channels=4,
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            scaling_factor=0.476986,
        ),
        scheduler=new(FlowMatchEulerDiscreteScheduler, shift=shift),
        transformer=seeds.build(
            HunyuanVideoTransformer3DModel,
            in_channels=4,
            out_channels=4,
            num_attention_heads=HEADS,
            attention_head_dim=HEAD_DIM,
            num_layers=2,
            num_single_layers=2,
            num_refiner_layers=1,
            text_embed_dim=HIDDEN,
            pooled_projection_dim=HIDDEN,
            rope_axes_dim=(4, 6, 6),
        ),
    )


def fast(seeds: Seeds) -> Any:
    return t2v(seeds, shift=17.0)
