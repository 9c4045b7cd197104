"""Qwen-Image through our stages equals diffusers' own pipelines over the same modules, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import QwenImageImg2ImgPipeline, QwenImageInpaintPipeline, QwenImagePipeline
from PIL import Image

from engine.engine import Engine
from engine.types import Output, Progress

SHARED = {"prompt": "a red house", "num_inference_steps": 3, "max_sequence_length": 64}
GUIDED = {"negative_prompt": "snow and fog", "true_cfg_scale": 4.0}
PLAIN = {"true_cfg_scale": 1.0}
BF16 = {"dit_precision": "bf16", "text_encoder_precisions": ("bf16",)}


@pytest.fixture
def qwen(tiny_engine: Callable[..., Engine]) -> Engine:
    return tiny_engine("qwen-image")


@pytest.fixture
def check(qwen: Engine, parity: Any) -> Any:
    """Assert that ours and the stock call draw the same; `images` are the stock call's own."""

    def run(cls: Any, seed: int, images: dict[str, Any] | None = None, **fields: Any) -> None:
        given = {**SHARED, **fields}
        names = ("image_path", "mask_path")
        arguments = {name: value for name, value in given.items() if name not in names} | (images or {})
        parity.same(ours(qwen, seed, **fields), parity.stock_frames(qwen, cls, seed, **arguments))

    return run


def ours(engine: Engine, seed: int, **fields: Any) -> np.ndarray[Any, Any]:
    (output,) = engine.generate(**{**SHARED, **fields}, seed=seed)
    return output.frames


def test_a_folder_is_known_as_qwen_image(qwen: Engine) -> None:
    assert (qwen.spec.id, qwen.spec.family) == ("Qwen/Qwen-Image", "qwen_image")


@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
@pytest.mark.parametrize("length", [64, 3])
def test_text_to_image(check: Any, size: tuple[int, int], length: int) -> None:
    check(QwenImagePipeline, 7, height=size[0], width=size[1], max_sequence_length=length, **PLAIN)


@pytest.mark.parametrize("negative", ["", " ", "snow and fog"])
def test_guidance(qwen: Engine, check: Any, negative: str) -> None:
    fields = {"height": 48, "width": 80}
    check(QwenImagePipeline, 3, **fields, negative_prompt=negative, true_cfg_scale=4.0)
    guided = ours(qwen, 3, **fields, negative_prompt=negative, true_cfg_scale=4.0)
    assert (guided != ours(qwen, 3, **fields, **PLAIN)).any(), "guidance must change the picture"


def test_the_prompts_matter(qwen: Engine) -> None:
    fields = {"height": 64, "width": 64, **GUIDED}
    one = ours(qwen, 1, **fields)
    assert (one != ours(qwen, 1, **fields | {"prompt": "the sea at night"})).any()
    assert (one != ours(qwen, 1, **fields | {"negative_prompt": "rain"})).any()


def test_a_request_without_a_negative_prompt_is_guided_by_a_space(check: Any, qwen: Engine) -> None:
    request = {"height": 64, "width": 64}
    expected = ours(qwen, 1, **request, negative_prompt=" ", true_cfg_scale=4.0)
    np.testing.assert_array_equal(ours(qwen, 1, **request), expected)


def test_the_model_of_december_2025_has_a_long_negative_prompt(tiny_engine: Callable[..., Engine], parity: Any) -> None:
    engine = tiny_engine("qwen-image", model_id="Qwen-Image-2512")
    fields = {**SHARED, "height": 64, "width": 64}
    (output,) = engine.generate(**fields, seed=4)
    negative = output.request.negative_prompt
    assert negative is not None and negative.startswith("低分辨率，低画质，肢体畸形")
    parity.same(output.frames, parity.stock_frames(engine, QwenImagePipeline, 4, **fields, negative_prompt=negative))


@pytest.mark.parametrize("cfg", [PLAIN, GUIDED], ids=["plain", "guided"])
@pytest.mark.parametrize("strength", [0.4, 0.7, 1.0])
def test_image_to_image(check: Any, picture: Path, strength: float, cfg: dict[str, Any]) -> None:
    fields = {"height": 48, "width": 80, "strength": strength, "num_inference_steps": 5, **cfg}
    check(QwenImageImg2ImgPipeline, 5, images={"image": Image.open(picture)}, image_path=str(picture), **fields)


@pytest.mark.parametrize("size", [(48, 80), (64, 64)])
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_inpainting(check: Any, picture: Path, mask: Path, strength: float, size: tuple[int, int]) -> None:
    fields = {"height": size[0], "width": size[1], "strength": strength, "num_inference_steps": 4, **PLAIN}
    images = {"image": Image.open(picture), "mask_image": Image.open(mask)}
    check(QwenImageInpaintPipeline, 11, images=images, image_path=str(picture), mask_path=str(mask), **fields)


def test_one_step_draws_with_the_schedule_without_its_terminal_stretch(qwen: Engine, parity: Any) -> None:
    fields = {**SHARED, "height": 64, "width": 64, "num_inference_steps": 1, **PLAIN}
    with parity.stock(qwen, QwenImagePipeline) as pipeline:
        pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, shift_terminal=None)
        stock = pipeline(**fields, generator=torch.Generator().manual_seed(5), output_type="np").images
    parity.same(ours(qwen, 5, **fields), stock)


def test_two_outputs_are_two_stock_calls(qwen: Engine, parity: Any) -> None:
    fields = {**SHARED, "height": 64, "width": 64, **PLAIN}
    outputs = qwen.generate(**fields, seed=21, n=2)
    assert [output.seed for output in outputs] == [21, 22]
    for output in outputs:
        parity.same(output.frames, parity.stock_frames(qwen, QwenImagePipeline, output.seed, **fields))


def test_a_size_between_multiples_is_drawn_larger_and_cut(qwen: Engine) -> None:
    cut = ours(qwen, 9, height=50, width=70)[0]
    assert cut.shape == (50, 70, 3)
    np.testing.assert_array_equal(cut, ours(qwen, 9, height=64, width=80)[0, :50, :70])


def test_a_preview_shows_the_picture_and_changes_nothing(qwen: Engine) -> None:
    fields = {**SHARED, "height": 64, "width": 96, "seed": 2}
    events = list(qwen.stream(preview=True, **fields))
    previews = [event.preview for event in events if isinstance(event, Progress) and event.stage == "denoising"]
    assert len(previews) == 3
    assert all(preview is not None and preview.startswith(b"\xff\xd8") for preview in previews)
    (output,) = (event for event in events if isinstance(event, Output))
    np.testing.assert_array_equal(output.frames, qwen.generate(**fields)[0].frames)


@pytest.mark.parametrize("vae", ["bf16", "fp32"])
def test_half_precision(tiny_engine: Callable[..., Engine], picture: Path, vae: str) -> None:
    engine = tiny_engine("qwen-image", **BF16, vae_precision=vae)
    fields = {"height": 48, "width": 80, **GUIDED}
    assert ours(engine, 1, **fields).std() > 1
    assert ours(engine, 1, **fields, image_path=str(picture), strength=0.5).std() > 1


def test_runs_in_turns_equal_runs_alone(qwen: Engine, parity: Any) -> None:
    fields = ({"height": 64, "width": 64, **GUIDED, "seed": 1}, {"height": 48, "width": 80, **PLAIN, "seed": 2})
    alone = [qwen.generate(**{**SHARED, **given})[0].frames for given in fields]
    for expected, frames in zip(alone, parity.in_turns(qwen, [{**SHARED, **given} for given in fields]), strict=True):
        np.testing.assert_array_equal(frames, expected)
