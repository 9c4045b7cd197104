"""Every known model as data, and the rules that turn a request into a resolved one for it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine import log, schema
from engine.errors import UsageError, listed, suggest
from engine.types import MAX_SEED, Request, Task

logger = log.get(__name__)

IMG2IMG, INPAINT = "img2img", "inpaint"
QUALITY_STEPS = {"low": 0.5, "medium": 0.75, "standard": 0.75, "high": 1.0, "hd": 1.0, "xhigh": 1.25, "max": 1.5}
VIDEO_FORMATS = ("mp4", "gif")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What must be known of a model before its weights are: identity, tasks, defaults, limits.

    `uses` lists the optional request fields that the model reads, `ignores` those that it accepts without effect, for
    the reason given, `limits` upper bounds of fields. `where` tells models of one pipeline class apart by values in a
    component's config.
    """

    id: str
    family: str
    pipeline: str
    tasks: tuple[Task, ...]
    names: tuple[str, ...] = ()
    where: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    uses: tuple[str, ...] = ()
    ignores: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()  # what diffusers_kwargs may hold; empty for a native pipeline
    multiple: int = 16
    frame_stride: int = 1
    few_steps: bool = False
    max_pixels: int = 4096 * 4096
    precision: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the pipeline, from the folder's model_index.json

    @property
    def is_video(self) -> bool:
        return any(task.endswith("V") for task in self.tasks)

    def default_precision(self, component: str) -> str:
        """Precision of a component when the user names none."""
        return self.precision.get(component, self.precision.get("default", "bf16"))


FLUX_USES = (
    "negative_prompt", "true_cfg_scale", "guidance_scale", "max_sequence_length", "image_path", "mask_path", "strength",
)  # fmt: skip
FLUX_FEATURES = (IMG2IMG, INPAINT)
FLUX_LIMITS = {"max_sequence_length": 512}

MODELS: tuple[ModelSpec, ...] = (
    ModelSpec(
        id="tiny-scenes",
        family="flux",
        pipeline="FluxPipeline",
        tasks=("T2I",),
        features=FLUX_FEATURES,
        defaults={
            "height": 256, "width": 256, "num_inference_steps": 20, "negative_prompt": "", "true_cfg_scale": 4.0,
            "guidance_scale": 1.0, "strength": 0.6, "max_sequence_length": 64,
        },
        uses=FLUX_USES,
        limits={"max_sequence_length": 64},
        ignores={"guidance_scale": "it has no guidance embedding; use true_cfg_scale"},
        max_pixels=1024 * 1024,
        precision={"default": "fp32"},
    ),
    ModelSpec(
        id="black-forest-labs/FLUX.1-dev",
        family="flux",
        pipeline="FluxPipeline",
        tasks=("T2I",),
        names=("FLUX.1-dev",),
        where={"transformer": {"guidance_embeds": True}},
        features=FLUX_FEATURES,
        defaults={
            "height": 1024, "width": 1024, "num_inference_steps": 50, "guidance_scale": 3.5, "true_cfg_scale": 1.0,
            "strength": 0.6, "max_sequence_length": 512,
        },
        uses=FLUX_USES,
        limits=FLUX_LIMITS,
    ),
    ModelSpec(
        id="black-forest-labs/FLUX.1-schnell",
        family="flux",
        pipeline="FluxPipeline",
        tasks=("T2I",),
        names=("FLUX.1-schnell",),
        where={"transformer": {"guidance_embeds": False}},
        features=FLUX_FEATURES,
        defaults={
            "height": 1024, "width": 1024, "num_inference_steps": 4, "guidance_scale": 0.0, "true_cfg_scale": 1.0,
            "strength": 0.6, "max_sequence_length": 256,
        },
        uses=FLUX_USES,
        limits=FLUX_LIMITS,
        ignores={"guidance_scale": "it has no guidance embedding"},
        few_steps=True,
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

    `configs` holds the config of each component. Raises UsageError for an unknown `model_id`; returns None for a model
    that the catalog does not know, which the passthrough then serves.
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
        if spec.pipeline == pipeline and spec.where and _fits(spec, configs):
            return spec
    return None


def _fits(spec: ModelSpec, configs: Mapping[str, Mapping[str, Any]]) -> bool:
    return all(
        configs.get(component, {}).get(key) == value
        for component, wanted in spec.where.items()
        for key, value in wanted.items()
    )


def resolve(request: Request, spec: ModelSpec, max_pixels: int | None = None) -> Request:
    """Return `request` with the defaults of `spec` filled in, every rule checked, a seed drawn if none was given.

    `max_pixels` replaces the model's own bound on width x height x frames. Raises UsageError that names the field.
    """
    _check_fields(request, spec)
    _check_inputs(request, spec)
    filled = {name: value for name, value in spec.defaults.items() if getattr(request, name) is None}
    resolved = request.replace(**filled)
    resolved = resolved.replace(
        seed=_seed(resolved),
        num_inference_steps=_steps(request, resolved, spec),
        num_frames=_frames(resolved, spec),
        output_format=_format(resolved, spec),
        strength=resolved.strength if resolved.image_path else None,
        quality="auto",
    )
    _check_size(resolved, spec, max_pixels or spec.max_pixels)
    if resolved.negative_prompt and "true_cfg_scale" in spec.uses and (resolved.true_cfg_scale or 0) <= 1:
        logger.warning("negative_prompt has no effect on %s while true_cfg_scale is at most 1", spec.id)
    return resolved


def _check_fields(request: Request, spec: ModelSpec) -> None:
    if request.mask_path and INPAINT not in spec.features:
        raise UsageError(f"mask_path: {spec.id} takes no mask", code="mask_not_supported", param="mask_path")
    for name, described in schema.fields(Request).items():
        value = getattr(request, name)
        schema.require_available(Request, name, value)
        if not described.opt.optional or value is None or value == spec.defaults.get(name):
            continue
        if name in spec.ignores:
            logger.warning("%s has no effect on %s: %s", name, spec.id, spec.ignores[name])
        elif name not in spec.uses:
            optional = sorted(spec.uses) or ["none"]
            raise UsageError(
                f"{name}: not used by {spec.id}; optional settings that it uses: {listed(optional)}",
                code="unsupported_parameter",
                param=name,
            )
        if name in spec.limits and value > spec.limits[name]:
            message = f"{name}: must be at most {spec.limits[name]} for {spec.id}, got {value}"
            raise UsageError(message, param=name)
    _check_arguments(request, spec)
    if request.prompt is None:
        raise UsageError("prompt: required", code="missing_parameter", param="prompt")


def _check_arguments(request: Request, spec: ModelSpec) -> None:
    unknown = [name for name in request.diffusers_kwargs if name not in spec.arguments]
    if not unknown:
        return
    if not spec.arguments:
        message = f"diffusers_kwargs: {spec.id} runs natively; they need --backend diffusers"
    else:
        hint = suggest(unknown[0], spec.arguments)
        message = f"diffusers_kwargs: {spec.pipeline} takes no argument '{unknown[0]}' from here{hint}"
    raise UsageError(message, code="unsupported_parameter", param="diffusers_kwargs")


def _check_inputs(request: Request, spec: ModelSpec) -> None:
    if not request.image_path and set(spec.tasks) <= {"I2I", "I2V"}:
        raise UsageError(f"image_path: {spec.id} needs one", code="missing_parameter", param="image_path")
    if request.mask_path and not request.image_path:
        raise UsageError("mask_path: needs image_path", code="missing_parameter", param="image_path")
    if request.strength is not None and not request.image_path:
        raise UsageError("strength: needs image_path", code="missing_parameter", param="image_path")
    if request.image_path and IMG2IMG in spec.features and len(request.image_path) > 1:
        message = f"image_path: {spec.id} takes one image, got {len(request.image_path)}"
        raise UsageError(message, code="too_many_images", param="image_path")


def _seed(request: Request) -> int | tuple[int, ...]:
    count = request.num_outputs_per_prompt
    if request.seed is None:
        return secrets.randbelow(2**32)
    if isinstance(request.seed, tuple) and len(request.seed) != count:
        message = f"seed: a list needs one entry per output, got {len(request.seed)} for {count}"
        raise UsageError(message, param="seed")
    if isinstance(request.seed, int) and request.seed + count - 1 > MAX_SEED:
        raise UsageError(
            f"seed: must be at most {MAX_SEED - count + 1} for {count} outputs, got {request.seed}", param="seed"
        )
    return request.seed


def _steps(request: Request, resolved: Request, spec: ModelSpec) -> int | None:
    steps = resolved.num_inference_steps
    if request.num_inference_steps is not None or steps is None or spec.few_steps:
        return steps
    return max(1, round(steps * QUALITY_STEPS.get(request.quality, 1.0)))


def _frames(request: Request, spec: ModelSpec) -> int | None:
    frames, stride = request.num_frames, spec.frame_stride
    if frames is None or frames % stride == 1 % stride:
        return frames
    rounded = frames // stride * stride + 1
    logger.warning("num_frames: %d becomes %d, since %s needs %dk + 1", frames, rounded, spec.id, stride)
    return rounded


def _format(request: Request, spec: ModelSpec) -> Any:
    wanted = request.output_format or ("mp4" if spec.is_video else "png")
    if (wanted in VIDEO_FORMATS) != spec.is_video:
        kind, known = ("a video", VIDEO_FORMATS) if spec.is_video else ("an image", ("png", "jpeg", "webp"))
        message = f"output_format: {spec.id} draws {kind}, so it must be one of {listed(known)}, got {wanted}"
        raise UsageError(message, param="output_format")
    return wanted


def _check_size(request: Request, spec: ModelSpec, bound: int) -> None:
    if request.height is None or request.width is None:
        return
    pixels = request.height * request.width * (request.num_frames or 1)
    if pixels > bound:
        frames = f"x{request.num_frames}" if request.num_frames else ""
        message = f"size: {request.width}x{request.height}{frames} has {pixels} pixels, more than the {bound} allowed"
        raise UsageError(f"{message} (--max-pixels)", code="invalid_size", param="size")
