"""Every known model as data, and which of them a name or a model folder means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.errors import UsageError, listed, suggest
from engine.types import Request, Task

IMG2IMG, INPAINT = "img2img", "inpaint"
SMALL_AREA = 832 * 480
MAX_CLIP = 1920 * 1088 * 257  # pixels of all frames


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What must be known of a model before its weights are: identity, tasks, defaults, limits.

    `uses` lists the optional request fields that the model reads, `ignores` those that it accepts without effect, for
    the reason given, `limits` upper bounds of fields. `where` says which folders of its pipeline class are the model,
    by values in the configs of components (and of "model_index"): {} means all that no entry above took, None that
    only a name tells. `cfg_scale` names the field that scales classifier-free guidance, which is on above `cfg_above`.
    """

    id: str
    family: str  # a module of engine.models
    pipeline: str
    tasks: tuple[Task, ...]
    names: tuple[str, ...] = ()
    where: Mapping[str, Mapping[str, Any]] | None = None
    features: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    small_defaults: Mapping[str, Any] = field(default_factory=dict)  # instead, for outputs of at most SMALL_AREA
    uses: tuple[str, ...] = ()
    ignores: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()  # what diffusers_kwargs may hold; empty for a native pipeline
    variants: Mapping[str, str] = field(default_factory=dict)  # feature -> stock pipeline class that has it
    variant_arguments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # feature -> `arguments` of it
    stock_names: Mapping[str, str] = field(default_factory=dict)  # field -> argument of the stock call, unless obvious
    autocast: bool = False  # a stock call over components of several precisions, which must be cast between them
    cfg_scale: str | None = None
    cfg_above: float = 1.0
    max_images: int = 1
    min_image_side: int = 1  # of an input image, in pixels
    max_image_ratio: float = math.inf  # of an input image's sides
    enlarges: bool = True  # an output shaped by a small image has the default area all the same
    shaped_by: int = 0  # which input image gives an output without a size its shape: the first, or -1 the last
    shape_multiple: int | None = None  # sides that an image gives: the nearest; None: the last below of `multiple`
    reserved: tuple[str, ...] = ()  # words that no prompt may hold, for they stand for something else
    multiple: int = 16
    frame_stride: int = 1
    few_steps: bool = False
    max_pixels: int = 4096 * 4096
    precision: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)  # of components, before those that a folder names
    unread: tuple[str, ...] = ()  # patterns of weights for which the denoiser's class has no place
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the pipeline; the folder's model_index.json wins

    def feature_of(self, request: Request) -> str | None:
        """Return which of the stock pipeline's `variants` draws a request; None for the pipeline itself."""
        wanted = INPAINT if request.mask_path else IMG2IMG if request.image_path else None
        return wanted if wanted in self.variants else None

    @property
    def is_video(self) -> bool:
        return any(task.endswith("V") for task in self.tasks)

    def default_precision(self, component: str) -> str:
        """Precision of a component when the user names none."""
        return self.precision.get(component, self.precision.get("default", "bf16"))


def _size(height: int, width: int, steps: int, **more: Any) -> dict[str, Any]:
    return {"height": height, "width": width, "num_inference_steps": steps, **more}


def _clip(height: int, width: int, frames: int, fps: int, steps: int, **more: Any) -> dict[str, Any]:
    return _size(height, width, steps, num_frames=frames, fps=fps, **more)


DISTILLED = "guidance is distilled into it"
NO_EMBEDDING = "it has no guidance embedding"
IMAGE_INPUT = ("image_path", "mask_path", "strength")
IMAGE_FEATURES = (IMG2IMG, INPAINT)


def _edits(name: str) -> dict[str, Any]:
    """Return the stock pipelines by whose name diffusers edits pictures."""
    return {"features": IMAGE_FEATURES, "variants": {key: f"{name}{key.title()}Pipeline" for key in IMAGE_FEATURES}}


FLUX: dict[str, Any] = {
    "family": "flux", "pipeline": "FluxPipeline", "tasks": ("T2I",), **_edits("Flux"),
    "uses": ("negative_prompt", "true_cfg_scale", "guidance_scale", "max_sequence_length", *IMAGE_INPUT),
    "limits": {"max_sequence_length": 512}, "cfg_scale": "true_cfg_scale",
}  # fmt: skip
FLUX2: dict[str, Any] = {
    "family": "flux2", "tasks": ("T2I", "TI2I"), "max_images": 10, "min_image_side": 64, "max_image_ratio": 8.0,
    "enlarges": False,
}  # fmt: skip
KLEIN: dict[str, Any] = FLUX2 | {
    "pipeline": "Flux2KleinPipeline", "cfg_scale": "guidance_scale", "limits": {"max_sequence_length": 512},
    "uses": ("guidance_scale", "negative_prompt", "max_sequence_length", "image_path"),
}  # fmt: skip
KLEIN_DISTILLED: dict[str, Any] = KLEIN | {
    "ignores": {"guidance_scale": DISTILLED, "negative_prompt": DISTILLED}, "few_steps": True,
    "defaults": _size(1024, 1024, 4, guidance_scale=1.0, max_sequence_length=512),
}  # fmt: skip
KLEIN_BASE: dict[str, Any] = KLEIN | {
    "ignores": {"negative_prompt": "its unconditional branch takes no text"},
    "defaults": _size(1024, 1024, 50, guidance_scale=4.0, max_sequence_length=512),
}  # fmt: skip
Z_IMAGE: dict[str, Any] = {
    "family": "z_image", "pipeline": "ZImagePipeline", "tasks": ("T2I",), **_edits("ZImage"),
    "uses": (
        "negative_prompt", "guidance_scale", "cfg_normalization", "flow_shift", "max_sequence_length", *IMAGE_INPUT,
    ),
    "cfg_scale": "guidance_scale", "cfg_above": 0.0,
    # Its table of positions has 1024 rows for text, in blocks of 32 and followed by the picture's, and 512 per side.
    "limits": {"max_sequence_length": 992, "height": 8192, "width": 8192},
}  # fmt: skip
QWEN: dict[str, Any] = {
    "family": "qwen_image", "cfg_scale": "true_cfg_scale", "ignores": {"guidance_scale": NO_EMBEDDING},
    "limits": {"max_sequence_length": 1024},
}  # fmt: skip
QWEN_USES = ("negative_prompt", "true_cfg_scale", "guidance_scale", "max_sequence_length")
QWEN_T2I: dict[str, Any] = QWEN | {
    "pipeline": "QwenImagePipeline", "tasks": ("T2I",), "uses": (*QWEN_USES, *IMAGE_INPUT), **_edits("QwenImage"),
}  # fmt: skip
QWEN_EDIT: dict[str, Any] = QWEN | {
    "family": "qwen_image_edit", "tasks": ("I2I",), "uses": (*QWEN_USES, "image_path"),
    "classes": {"processor": "Qwen2VLImageProcessorPil"},  # the other half, for videos, needs torchvision
    "shape_multiple": 32, "max_image_ratio": 100.0, "reserved": ("<|image_pad|>",),
}  # fmt: skip
QWEN_EDIT_PLUS: dict[str, Any] = QWEN_EDIT | {
    "pipeline": "QwenImageEditPlusPipeline", "max_images": 3, "shaped_by": -1,
    "defaults": _size(1024, 1024, 40, negative_prompt=" ", true_cfg_scale=4.0, max_sequence_length=512),
}  # fmt: skip
QWEN_2512_NEGATIVE = (
    "低分辨率，低画质，肢体畸形，手指畸形，画面过饱和，蜡像感，人脸无细节，过度光滑，画面具有AI感。"
    "构图混乱。文字模糊，扭曲。"
)  # fmt: skip
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
    "limits": {"max_sequence_length": 256}, "max_pixels": MAX_CLIP,
    "stock_names": {"embedded_cfg_scale": "guidance_scale", "guidance_scale": "true_cfg_scale"},
    "precision": {"vae": "fp16", "text_encoder": "fp16", "text_encoder_2": "fp16"},
}  # fmt: skip

# Of the entries of one pipeline class, the first whose `where` fits a folder wins.
MODELS: tuple[ModelSpec, ...] = (
    ModelSpec(
        **FLUX | {
            "id": "tiny-scenes",
            "defaults": _size(
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
        defaults=_size(
            1024, 1024, 50, guidance_scale=3.5, true_cfg_scale=1.0, strength=0.6, max_sequence_length=512
        ),
        **FLUX,
    ),
    ModelSpec(
        id="black-forest-labs/FLUX.1-schnell",
        where={"transformer": {"guidance_embeds": False}},
        defaults=_size(
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
        defaults=_size(1024, 1024, 50, guidance_scale=4.0, max_sequence_length=512),
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
        defaults=_size(
            1024, 1024, 50, guidance_scale=5.0, cfg_normalization=0.0, flow_shift=6.0, strength=0.6,
            max_sequence_length=512,
        ),
        **Z_IMAGE,
    ),
    ModelSpec(
        id="Tongyi-MAI/Z-Image-Turbo",
        where={},
        defaults=_size(
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
        defaults=_size(1024, 1024, 30, guidance_scale=1.5, max_sequence_length=2048),
        uses=("guidance_scale", "negative_prompt", "max_sequence_length", "image_path"),
        ignores={"negative_prompt": "its unconditional branch takes no text"},
        limits={"max_sequence_length": 2048},
        cfg_scale="guidance_scale",
        max_images=4,
        min_image_side=16,
        max_image_ratio=4.0,
        reserved=("<|image|>",),
        multiple=32,
    ),
    ModelSpec(
        id="Qwen/Qwen-Image",
        where={},
        defaults=_size(
            1024, 1024, 50, negative_prompt=" ", true_cfg_scale=4.0, strength=0.6, max_sequence_length=512
        ),
        **QWEN_T2I,
    ),
    ModelSpec(
        id="Qwen/Qwen-Image-2512",
        defaults=_size(
            1024, 1024, 50, negative_prompt=QWEN_2512_NEGATIVE, true_cfg_scale=4.0, strength=0.6,
            max_sequence_length=512,
        ),
        **QWEN_T2I,
    ),
    ModelSpec(
        id="Qwen/Qwen-Image-Edit",
        pipeline="QwenImageEditPipeline",
        where={},
        defaults=_size(1024, 1024, 50, negative_prompt=" ", true_cfg_scale=4.0, max_sequence_length=512),
        **QWEN_EDIT,
    ),
    ModelSpec(
        id="Qwen/Qwen-Image-Edit-2511", where={"transformer": {"zero_cond_t": True}}, **QWEN_EDIT_PLUS
    ),
    ModelSpec(id="Qwen/Qwen-Image-Edit-2509", where={}, **QWEN_EDIT_PLUS),
    ModelSpec(
        **WAN_T2V | {
            "id": "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
            "names": ("Wan2.2-T2V-A14B",),
            "where": TWO_EXPERTS,
            "defaults": _clip(
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
            "defaults": _clip(
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
        defaults=_clip(
            720, 1280, 81, 16, 50, guidance_scale=5.0, flow_shift=5.0, negative_prompt=WAN_NEGATIVE,
            max_sequence_length=512,
        ),
        small_defaults={"flow_shift": 3.0},
        **WAN_T2V,
    ),
    ModelSpec(
        id="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        names=("Wan2.1-T2V-1.3B",),
        where={},
        defaults=_clip(
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
            "defaults": _clip(
                720, 1280, 81, 16, 40, guidance_scale=3.5, guidance_scale_2=3.5, boundary_ratio=0.9, flow_shift=5.0,
                negative_prompt=WAN_NEGATIVE_2,
            ),
            "uses": (*CLIP_USES, *EXPERT_USES, "image_path"),
        }
    ),
    ModelSpec(
        id="Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
        names=("Wan2.1-I2V-14B-720P",),
        defaults=_clip(
            720, 1280, 81, 16, 50, guidance_scale=5.0, flow_shift=5.0, negative_prompt=WAN_NEGATIVE
        ),
        **WAN_I2V,
    ),
    ModelSpec(
        id="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
        names=("Wan2.1-I2V-14B-480P",),
        where={},
        defaults=_clip(
            480, 832, 81, 16, 50, guidance_scale=5.0, flow_shift=3.0, negative_prompt=WAN_NEGATIVE
        ),
        **WAN_I2V,
    ),
    ModelSpec(
        **FAST_WAN | {
            "id": "FastVideo/FastWan2.2-TI2V-5B-FullAttn-Diffusers",
            "names": ("FastWan2.2-TI2V-5B-Diffusers", "FastWan2.2-TI2V-5B"),
            "where": {"transformer": {"in_channels": 48}},
            "tasks": ("T2V", "TI2V"),
            "defaults": _clip(704, 1280, 121, 24, 3, flow_shift=5.0, max_sequence_length=512),
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
        defaults=_clip(480, 832, 61, 16, 3, flow_shift=8.0, max_sequence_length=512),
        uses=(*CLIP_USES, "max_sequence_length"),
        **FAST_WAN,
    ),
    ModelSpec(
        id="FastVideo/FastHunyuan-diffusers",
        names=("FastHunyuan",),
        where={"scheduler": {"shift": 17.0}},
        defaults=_clip(
            720, 1280, 125, 24, 6, guidance_scale=1.0, embedded_cfg_scale=6.0, flow_shift=17.0,
            max_sequence_length=256,
        ),
        few_steps=True,
        **HUNYUAN,
    ),
    ModelSpec(
        id="hunyuanvideo-community/HunyuanVideo",
        where={},
        defaults=_clip(
            720, 1280, 125, 24, 50, guidance_scale=1.0, embedded_cfg_scale=6.0, flow_shift=7.0,
            max_sequence_length=256,
        ),
        **HUNYUAN,
    ),
    ModelSpec(
        id="stabilityai/stable-diffusion-3.5-large",
        family="sd3",
        pipeline="StableDiffusion3Pipeline",
        tasks=("T2I",),
        features=(IMG2IMG,),
        where={},
        defaults=_size(1024, 1024, 28, guidance_scale=3.5, strength=0.6, max_sequence_length=256),
        uses=("guidance_scale", "negative_prompt", "max_sequence_length", "image_path", "strength"),
        limits={"max_sequence_length": 512},
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
        defaults=_size(1024, 1024, 50, guidance_scale=5.0, max_sequence_length=256),
    ),
    ModelSpec(
        id="stabilityai/stable-diffusion-xl-base-1.0",
        family="passthrough",
        pipeline="StableDiffusionXLPipeline",
        tasks=("T2I",),
        where={},
        **_edits("StableDiffusionXL"),
        defaults=_size(1024, 1024, 50, guidance_scale=7.5, strength=0.6),
        precision={"default": "fp16", "vae": "fp32"},  # its VAE overflows in fp16
    ),
)  # fmt: skip


def by_name(name: str) -> ModelSpec | None:
    """Return the entry whose id or further name is `name`, or the last part of a path."""
    wanted = {name.lower(), name.rstrip("/").rsplit("/", 1)[-1].lower()}
    for spec in MODELS:
        known = {spec.id.lower(), spec.id.rsplit("/", 1)[-1].lower(), *(entry.lower() for entry in spec.names)}
        if wanted & known:
            return spec
    return None


def match(
    model_path: str, model_id: str | None, pipeline: str | None, configs: Mapping[str, Mapping[str, Any]]
) -> ModelSpec | None:
    """Return the entry of a model: by `model_id`, by the path's own name, or by its pipeline class and configs.

    `configs` holds the config of each component and, as "model_index", that of the pipeline. Raises UsageError for an
    unknown `model_id`; returns None for a model that the catalog does not know, which the passthrough then serves.
    """
    if model_id is not None:
        spec = by_name(model_id)
        if spec is None:
            ids = [entry.id for entry in MODELS]
            message = f"--model-id: '{model_id}' is not in the catalog{suggest(model_id, ids)}; known: {listed(ids)}"
            raise UsageError(message, param="model_id")
        return spec
    named = by_name(model_path)
    if named is not None and pipeline in (None, named.pipeline):
        return named
    for spec in MODELS:
        if spec.pipeline == pipeline and spec.where is not None and _fits(spec.where, configs):
            return spec
    return None


def _fits(where: Mapping[str, Mapping[str, Any]], configs: Mapping[str, Mapping[str, Any]]) -> bool:
    return all(
        configs.get(component, {}).get(key) == value
        for component, wanted in where.items()
        for key, value in wanted.items()
    )
