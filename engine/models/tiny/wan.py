"""Tiny Wan models: 2.1 and 2.2, text and image to video, and FastWan."""

from __future__ import annotations

from typing import Any

from engine.models.tiny.parts import HEAD_DIM, HEADS, HIDDEN, Seeds, new, t5_sizes, t5_tokenizer


def t2v(seeds: Seeds) -> Any:
    """Build Wan2.1 text-to-video."""
    from diffusers import WanPipeline

    return new(WanPipeline, **_parts(seeds))


def t2v_experts(seeds: Seeds) -> Any:
    """Build Wan2.2 A14B text-to-video: two experts."""
    from diffusers import WanPipeline

    return new(WanPipeline, **_parts(seeds), transformer_2=_transformer(seeds), boundary_ratio=0.875)


def i2v(seeds: Seeds) -> Any:
    """Build Wan2.1 image-to-video: the network sees the image through CLIP, and in 8 channels beside its own."""
    from diffusers import WanImageToVideoPipeline
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    vision = CLIPVisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=3,
        num_attention_heads=HEADS,
        image_size=224,
        patch_size=14,
    )
    return new(
        WanImageToVideoPipeline,
        **_parts(seeds, in_channels=12, image_dim=HIDDEN, added_kv_proj_dim=HEADS * HEAD_DIM),
        image_encoder=seeds.build(CLIPVisionModel, vision),
        image_processor=CLIPImageProcessor(size={"shortest_edge": 224}, crop_size=224),
    )


def i2v_experts(seeds: Seeds) -> Any:
    """Build Wan2.2 A14B image-to-video: two experts, no image encoder."""
    from diffusers import WanImageToVideoPipeline

    parts = _parts(seeds, in_channels=12)
    return new(WanImageToVideoPipeline, **parts, transformer_2=_transformer(seeds, in_channels=12), boundary_ratio=0.9)


def ti2v(seeds: Seeds) -> Any:
    """Build Wan2.2 5B: a timestep per token, a VAE of factor 16."""
    from diffusers import WanPipeline

    return new(WanPipeline, **_parts(seeds, vae=_vae_16(seeds)), expand_timesteps=True)


def fast(seeds: Seeds) -> Any:
    """Build FastWan2.1, whose weights hold a projection per self-attention that sparse attention alone uses."""
    import torch

    pipeline = _dmd(_parts(seeds))
    width = HEADS * HEAD_DIM
    for block in pipeline.transformer.blocks:
        block.attn1.to_gate_compress = seeds.build(torch.nn.Linear, width, width)
    return pipeline


def fast_ti2v(seeds: Seeds) -> Any:
    """Build FastWan2.2 5B."""
    return _dmd(_parts(seeds, vae=_vae_16(seeds)) | {"expand_timesteps": True})


def _dmd(parts: dict[str, Any]) -> Any:
    """Build a pipeline that is saved under the name that FastWan's folders give, which diffusers does not know."""
    from diffusers import WanPipeline

    return new(type("WanDMDPipeline", (WanPipeline,), {}), **parts)


def _parts(seeds: Seeds, vae: Any = None, **transformer: Any) -> dict[str, Any]:
    from diffusers import UniPCMultistepScheduler
    from transformers import UMT5Config, UMT5EncoderModel

    tokenizer = t5_tokenizer()
    return {
        "tokenizer": tokenizer,
        "text_encoder": seeds.build(UMT5EncoderModel, UMT5Config(**t5_sizes(tokenizer))),
        "vae": vae or _vae(seeds),
        "scheduler": new(
            UniPCMultistepScheduler, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        "transformer": _transformer(seeds, **transformer),
    }


def _transformer(seeds: Seeds, **config: Any) -> Any:
    from diffusers import WanTransformer3DModel

    sizes = {
        "num_attention_heads": HEADS,
        "attention_head_dim": HEAD_DIM,
        "in_channels": 4,
        "out_channels": 4,
        "text_dim": HIDDEN,
        "freq_dim": 32,
        "ffn_dim": 64,
        "num_layers": 2,
        "rope_max_seq_len": 64,
    }
    return seeds.build(WanTransformer3DModel, **sizes | config)


def _vae(seeds: Seeds, **config: Any) -> Any:
    from diffusers import AutoencoderKLWan

    return seeds.build(
        AutoencoderKLWan,
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.2, 0.0, 0.3],
        latents_std=[1.2, 0.9, 1.5, 0.7],
        **config,
    )


def _vae_16(seeds: Seeds) -> Any:
    return _vae(
        seeds, decoder_base_dim=8, is_residual=True, in_channels=12, out_channels=12, patch_size=2,
        scale_factor_spatial=16,
    )  # fmt: skip
