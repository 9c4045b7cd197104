"""The models that draw clips."""

from __future__ import annotations

from typing import Any

from engine.catalog.spec import DISTILLED, IMG2IMG, MAX_CLIP, ModelSpec, clip

CLIP_USES = ("negative_prompt", "guidance_scale", "flow_shift", "num_frames", "fps")
EXPERT_USES = ("guidance_scale_2", "boundary_ratio")
WAN: dict[str, Any] = {
    "family": "wan", "frame_stride": 4, "max_pixels": MAX_CLIP, "cfg_scale": "guidance_scale",
    "limits": {"max_sequence_length": 512}, "precision": {"vae": "fp32", "image_encoder": "fp32"},
}  # fmt: skip
# The text a Wan sampler has for what to keep out: English with 2.1, Chinese with 2.2.
WAN_NEGATIVE = (
    "Bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, overall "
    "gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, poorly drawn hands, "
    "poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, messy background, three "
    "legs, many people in the background, walking backwards"
)
WAN_NEGATIVE_2 = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，"
    "残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，"
    "三条腿，背景人很多，倒着走"
)
WAN_T2V: dict[str, Any] = WAN | {
    "pipeline": "WanPipeline", "tasks": ("T2V",), "uses": (*CLIP_USES, "max_sequence_length"),
}  # fmt: skip
# The image and text parts of the attention are split at 512 text tokens, so their number is no setting.
WAN_I2V: dict[str, Any] = WAN | {
    "pipeline": "WanImageToVideoPipeline", "tasks": ("I2V",), "uses": (*CLIP_USES, "image_path"),
}  # fmt: skip
FAST_WAN: dict[str, Any] = WAN | {
    "pipeline": "WanDMDPipeline", "few_steps": True, "unread": ("to_gate_compress",),  # sparse attention's alone
    "limits": {"max_sequence_length": 512, "num_inference_steps": 3},
    "ignores": {"guidance_scale": DISTILLED, "negative_prompt": DISTILLED},
}  # fmt: skip
TWO_EXPERTS = {"transformer_2": {"_class_name": "WanTransformer3DModel"}}
HUNYUAN: dict[str, Any] = {
    "family": "hunyuan_video", "pipeline": "HunyuanVideoPipeline", "tasks": ("T2V",), "frame_stride": 4,
    "uses": (*CLIP_USES, "embedded_cfg_scale", "max_sequence_length"), "cfg_scale": "guidance_scale",
    "limits": {"max_sequence_length": 256}, "max_pixels": MAX_CLIP, "own_sigmas": True,
    "stock_names": {"embedded_cfg_scale": "guidance_scale", "guidance_scale": "true_cfg_scale"},
    "precision": {"vae": "fp16", "text_encoder": "fp16", "text_encoder_2": "fp16"},
}  # fmt: skip

MODELS: tuple[ModelSpec, ...] = (
    ModelSpec(
        **WAN_T2V | {
            "id": "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
            "names": ("Wan2.2-T2V-A14B",),
            "where": TWO_EXPERTS,
            "defaults": clip(
                720, 1280, 81, 16, 40, guidance_scale=4.0, guidance_scale_2=3.0, boundary_ratio=0.875, flow_shift=12.0,
                negative_prompt=WAN_NEGATIVE_2, max_sequence_length=512,
            ),
            "uses": (*CLIP_USES, *EXPERT_USES, "max_sequence_length"),
        }
    ),
    ModelSpec(
        **WAN_T2V | {
            "id": "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
            "names": ("Wan2.2-TI2V-5B",),
            "where": {"model_index": {"expand_timesteps": True}},
            "tasks": ("T2V", "TI2V"),
            "defaults": clip(
                704, 1280, 121, 24, 50, guidance_scale=5.0, flow_shift=5.0, negative_prompt=WAN_NEGATIVE_2,
                max_sequence_length=512,
            ),
            "uses": (*CLIP_USES, "max_sequence_length", "image_path"),
            "variants": {IMG2IMG: "WanImageToVideoPipeline"},
            "multiple": 32,
            "settings": {"expand_timesteps": True},
        }
    ),
    ModelSpec(
        id="Wan-AI/Wan2.1-T2V-14B-Diffusers",
        names=("Wan2.1-T2V-14B",),
        where={"transformer": {"num_attention_heads": 40}},
        defaults=clip(
            720, 1280, 81, 16, 50, guidance_scale=5.0, flow_shift=5.0, negative_prompt=WAN_NEGATIVE,
            max_sequence_length=512,
        ),
        small_defaults={"flow_shift": 3.0},
        **WAN_T2V,
    ),
    ModelSpec(
        **WAN_T2V | {
            "id": "tiny-motion",
            "defaults": clip(
                128, 192, 33, 16, 24, guidance_scale=3.0, flow_shift=3.0, negative_prompt="", max_sequence_length=64
            ),
            "limits": {"max_sequence_length": 64},
            "precision": {"default": "fp32"},
        }
    ),
    ModelSpec(
        id="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        names=("Wan2.1-T2V-1.3B",),
        where={},
        defaults=clip(
            480, 832, 81, 16, 50, guidance_scale=3.0, flow_shift=3.0, negative_prompt=WAN_NEGATIVE,
            max_sequence_length=512,
        ),
        **WAN_T2V,
    ),
    ModelSpec(
        **WAN_I2V | {
            "id": "Wan-AI/Wan2.2-I2V-A14B-Diffusers",
            "names": ("Wan2.2-I2V-A14B",),
            "where": TWO_EXPERTS,
            "defaults": clip(
                720, 1280, 81, 16, 40, guidance_scale=3.5, guidance_scale_2=3.5, boundary_ratio=0.9, flow_shift=5.0,
                negative_prompt=WAN_NEGATIVE_2,
            ),
            "uses": (*CLIP_USES, *EXPERT_USES, "image_path"),
        }
    ),
    ModelSpec(
        id="Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
        names=("Wan2.1-I2V-14B-720P",),
        defaults=clip(
            720, 1280, 81, 16, 50, guidance_scale=5.0, flow_shift=5.0, negative_prompt=WAN_NEGATIVE
        ),
        **WAN_I2V,
    ),
    ModelSpec(
        id="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
        names=("Wan2.1-I2V-14B-480P",),
        where={},
        defaults=clip(
            480, 832, 81, 16, 50, guidance_scale=5.0, flow_shift=3.0, negative_prompt=WAN_NEGATIVE
        ),
        **WAN_I2V,
    ),
    ModelSpec(
        **FAST_WAN | {
            "id": "FastVideo/FastWan2.2-TI2V-5B-FullAttn-Diffusers",
            "names": ("FastWan2.2-TI2V-5B-Diffusers", "FastWan2.2-TI2V-5B"),
            "where": {"vae": {"is_residual": True}},
            "tasks": ("T2V", "TI2V"),
            "defaults": clip(704, 1280, 121, 24, 3, flow_shift=5.0, max_sequence_length=512),
            "uses": (*CLIP_USES, "max_sequence_length", "image_path"),
            "multiple": 32,
            "settings": {"expand_timesteps": True},
        }
    ),
    ModelSpec(
        id="FastVideo/FastWan2.1-T2V-1.3B-Diffusers",
        names=("FastWan2.1-T2V-1.3B",),
        where={},
        tasks=("T2V",),
        defaults=clip(480, 832, 61, 16, 3, flow_shift=8.0, max_sequence_length=512),
        uses=(*CLIP_USES, "max_sequence_length"),
        **FAST_WAN,
    ),
    ModelSpec(
        id="FastVideo/FastHunyuan-diffusers",
        names=("FastHunyuan",),
        where={"scheduler": {"shift": 17.0}},
        defaults=clip(
            720, 1280, 125, 24, 6, guidance_scale=1.0, embedded_cfg_scale=6.0, flow_shift=17.0,
            max_sequence_length=256,
        ),
        few_steps=True,
        **HUNYUAN,
    ),
    ModelSpec(
        id="hunyuanvideo-community/HunyuanVideo",
        where={},
        defaults=clip(
            720, 1280, 125, 24, 50, guidance_scale=1.0, embedded_cfg_scale=6.0, flow_shift=7.0,
            max_sequence_length=256,
        ),
        **HUNYUAN,
    ),
)  # fmt: skip
