"""What becomes of a request for a model: defaults, rules, refusals."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from engine import resolve as rules
from engine import schema
from engine.catalog import MODELS, ModelSpec
from engine.errors import NotAvailable, UsageError
from engine.resolve import resolve
from engine.types import Request

TINY, DEV, SCHNELL = MODELS[:3]
EDITOR = ModelSpec(  # takes several images, no mask, no strength
    id="editor", family="x", pipeline="X", tasks=("TI2I",), uses=("image_path",), max_images=16,
    defaults={"num_inference_steps": 10, "height": 512, "width": 512},
)  # fmt: skip
VIDEO = ModelSpec(
    id="movie", family="x", pipeline="X", tasks=("T2V",), frame_stride=4, max_pixels=81 * 832 * 480,
    uses=("num_frames", "fps", "guidance_scale"),
    defaults={"num_inference_steps": 50, "height": 480, "width": 832, "num_frames": 81, "fps": 16,
              "guidance_scale": 5.0},
)  # fmt: skip
# What a stock call uses is read off its signature when a model is found.
NATIVE = [spec for spec in MODELS if spec.family != "passthrough"]
BARE = ModelSpec(id="bare", family="x", pipeline="X", tasks=("T2I",))
COMPONENTS = {"transformer": {"guidance_embeds": True, "num_layers": 1}, "vae": {}}


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the program's logger says, whether or not a test before set it up."""
    logger = logging.getLogger("sgdiff")
    kept = logger.propagate, logger.handlers[:], logger.level
    logger.propagate, logger.handlers[:] = False, [caplog.handler]
    logger.setLevel("WARNING")
    yield caplog
    logger.propagate, logger.handlers[:] = kept[0], kept[1]
    logger.setLevel(kept[2])


def ask(**fields: Any) -> Request:
    return Request(**{"prompt": "a lighthouse", "seed": 1, **fields})


def _input(spec: ModelSpec) -> dict[str, Any]:
    return {"image_path": ("a.png",)} if "image_path" in spec.uses else {}


def refusal(request: Request, spec: ModelSpec, **words: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        resolve(request, spec, **words)
    return caught.value


@pytest.mark.parametrize("spec", [*NATIVE, EDITOR, VIDEO], ids=lambda spec: spec.id)
def test_the_models_defaults_fill_what_was_left_open(spec: ModelSpec) -> None:
    resolved = resolve(ask(**_input(spec)), spec)
    assert {name: getattr(resolved, name) for name in spec.defaults} == dict(spec.defaults)
    assert resolved.output_format == ("mp4" if spec.is_video else "png")


def test_a_small_clip_has_defaults_of_its_own() -> None:
    spec = dataclasses.replace(
        VIDEO,
        uses=(*VIDEO.uses, "flow_shift"),
        defaults={**VIDEO.defaults, "height": 720, "width": 1280, "flow_shift": 5.0},
        small_defaults={"flow_shift": 3.0},
        max_pixels=10**9,
    )
    assert resolve(ask(), spec).flow_shift == 5.0
    assert resolve(ask(height=480, width=832), spec).flow_shift == 3.0
    assert resolve(ask(height=832, width=480, flow_shift=4.0), spec).flow_shift == 4.0


def test_a_model_takes_so_many_images() -> None:
    three = dataclasses.replace(EDITOR, max_images=3)
    error = refusal(ask(image_path=("a.png",) * 4), three)
    assert (error.code, error.message) == ("too_many_images", "image_path: editor takes at most 3 images, got 4")


def test_what_was_asked_for_stays() -> None:
    asked = ask(height=64, width=128, num_inference_steps=3, true_cfg_scale=2.0, negative_prompt="fog", seed=5)
    resolved = resolve(asked, TINY)
    for name in ("height", "width", "num_inference_steps", "true_cfg_scale", "negative_prompt", "seed", "prompt"):
        assert getattr(resolved, name) == getattr(asked, name)


def test_zero_is_asked_for_too() -> None:
    resolved = resolve(ask(true_cfg_scale=0.0, negative_prompt="", image_path=("a.png",), strength=0.0), TINY)
    assert (resolved.true_cfg_scale, resolved.negative_prompt, resolved.strength) == (0.0, "", 0.0)


@pytest.mark.parametrize("spec", [*NATIVE, VIDEO], ids=lambda spec: spec.id)
def test_a_resolved_request_resolves_to_itself(spec: ModelSpec) -> None:
    """So that a recipe, which holds the resolved request, draws the same again."""
    resolved = resolve(ask(quality="low", **_input(spec)), spec)
    assert resolve(resolved, spec) == resolved
    assert resolve(schema.read(Request, schema.plain(resolved)), spec) == resolved


@pytest.mark.parametrize(
    ("quality", "steps"),
    [("auto", 20), ("low", 10), ("medium", 15), ("standard", 15), ("high", 20), ("hd", 20), ("xhigh", 25), ("max", 30)],
)
def test_quality_scales_the_models_steps(quality: Any, steps: int) -> None:
    resolved = resolve(ask(quality=quality), TINY)
    assert (resolved.num_inference_steps, resolved.quality) == (steps, "auto")


def test_quality_leaves_few_step_models_and_typed_steps_alone() -> None:
    assert resolve(ask(quality="max"), SCHNELL).num_inference_steps == 4
    assert resolve(ask(quality="low", num_inference_steps=7), TINY).num_inference_steps == 7
    one = dataclasses.replace(TINY, defaults={"num_inference_steps": 1})
    assert resolve(ask(quality="low"), one).num_inference_steps == 1


def test_a_seed_is_drawn_when_none_is_given() -> None:
    seeds = {resolve(Request(prompt="x"), TINY).seed for _ in range(8)}
    assert len(seeds) == 8
    assert all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in seeds)


def test_a_seed_of_zero_is_a_seed() -> None:
    assert resolve(ask(seed=0), TINY).seed == 0


def test_a_list_of_seeds_has_one_for_each_output() -> None:
    assert resolve(ask(seed=(4, 5), num_outputs_per_prompt=2), TINY).seed == (4, 5)
    error = refusal(ask(seed=(4, 5), num_outputs_per_prompt=3), TINY)
    assert error.message == "seed: a list needs one entry per output, got 2 for 3"
    assert error.param == "seed"


def test_a_prompt_is_required_but_may_be_empty() -> None:
    error = refusal(Request(seed=1), TINY)
    assert (error.message, error.code) == ("prompt: required", "missing_parameter")
    assert resolve(ask(prompt=""), TINY).prompt == ""


def test_an_optional_setting_that_a_model_does_not_use_is_refused_by_name() -> None:
    error = refusal(ask(boundary_ratio=0.9), TINY)
    assert (error.code, error.param) == ("unsupported_parameter", "boundary_ratio")
    assert error.message == (
        "boundary_ratio: not used by tiny-scenes; optional settings that it uses: guidance_scale, image_path, "
        "mask_path, max_sequence_length, negative_prompt, strength, true_cfg_scale"
    )
    assert refusal(ask(fps=24), BARE).message == "fps: not used by bare; optional settings that it uses: none"


def test_a_setting_that_a_model_ignores_is_a_warning(warnings: pytest.LogCaptureFixture) -> None:
    resolved = resolve(ask(guidance_scale=4.0), TINY)
    assert resolved.guidance_scale == 4.0
    assert warnings.messages == [
        "guidance_scale has no effect on tiny-scenes: it has no guidance embedding; use true_cfg_scale"
    ]
    warnings.clear()
    resolve(ask(guidance_scale=1.0), TINY)  # the model's own value, as a recipe repeats it
    assert warnings.messages == []


def test_a_second_guidance_scale_without_guidance_is_a_warning(warnings: pytest.LogCaptureFixture) -> None:
    wan = next(spec for spec in MODELS if spec.id == "Wan-AI/Wan2.2-T2V-A14B-Diffusers")
    resolve(ask(guidance_scale=1.0, guidance_scale_2=3.5), wan)
    assert warnings.messages == [f"guidance_scale_2 has no effect on {wan.id} while guidance_scale is at most 1"]
    warnings.clear()
    resolve(ask(guidance_scale=1.0), wan)
    resolve(ask(guidance_scale=2.0, guidance_scale_2=3.5), wan)
    assert warnings.messages == []


def test_a_negative_prompt_without_guidance_is_a_warning(warnings: pytest.LogCaptureFixture) -> None:
    resolve(ask(negative_prompt="fog"), DEV)
    assert warnings.messages == [
        "negative_prompt has no effect on black-forest-labs/FLUX.1-dev while true_cfg_scale is at most 1"
    ]
    warnings.clear()
    resolve(ask(negative_prompt="fog", true_cfg_scale=1.5), DEV)
    resolve(ask(negative_prompt="fog"), TINY)
    assert warnings.messages == []


def test_what_is_not_built_is_refused_before_anything_else() -> None:
    with pytest.raises(NotAvailable) as caught:
        resolve(Request(enable_upscaling=True), TINY)
    assert caught.value.message == "enable_upscaling: not available yet"


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"mask_path": "m.png"}, "missing_parameter", "mask_path: needs image_path"),
        ({"strength": 0.5}, "missing_parameter", "strength: needs image_path"),
        (
            {"image_path": ("a.png", "b.png")},
            "too_many_images",
            "image_path: black-forest-labs/FLUX.1-dev takes one image, got 2",
        ),
    ],
)
def test_inputs_that_do_not_go_together(fields: dict[str, Any], code: str, message: str) -> None:
    error = refusal(ask(**fields), DEV)
    assert (error.code, error.message) == (code, message)


@pytest.mark.parametrize("spec", [EDITOR, BARE, dataclasses.replace(EDITOR, uses=("image_path", "mask_path"))])
def test_a_mask_has_its_own_refusal(spec: ModelSpec) -> None:
    error = refusal(ask(image_path=("a.png",), mask_path="m.png"), spec)
    assert (error.message, error.code) == (f"mask_path: {spec.id} takes no mask", "mask_not_supported")


def test_an_editor_takes_several_images() -> None:
    assert resolve(ask(image_path=("a.png", "b.png")), EDITOR).image_path == ("a.png", "b.png")


def test_strength_belongs_to_an_image() -> None:
    assert resolve(ask(), DEV).strength is None
    assert resolve(ask(image_path=("a.png",)), DEV).strength == 0.6
    assert resolve(ask(image_path=("a.png",), mask_path="m.png", strength=0.9), DEV).strength == 0.9


def test_size_is_bounded() -> None:
    error = refusal(ask(width=2048, height=1024), TINY)
    assert (error.code, error.param) == ("invalid_size", "size")
    assert error.message == "size: 2048x1024 has 2097152 pixels, more than the 1048576 allowed (--max-pixels)"
    assert resolve(ask(width=1024, height=1024), TINY).width == 1024


def test_max_pixels_replaces_the_models_bound_both_ways() -> None:
    assert resolve(ask(width=2048, height=1024), TINY, max_pixels=2048 * 1024).width == 2048
    error = refusal(ask(), TINY, max_pixels=256 * 255)
    assert error.message == "size: 256x256 has 65536 pixels, more than the 65280 allowed (--max-pixels)"


def test_frames_count_as_pixels() -> None:
    error = refusal(ask(num_frames=85), VIDEO)
    assert error.message == (
        "size: 832x480x85 has 33945600 pixels, more than the 32348160 allowed (--max-pixels); "
        "of this size it may have at most 81 frames"
    )
    assert resolve(ask(num_frames=81), VIDEO).num_frames == 81
    bound = 832 * 480 * 20  # 20 fit, but the model draws 17 or 21
    assert refusal(ask(num_frames=21), VIDEO, max_pixels=bound).message.endswith("at most 17 frames")
    assert resolve(ask(num_frames=17), VIDEO, max_pixels=bound).num_frames == 17


def test_no_frames_are_offered_where_one_is_too_large() -> None:
    error = refusal(ask(num_frames=5, width=1024, height=1024), VIDEO, max_pixels=1000)
    assert error.message.endswith("pixels, more than the 1000 allowed (--max-pixels)")


def test_a_model_without_a_size_is_not_measured() -> None:
    assert resolve(ask(), BARE).height is None


@pytest.mark.parametrize(("asked", "drawn"), [(1, 1), (2, 1), (4, 5), (5, 5), (47, 45), (48, 49), (80, 81), (81, 81)])
def test_frames_are_rounded_to_the_stride(asked: int, drawn: int, warnings: pytest.LogCaptureFixture) -> None:
    assert resolve(ask(num_frames=asked), VIDEO).num_frames == drawn
    said = [f"num_frames: {asked} becomes {drawn}, since movie needs 4k + 1"] if asked != drawn else []
    assert warnings.messages == said


def test_a_model_without_a_stride_takes_any_number_of_frames(warnings: pytest.LogCaptureFixture) -> None:
    any_number = dataclasses.replace(VIDEO, frame_stride=1)
    assert [resolve(ask(num_frames=count), any_number).num_frames for count in (1, 2, 7)] == [1, 2, 7]
    assert warnings.messages == []


@pytest.mark.parametrize(
    ("spec", "wanted", "message"),
    [
        (TINY, "mp4", "output_format: tiny-scenes draws an image, so it must be one of png, jpeg, webp, got mp4"),
        (TINY, "gif", "output_format: tiny-scenes draws an image, so it must be one of png, jpeg, webp, got gif"),
        (VIDEO, "png", "output_format: movie draws a video, so it must be one of mp4, gif, got png"),
    ],
)
def test_a_format_of_the_other_kind_is_refused(spec: ModelSpec, wanted: Any, message: str) -> None:
    error = refusal(ask(output_format=wanted), spec)
    assert (error.message, error.param) == (message, "output_format")


@pytest.mark.parametrize(("spec", "wanted"), [(TINY, "jpeg"), (TINY, "webp"), (VIDEO, "gif")])
def test_a_format_of_its_kind_is_kept(spec: ModelSpec, wanted: Any) -> None:
    assert resolve(ask(output_format=wanted), spec).output_format == wanted


def test_every_quality_has_a_factor_or_is_auto() -> None:
    assert set(schema.fields(Request)["quality"].choices) == {"auto", *rules.QUALITY_STEPS}


def test_the_last_output_has_a_seed_too() -> None:
    with pytest.raises(UsageError) as error:
        Request(prompt="x", seed=2**63 - 1, num_outputs_per_prompt=2).resolve(MODELS[0])
    assert error.value.message == "seed: must be at most 9223372036854775806 for 2 outputs, got 9223372036854775807"
