"""Tiny Qwen-Image models: text to image, and the editors."""

from __future__ import annotations

from typing import Any

from engine.models.tiny.parts import HEAD_DIM, HEADS, HIDDEN, Seeds, new, qwen_tokenizer

CHANNELS = 4


def t2i(seeds: Seeds) -> Any:
    """Build Qwen-Image."""
    from diffusers import QwenImagePipeline

    tokenizer = qwen_tokenizer()
    return new(QwenImagePipeline, tokenizer=tokenizer, **_shared(seeds, tokenizer))


def edit(seeds: Seeds) -> Any:
    """Build Qwen-Image-Edit."""
    from diffusers import QwenImageEditPipeline

    tokenizer = qwen_tokenizer()
    return new(QwenImageEditPipeline, tokenizer=tokenizer, processor=processor(tokenizer), **_shared(seeds, tokenizer))


def edit_2509(seeds: Seeds, zero_cond_t: bool = False) -> Any:
    """Build Qwen-Image-Edit-2509, or 2511 when input images are modulated at time zero."""
    from diffusers import QwenImageEditPlusPipeline

    tokenizer = qwen_tokenizer()
    parts = _shared(seeds, tokenizer, zero_cond_t=zero_cond_t)
    return new(QwenImageEditPlusPipeline, tokenizer=tokenizer, processor=processor(tokenizer), **parts)


def edit_2511(seeds: Seeds) -> Any:
    return edit_2509(seeds, zero_cond_t=True)


def _shared(seeds: Seeds, tokenizer: Any, **config: Any) -> dict[str, Any]:
    from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLForConditionalGeneration

    return {
        "scheduler": new(
            FlowMatchEulerDiscreteScheduler,
            use_dynamic_shifting=True,
            base_shift=0.5,
            max_shift=0.9,
            max_image_seq_len=8192,
            shift_terminal=0.02,
            time_shift_type="exponential",
        ),
        "text_encoder": seeds.build(Qwen2_5_VLForConditionalGeneration, _encoder_config(tokenizer)),
        "vae": seeds.build(
            AutoencoderKLQwenImage,
            base_dim=8,
            z_dim=CHANNELS,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=[-0.5, 0.25, 0.0, 0.125],
            latents_std=[2.0, 1.0, 0.5, 4.0],
        ),
        "transformer": seeds.build(
            QwenImageTransformer2DModel,
            in_channels=4 * CHANNELS,
            out_channels=CHANNELS,
            num_layers=2,
            attention_head_dim=HEAD_DIM,
            num_attention_heads=HEADS,
            joint_attention_dim=HIDDEN,
            axes_dims_rope=(4, 6, 6),
            **config,
        ),
    }


def _encoder_config(tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLConfig

    sizes = {"hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN}
    marks = {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    marks |= {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    return Qwen2_5_VLConfig(
        text_config={
            **sizes,
            "vocab_size": len(tokenizer),
            "num_hidden_layers": 2,
            "num_attention_heads": HEADS,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            # Sections of time, height and width; their sum is half a head.
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6},
        },
        vision_config={
            **sizes,
            "depth": 2,
            "num_heads": HEADS,
            "out_hidden_size": HIDDEN,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        **{f"{name}_token_id": tokenizer.convert_tokens_to_ids(mark) for name, mark in marks.items()},
    )


def processor(tokenizer: Any) -> Any:
    """Return the processor of the editors without its video half, which needs torchvision."""
    from transformers import ProcessorMixin, Qwen2VLImageProcessorPil, Qwen2VLProcessor

    def init(self: Any, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
        self.image_token = "<|image_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    # Of the same name and module, so that a model index names the class that a published one names.
    cls = type(Qwen2VLProcessor.__name__, (Qwen2VLProcessor,), {"__init__": init, "__module__": "transformers"})
    sizes = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
    images = Qwen2VLImageProcessorPil(size=sizes, patch_size=14, merge_size=2)
    return cls(images, tokenizer)
