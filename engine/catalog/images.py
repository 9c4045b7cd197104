"""The models that draw pictures."""

from __future__ import annotations

from typing import Any

from engine.catalog.spec import DISTILLED, IMAGE_INPUT, IMG2IMG, NO_EMBEDDING, ModelSpec, edits, size

FLUX: dict[str, Any] = {
    "family": "flux", "own_sigmas": True, "pipeline": "FluxPipeline", "tasks": ("T2I",), **edits("Flux"),
    "uses": ("negative_prompt", "true_cfg_scale", "guidance_scale", "max_sequence_length", *IMAGE_INPUT),
    "limits": {"max_sequence_length": 512}, "cfg_scale": "true_cfg_scale",
}  # fmt: skip
FLUX2: dict[str, Any] = {
    "family": "flux2", "tasks": ("T2I", "TI2I"), "max_images": 10, "min_image_side": 64, "max_image_ratio": 8.0,
    "enlarges": False, "own_sigmas": True,
}  # fmt: skip
KLEIN: dict[str, Any] = FLUX2 | {
    "pipeline": "Flux2KleinPipeline", "cfg_scale": "guidance_scale", "limits": {"max_sequence_length": 512},
    "uses": ("guidance_scale", "negative_prompt", "max_sequence_length", "image_path"),
}  # fmt: skip
KLEIN_DISTILLED: dict[str, Any] = KLEIN | {
    "ignores": {"guidance_scale": DISTILLED, "negative_prompt": DISTILLED}, "few_steps": True,
    "defaults": size(1024, 1024, 4, guidance_scale=1.0, max_sequence_length=512),
}  # fmt: skip
KLEIN_BASE: dict[str, Any] = KLEIN | {
    "ignores": {"negative_prompt": "its unconditional branch takes no text"},
    "defaults": size(1024, 1024, 50, guidance_scale=4.0, max_sequence_length=512),
}  # fmt: skip
Z_IMAGE: dict[str, Any] = {
    "family": "z_image", "own_sigmas": True, "pipeline": "ZImagePipeline", "tasks": ("T2I",), **edits("ZImage"),
    "uses": (
        "negative_prompt", "guidance_scale", "cfg_normalization", "flow_shift", "max_sequence_length", *IMAGE_INPUT,
    ),
    "cfg_scale": "guidance_scale", "cfg_above": 0.0,
    # Its table of positions has 1024 rows for text, in blocks of 32 and followed by the picture's, and 512 per side.
    "limits": {"max_sequence_length": 992, "height": 8192, "width": 8192},
}  # fmt: skip
QWEN: dict[str, Any] = {
    "family": "qwen_image", "cfg_scale": "true_cfg_scale", "ignores": {"guidance_scale": NO_EMBEDDING},
    "limits": {"max_sequence_length": 1024}, "own_sigmas": True,
}  # fmt: skip
QWEN_USES = ("negative_prompt", "true_cfg_scale", "guidance_scale", "max_sequence_length")
QWEN_T2I: dict[str, Any] = QWEN | {
    "pipeline": "QwenImagePipeline", "tasks": ("T2I",), "uses": (*QWEN_USES, *IMAGE_INPUT), **edits("QwenImage"),
}  # fmt: skip
QWEN_EDIT: dict[str, Any] = QWEN | {
    "family": "qwen_image_edit", "tasks": ("I2I",), "uses": (*QWEN_USES, "image_path"),
    "classes": {"processor": "Qwen2VLImageProcessorPil"},  # the other half, for videos, needs torchvision
    "shape_multiple": 32, "max_image_ratio": 100.0, "reserved": ("<|image_pad|>",),
}  # fmt: skip
QWEN_EDIT_PLUS: dict[str, Any] = QWEN_EDIT | {
    "pipeline": "QwenImageEditPlusPipeline", "max_images": 3, "shaped_by": -1,
    "defaults": size(1024, 1024, 40, negative_prompt=" ", true_cfg_scale=4.0, max_sequence_length=512),
}  # fmt: skip
QWEN_2512_NEGATIVE = (
    "低分辨率，低画质，肢体畸形，手指畸形，画面过饱和，蜡像感，人脸无细节，过度光滑，画面具有AI感。"
    "构图混乱。文字模糊，扭曲。"
)  # fmt: skip

MODELS: tuple[ModelSpec, ...] = (
    ModelSpec(
        **FLUX | {
            "id": "tiny-scenes",
            "defaults": size(
                256, 256, 20, negative_prompt="", true_cfg_scale=4.0, guidance_scale=1.0, strength=0.6,
                max_sequence_length=64,
            ),
            "limits": {"max_sequence_length": 64},
            "ignores": {"guidance_scale": f"{NO_EMBEDDING}; use true_cfg_scale"},
            "max_pixels": 1024 * 1024,
            "precision": {"default": "fp32"},
        }
    ),
    ModelSpec(
        id="black-forest-labs/FLUX.1-dev",
        where={"transformer": {"guidance_embeds": True}},
        defaults=size(
            1024, 1024, 50, guidance_scale=3.5, true_cfg_scale=1.0, strength=0.6, max_sequence_length=512
        ),
        **FLUX,
    ),
    ModelSpec(
        id="black-forest-labs/FLUX.1-schnell",
        where={"transformer": {"guidance_embeds": False}},
        defaults=size(
            1024, 1024, 4, guidance_scale=0.0, true_cfg_scale=1.0, strength=0.6, max_sequence_length=256
        ),
        ignores={"guidance_scale": NO_EMBEDDING},
        few_steps=True,
        **FLUX,
    ),
    ModelSpec(
        id="black-forest-labs/FLUX.2-dev",
        pipeline="Flux2Pipeline",
        where={},
        defaults=size(1024, 1024, 50, guidance_scale=4.0, max_sequence_length=512),
        uses=("guidance_scale", "max_sequence_length", "image_path"),
        limits={"max_sequence_length": 512},
        classes={"tokenizer": "AutoTokenizer"},  # of its PixtralProcessor, which needs torchvision, text needs no more
        **FLUX2,
    ),
    ModelSpec(
        id="black-forest-labs/FLUX.2-klein-9B",
        where={"model_index": {"is_distilled": True}, "transformer": {"num_attention_heads": 32}},
        **KLEIN_DISTILLED,
    ),
    ModelSpec(
        id="black-forest-labs/FLUX.2-klein-4B", where={"model_index": {"is_distilled": True}}, **KLEIN_DISTILLED
    ),
    ModelSpec(
        id="black-forest-labs/FLUX.2-klein-base-9B",
        where={"transformer": {"num_attention_heads": 32}},
        **KLEIN_BASE,
    ),
    ModelSpec(id="black-forest-labs/FLUX.2-klein-base-4B", where={}, **KLEIN_BASE),
    ModelSpec(
        id="Tongyi-MAI/Z-Image",
        where={"scheduler": {"shift": 6.0}},
        defaults=size(
            1024, 1024, 50, guidance_scale=5.0, cfg_normalization=0.0, flow_shift=6.0, strength=0.6,
            max_sequence_length=512,
        ),
        **Z_IMAGE,
    ),
    ModelSpec(
        id="Tongyi-MAI/Z-Image-Turbo",
        where={},
        defaults=size(
            1024, 1024, 9, guidance_scale=0.0, cfg_normalization=0.0, flow_shift=3.0, strength=0.6,
            max_sequence_length=512,
        ),
        few_steps=True,
        **Z_IMAGE,
    ),
    ModelSpec(
        id="zai-org/GLM-Image",
        family="glm_image",
        pipeline="GlmImagePipeline",
        tasks=("T2I", "TI2I"),
        where={},
        defaults=size(1024, 1024, 30, guidance_scale=1.5, max_sequence_length=2048),
        uses=("guidance_scale", "negative_prompt", "max_sequence_length", "image_path"),
        ignores={"negative_prompt": "its unconditional branch takes no text"},
        limits={"max_sequence_length": 2048},
        cfg_scale="guidance_scale",
        max_images=4,
        min_image_side=16,
        max_image_ratio=4.0,
        reserved=("<|image|>",),
        multiple=32,
        own_sigmas=True,
        native_only={"image_path": "diffusers cannot read its images with this version of transformers"},
    ),
    ModelSpec(
        id="Qwen/Qwen-Image",
        where={},
        defaults=size(
            1024, 1024, 50, negative_prompt=" ", true_cfg_scale=4.0, strength=0.6, max_sequence_length=512
        ),
        **QWEN_T2I,
    ),
    ModelSpec(
        id="Qwen/Qwen-Image-2512",
        defaults=size(
            1024, 1024, 50, negative_prompt=QWEN_2512_NEGATIVE, true_cfg_scale=4.0, strength=0.6,
            max_sequence_length=512,
        ),
        **QWEN_T2I,
    ),
    ModelSpec(
        id="Qwen/Qwen-Image-Edit",
        pipeline="QwenImageEditPipeline",
        where={},
        defaults=size(1024, 1024, 50, negative_prompt=" ", true_cfg_scale=4.0, max_sequence_length=512),
        **QWEN_EDIT,
    ),
    ModelSpec(
        id="Qwen/Qwen-Image-Edit-2511", where={"transformer": {"zero_cond_t": True}}, **QWEN_EDIT_PLUS
    ),
    ModelSpec(id="Qwen/Qwen-Image-Edit-2509", where={}, **QWEN_EDIT_PLUS),
    ModelSpec(
        id="stabilityai/stable-diffusion-3.5-large",
        family="sd3",
        pipeline="StableDiffusion3Pipeline",
        tasks=("T2I",),
        features=(IMG2IMG,),
        variants={IMG2IMG: "StableDiffusion3Img2ImgPipeline"},
        where={},
        defaults=size(1024, 1024, 28, guidance_scale=3.5, strength=0.6, max_sequence_length=256),
        uses=("guidance_scale", "negative_prompt", "max_sequence_length", "image_path", "strength"),
        limits={"max_sequence_length": 512, "height": 3072, "width": 3072},  # its positions: 192 patches a side
        cfg_scale="guidance_scale",
        max_pixels=1536 * 1536,
    ),
    # These two have no code of their own: the stock pipeline draws them.
    ModelSpec(
        id="AIDC-AI/Ovis-Image-7B",
        family="passthrough",
        pipeline="OvisImagePipeline",
        tasks=("T2I",),
        where={},
        defaults=size(1024, 1024, 50, guidance_scale=5.0, max_sequence_length=256),
        own_sigmas=True,
    ),
    ModelSpec(
        id="stabilityai/stable-diffusion-xl-base-1.0",
        family="passthrough",
        pipeline="StableDiffusionXLPipeline",
        tasks=("T2I",),
        where={},
        **edits("StableDiffusionXL"),
        defaults=size(1024, 1024, 50, guidance_scale=7.5, strength=0.6),
        precision={"default": "fp16", "vae": "fp32"},  # its VAE overflows in fp16
    ),
)  # fmt: skip
