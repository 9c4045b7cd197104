"""HunyuanVideo through our stages equals diffusers' own pipeline over the same modules, to the last bit."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import HunyuanVideoPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from PIL import Image

from engine import attention
from engine.engine import Engine
from engine.errors import UsageError
from engine.types import Output, Progress, Request

SHARED: dict[str, Any] = {
    "prompt": "a red house", "height": 32, "width": 32, "num_frames": 9, "num_inference_steps": 3,
    "max_sequence_length": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def hunyuan(tiny_engine: Any) -> Engine:
    engine: Engine = tiny_engine("hunyuan-video")
    return engine


def _ours(engine: Engine, seed: int, **fields: Any) -> np.ndarray[Any, Any]:
    (output,) = engine.generate(**{**SHARED, **fields}, seed=seed)
    return output.frames


def _parts(engine: Engine) -> dict[str, Any]:
    assert engine.executor is not None
    parts: dict[str, Any] = engine.executor.scheduler.pipeline.model.components
    return parts


@pytest.fixture
def check(hunyuan: Engine, parity: Any) -> Any:
    """Assert that ours and the stock call draw the same, and return it."""

    def run(seed: int, engine: Engine = hunyuan, embedded: float = 6.0, **fields: Any) -> np.ndarray[Any, Any]:
        ours = _ours(engine, seed, embedded_cfg_scale=embedded, **fields)
        stock = {name: value for name, value in fields.items() if name != "flow_shift"}
        arguments = {**SHARED, **stock, "guidance_scale": embedded}
        if "guidance_scale" in fields:
            arguments["true_cfg_scale"] = fields["guidance_scale"]
        parity.same(ours, parity.stock_frames(engine, HunyuanVideoPipeline, seed, **arguments))
        return ours

    return run


@pytest.mark.parametrize(("size", "frames"), [((32, 32), 9), ((32, 64), 5), ((48, 32), 1)])
def test_text_to_video(check: Any, size: tuple[int, int], frames: int) -> None:
    ours = check(7, height=size[0], width=size[1], num_frames=frames)
    assert ours.shape == (frames, *size, 3)


def test_the_prompt_and_the_embedded_guidance_matter(hunyuan: Engine, check: Any) -> None:
    plain = check(3, embedded=6.0)
    assert (plain != check(3, embedded=1.0)).any()
    assert (plain != check(3, embedded=6.0, prompt="the sea at night")).any()


@pytest.mark.parametrize("negative", ["", "snow and fog"])
def test_true_cfg(check: Any, negative: str) -> None:
    guided = check(3, guidance_scale=4.0, negative_prompt=negative)
    assert (guided != check(3)).any(), "guidance must change the clip"
    assert (guided != check(3, guidance_scale=4.0, negative_prompt="rain")).any(), "so must its text"


@pytest.mark.parametrize("length", [1, 3, 200])
def test_prompts_of_every_length(check: Any, length: int) -> None:
    check(5, prompt="a red house " * length)


def test_two_outputs_are_two_stock_calls(hunyuan: Engine, parity: Any) -> None:
    outputs = hunyuan.generate(**SHARED, seed=21, n=2)
    assert [output.seed for output in outputs] == [21, 22]
    for output in outputs:
        stock = parity.stock_frames(hunyuan, HunyuanVideoPipeline, output.seed, **SHARED)
        parity.same(output.frames, stock)


def test_the_shift_is_a_setting(hunyuan: Engine, check: Any) -> None:
    shared = _parts(hunyuan)["scheduler"]
    plain, shifted = check(4), _ours(hunyuan, 4, flow_shift=2.5)
    assert (plain != shifted).any()
    assert shared.shift == 7.0, "a run has a scheduler of its own"
    shared.set_shift(2.5)
    np.testing.assert_array_equal(check(4, flow_shift=2.5), shifted)
    shared.set_shift(7.0)


def test_half_precision_draws_with_no_attention_mask(
    tiny_engine: Any, parity: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[tuple[int, Any]]()
    attend = attention.BACKENDS["torch_sdpa"]

    def watched(query: torch.Tensor, *args: Any, attn_mask: Any = None, **kwargs: Any) -> torch.Tensor:
        seen.append((query.shape[1], attn_mask))
        return attend(query, *args, attn_mask=attn_mask, **kwargs)

    monkeypatch.setitem(attention.BACKENDS, "torch_sdpa", watched)
    half = {"dit_precision": "bf16", "vae_precision": "bf16", "text_encoder_precisions": ["bf16"]}
    engine = tiny_engine("hunyuan-video", **half)
    ours = _ours(engine, 3)
    assert all(mask is None for _, mask in seen)
    template = DEFAULT_PROMPT_TEMPLATE["template"].format(SHARED["prompt"])
    text = len(_parts(engine)["tokenizer"](template).input_ids) - DEFAULT_PROMPT_TEMPLATE["crop_start"]
    assert {tokens for tokens, _ in seen} == {3 * 2 * 2 + text}, "of the clip and of the text, without its padding"
    stock = parity.stock_frames(engine, HunyuanVideoPipeline, 3, **SHARED)
    other = _ours(engine, 3, prompt="the sea at night")
    rounding, meaning = np.abs(ours - stock * 255).mean(), np.abs(ours - other.astype(float)).mean()
    assert rounding < 1 < 2 < meaning


def test_a_denoiser_and_its_vae_may_differ_in_precision(tiny_engine: Any, parity: Any) -> None:
    engine = tiny_engine("hunyuan-video", dit_precision="bf16")
    stock = parity.stock_frames(engine, HunyuanVideoPipeline, 3, **SHARED)
    assert np.abs(_ours(engine, 3) - stock * 255).mean() < 1


def test_runs_in_turns_draw_what_they_draw_alone(hunyuan: Engine, parity: Any) -> None:
    requests = [SHARED | {"seed": 3}, SHARED | {"seed": 4, "guidance_scale": 3.0, "flow_shift": 3.0, "height": 48}]
    for request, frames in zip(requests, parity.in_turns(hunyuan, requests), strict=True):
        np.testing.assert_array_equal(frames, hunyuan.generate(**request)[0].frames)


def test_previews_show_the_middle_frame_and_change_no_pixel(hunyuan: Engine) -> None:
    events = list(hunyuan.stream(**SHARED, seed=3, preview=True))
    previews = [event.preview for event in events if isinstance(event, Progress) and event.stage == "denoising"]
    assert len(previews) == SHARED["num_inference_steps"]
    sizes = [Image.open(io.BytesIO(preview)).size for preview in previews if preview]
    assert sizes == [(256, 256)] * len(previews)
    (output,) = (event for event in events if isinstance(event, Output))
    np.testing.assert_array_equal(output.frames, _ours(hunyuan, 3))


def test_fast_hunyuan_is_known_by_its_shift(tiny_engine: Any, check: Any) -> None:
    engine = tiny_engine("fast-hunyuan")
    assert engine.spec.id == "FastVideo/FastHunyuan-diffusers"
    request = engine.resolve(Request(prompt="x", quality="low"))
    assert (request.num_inference_steps, request.flow_shift, request.embedded_cfg_scale) == (6, 17.0, 6.0)
    check(2, engine)


def test_defaults(hunyuan: Engine) -> None:
    request = hunyuan.resolve(Request(prompt="x"))
    assert (request.height, request.width, request.num_frames, request.fps) == (720, 1280, 125, 24)
    assert (request.num_inference_steps, request.flow_shift, request.embedded_cfg_scale) == (50, 7.0, 6.0)
    assert (request.guidance_scale, request.max_sequence_length) == (1.0, 256)


def test_frames_are_rounded_with_a_warning(hunyuan: Engine, caplog: pytest.LogCaptureFixture) -> None:
    assert len(_ours(hunyuan, 1, num_frames=6)) == 5
    assert caplog.messages == [f"num_frames: 6 becomes 5, since {hunyuan.spec.id} needs 4k + 1"]


def test_a_size_between_multiples_is_drawn_larger_and_cut(hunyuan: Engine) -> None:
    cut = _ours(hunyuan, 9, height=30, width=40)
    assert cut.shape == (9, 30, 40, 3)
    np.testing.assert_array_equal(cut, _ours(hunyuan, 9, height=32, width=48)[:, :30, :40])


def test_a_picture_is_no_input(hunyuan: Engine, picture: Path) -> None:
    with pytest.raises(UsageError, match=r"^image_path: not used by hunyuanvideo-community/HunyuanVideo; optional"):
        hunyuan.resolve(Request(prompt="x", image_path=(str(picture),)))
