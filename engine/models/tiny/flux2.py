"""Tiny FLUX.2 models."""

from __future__ import annotations

from typing import Any

from engine.models.tiny.parts import HEAD_DIM, HEADS, HIDDEN, Seeds, image_vae, new, qwen3_sizes, qwen_tokenizer

LAYERS = 4  # of the text encoder: a quarter, a half and three quarters of them are read


def dev(seeds: Seeds) -> Any:
    """Build FLUX.2-dev, whose processor is stood in for by a tokenizer with a chat template."""
    from diffusers import Flux2Pipeline
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration, MistralConfig, PixtralVisionConfig

    tokenizer = qwen_tokenizer()
    sizes = {"hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "num_attention_heads": HEADS}
    text = MistralConfig(
        **sizes,
        vocab_size=len(tokenizer),
        num_hidden_layers=LAYERS,
        num_key_value_heads=HEADS // 2,
        head_dim=HIDDEN // HEADS,
    )
    vision = PixtralVisionConfig(**sizes, num_hidden_layers=1, image_size=32, patch_size=4)
    encoder = seeds.build(Mistral3ForConditionalGeneration, Mistral3Config(text_config=text, vision_config=vision))
    return new(Flux2Pipeline, tokenizer=tokenizer, text_encoder=encoder, **_shared(seeds, guidance_embeds=True))


def klein(seeds: Seeds, is_distilled: bool = True) -> Any:
    """Build FLUX.2-klein, or klein-base when it is not distilled."""
    from diffusers import Flux2KleinPipeline
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = qwen_tokenizer()
    encoder = seeds.build(Qwen3ForCausalLM, Qwen3Config(**qwen3_sizes(tokenizer, LAYERS)))
    parts = _shared(seeds, guidance_embeds=False)
    return new(Flux2KleinPipeline, is_distilled=is_distilled, tokenizer=tokenizer, text_encoder=encoder, **parts)


def klein_base(seeds: Seeds) -> Any:
    return klein(seeds, is_distilled=False)


def _shared(seeds: Seeds, guidance_embeds: bool) -> dict[str, Any]:
    from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel

    vae = image_vae(seeds, AutoencoderKLFlux2)
    # The statistics that put latents into the network's scale; a new module's, 0 and 1, would change nothing.
    vae.bn.running_mean.normal_(std=0.2)
    vae.bn.running_var.uniform_(0.5, 1.5)
    transformer = seeds.build(
        Flux2Transformer2DModel,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=HEAD_DIM,
        num_attention_heads=HEADS,
        joint_attention_dim=3 * HIDDEN,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )
    scheduler = new(FlowMatchEulerDiscreteScheduler, shift=3.0, use_dynamic_shifting=True)
    return {"vae": vae, "transformer": transformer, "scheduler": scheduler}
