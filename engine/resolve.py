"""A request and a model's entry to a resolved request: defaults filled in, every rule checked."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from engine import log, schema
from engine.catalog import INPAINT, SMALL_AREA, ModelSpec
from engine.errors import InputError, UsageError, listed, shown, suggest
from engine.types import MAX_SEED, Request

logger = log.get(__name__)

QUALITY_STEPS = {"low": 0.5, "medium": 0.75, "standard": 0.75, "high": 1.0, "hd": 1.0, "xhigh": 1.25, "max": 1.5}
VIDEO_FORMATS = ("mp4", "gif")


def resolve(request: Request, spec: ModelSpec, max_pixels: int | None = None) -> Request:
    """Return `request` with the defaults of `spec` filled in, every rule checked, a seed drawn if none was given.

    `max_pixels` replaces the model's own bound on width x height x frames. Raises UsageError that names the field.
    """
    _check_fields(request, spec)
    _check_inputs(request, spec)
    resolved = _fill(_fill(request, dict(spec.small_defaults)) if _is_small(request, spec) else request, spec.defaults)
    resolved = resolved.replace(
        seed=_seed(resolved),
        num_inference_steps=_steps(request, resolved, spec),
        num_frames=_frames(resolved, spec),
        output_format=_format(resolved, spec),
        strength=resolved.strength if resolved.image_path else None,
        quality="auto",
    )
    _check_start(resolved, spec)
    _check_size(resolved, spec, max_pixels or spec.max_pixels)
    _warn_unguided(request, resolved, spec)
    return resolved


def _warn_unguided(request: Request, resolved: Request, spec: ModelSpec) -> None:
    """Say which settings of guidance were given while it is off."""
    if is_guided(resolved, spec):
        return
    for name in ("negative_prompt", "guidance_scale_2"):
        if getattr(request, name) and name not in spec.ignores:
            logger.warning(
                "%s has no effect on %s while %s is at most %g", name, spec.id, spec.cfg_scale, spec.cfg_above
            )


def is_guided(resolved: Request, spec: ModelSpec) -> bool:
    """Whether a resolved request asks for classifier-free guidance; without a field that scales it, the model knows."""
    if spec.cfg_scale is None:
        return True
    return spec.cfg_scale not in spec.ignores and (getattr(resolved, spec.cfg_scale) or 0) > spec.cfg_above


def _fill(request: Request, defaults: Mapping[str, Any]) -> Request:
    return request.replace(**{name: value for name, value in defaults.items() if getattr(request, name) is None})


def _is_small(request: Request, spec: ModelSpec) -> bool:
    if not spec.small_defaults:
        return False
    sized = _fill(request, spec.defaults)
    return bool((sized.height or 0) * (sized.width or 0) <= SMALL_AREA)


def _check_fields(request: Request, spec: ModelSpec) -> None:
    if request.mask_path and INPAINT not in spec.features:
        raise UsageError(f"mask_path: {spec.id} takes no mask", code="mask_not_supported", param="mask_path")
    for name, described in schema.fields(Request).items():
        value = getattr(request, name)
        schema.require_available(Request, name, value)
        if value is None or value == spec.defaults.get(name):
            continue
        if described.opt.optional:
            _check_use(name, spec)
        if name in spec.limits and value > spec.limits[name]:
            message = f"{name}: must be at most {spec.limits[name]} for {spec.id}, got {shown(value)}"
            raise UsageError(message, param=name)
    _check_arguments(request, spec)
    if request.prompt is None:
        raise UsageError("prompt: required", code="missing_parameter", param="prompt")
    for name in ("prompt", "negative_prompt"):
        found = [word for word in spec.reserved if word in (getattr(request, name) or "")]
        if found:
            raise UsageError(f"{name}: must not hold {listed(found)}, which {spec.id} itself uses", param=name)


def _check_use(name: str, spec: ModelSpec) -> None:
    if name in spec.ignores:
        logger.warning("%s has no effect on %s: %s", name, spec.id, spec.ignores[name])
    elif name in spec.native_only and name not in spec.uses:
        message = f"{name}: {spec.id} takes it with --backend native alone: {spec.native_only[name]}"
        raise UsageError(message, code="unsupported_parameter", param=name)
    elif name not in spec.uses:
        optional = sorted(spec.uses) or ["none"]
        raise UsageError(
            f"{name}: not used by {spec.id}; optional settings that it uses: {listed(optional)}",
            code="unsupported_parameter",
            param=name,
        )


def _check_arguments(request: Request, spec: ModelSpec) -> None:
    feature = spec.feature_of(request)
    pipeline, known = spec.pipeline, spec.arguments
    if feature is not None and known:
        pipeline, known = spec.variants[feature], spec.variant_arguments[feature]
    unknown = [name for name in request.diffusers_kwargs if name not in known]
    if not unknown:
        return
    if not spec.arguments:
        message = f"diffusers_kwargs: {spec.id} runs natively; they need --backend diffusers"
    else:
        hint = suggest(unknown[0], known)
        message = f"diffusers_kwargs: {pipeline} takes no argument '{unknown[0]}' from here{hint}"
    raise UsageError(message, code="unsupported_parameter", param="diffusers_kwargs")


def _check_inputs(request: Request, spec: ModelSpec) -> None:
    if not request.image_path and set(spec.tasks) <= {"I2I", "I2V"}:
        raise UsageError(f"image_path: {spec.id} needs one", code="missing_parameter", param="image_path")
    if request.mask_path and not request.image_path:
        raise UsageError("mask_path: needs image_path", code="missing_parameter", param="image_path")
    if request.strength is not None and not request.image_path:
        raise UsageError("strength: needs image_path", code="missing_parameter", param="image_path")
    if request.image_path and len(request.image_path) > spec.max_images:
        allowed = "one image" if spec.max_images == 1 else f"at most {spec.max_images} images"
        message = f"image_path: {spec.id} takes {allowed}, got {len(request.image_path)}"
        raise UsageError(message, code="too_many_images", param="image_path")


def check_image(width: int, height: int, spec: ModelSpec) -> None:
    """Raise InputError for an input image that the model cannot read."""
    size = f"image_path: an image is {width}x{height}"
    if min(width, height) < spec.min_image_side:
        message = f"{size}, but {spec.id} needs at least {spec.min_image_side} pixels a side"
        raise InputError(message, param="image_path")
    if max(width, height) > spec.max_image_ratio * min(width, height):
        message = f"{size}, but for {spec.id} one side may be at most {spec.max_image_ratio:g} times the other"
        raise InputError(message, param="image_path")


def _check_start(resolved: Request, spec: ModelSpec) -> None:
    """Refuse a strength that leaves a stock pipeline no step; a native one then gives the image back."""
    steps, strength = resolved.num_inference_steps, resolved.strength
    if not spec.arguments or steps is None or strength is None or int(steps * strength) >= 1:
        return
    message = f"strength: {strength} of {steps} steps leaves {spec.id} none; it must be at least {1 / steps:.3g}"
    raise UsageError(message, param="strength")


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
        sides = f"{shown(request.width)}x{shown(request.height)}{frames}"
        message = f"size: {sides} has {shown(pixels)} pixels, more than the {bound} allowed"
        message = f"{message} (--max-pixels){_fewer_frames(request, spec, bound)}"
        raise UsageError(message, code="invalid_size", param="size")


def _fewer_frames(request: Request, spec: ModelSpec, bound: int) -> str:
    """Say how many frames a clip of this size may have; nothing where even one is too large."""
    assert request.height is not None and request.width is not None
    most, stride = bound // (request.height * request.width), spec.frame_stride
    if not most:  # as for every picture that is too large
        return ""
    return f"; of this size it may have at most {(most - 1) // stride * stride + 1} frames"
