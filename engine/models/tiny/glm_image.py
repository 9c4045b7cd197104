"""A tiny GLM-Image."""

from __future__ import annotations

from typing import Any

from engine.models.tiny.parts import HEAD_DIM, HEADS, HIDDEN, Seeds, image_vae, new, qwen_tokenizer, t5_sizes

CODES = 128  # image tokens; below every other token of the prior, so that no sampled one ends the picture early
IMAGE, IMAGE_START, IMAGE_END = "<|image|>", "<|img_bos|>", "<|img_eos|>"
GRID_START, GRID_END = "<sop>", "<eop>"
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}" + IMAGE_START + IMAGE + IMAGE_END + "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


def glm_image(seeds: Seeds) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, GlmImagePipeline, GlmImageTransformer2DModel
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

    glyphs, prompts = ByT5Tokenizer(), processor()
    return new(
        GlmImagePipeline,
        tokenizer=glyphs,
        processor=prompts,
        text_encoder=seeds.build(T5EncoderModel, T5Config(**t5_sizes(glyphs))),
        vision_language_encoder=_prior(seeds, prompts),
        vae=image_vae(
            seeds,
            use_quant_conv=False,
            use_post_quant_conv=False,
            latents_mean=[0.1, -0.1, 0.2, 0.0],
            latents_std=[1.0, 0.9, 1.1, 1.2],
        ),
        transformer=seeds.build(
            GlmImageTransformer2DModel,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=HEAD_DIM,
            num_attention_heads=HEADS,
            text_embed_dim=HIDDEN,
            time_embed_dim=HIDDEN,
            condition_dim=16,
            prior_vq_quantizer_codebook_size=CODES,
        ),
        scheduler=new(
            FlowMatchEulerDiscreteScheduler,
            use_dynamic_shifting=True,
            base_shift=0.25,
            max_shift=0.75,
            time_shift_type="linear",
        ),
    )


def processor(longest_edge: int = 64 * 64) -> Any:
    """Return a processor with a small vocabulary; `longest_edge` is the largest area of an input image, in pixels."""
    from transformers import GlmImageImageProcessor, GlmImageProcessor

    tokenizer = qwen_tokenizer(
        marks=(IMAGE_END,),
        bos_token=IMAGE_START,
        padding_side="left",
        extra_special_tokens={"image_token": IMAGE, "grid_bos_token": GRID_START, "grid_eos_token": GRID_END},
    )
    images: Any = new(
        GlmImageImageProcessor,
        size={"shortest_edge": 32 * 32, "longest_edge": longest_edge},
        patch_size=16,
        merge_size=1,
        temporal_patch_size=1,
    )
    return GlmImageProcessor(images, tokenizer, chat_template=TEMPLATE)


def _prior(seeds: Seeds, processor: Any) -> Any:
    """Return the autoregressive model; its grid is half as fine as the denoiser's, so its patches are the real 16."""
    from transformers import GlmImageConfig, GlmImageForConditionalGeneration

    tokenizer = processor.tokenizer
    start, end = (tokenizer.convert_tokens_to_ids(mark) for mark in (IMAGE_START, IMAGE_END))
    config = GlmImageConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_hidden_layers": 1,  # a picture from text alone takes some 260 passes
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS // 2,
            "max_position_embeddings": 2048,
            "vision_vocab_size": CODES,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": end,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
        },
        vision_config={
            "depth": 2,
            "hidden_size": HIDDEN,
            "num_heads": HEADS,
            "image_size": 64,
            "patch_size": 16,
            "intermediate_size": 2 * HIDDEN,
        },
        vq_config={"embed_dim": HIDDEN, "num_embeddings": CODES, "latent_channels": HIDDEN},
        image_token_id=processor.image_token_id,
        image_start_token_id=start,
        image_end_token_id=end,
    )
    return seeds.build(GlmImageForConditionalGeneration, config)
