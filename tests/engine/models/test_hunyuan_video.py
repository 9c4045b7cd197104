"""HunyuanVideo through our stages equals diffusers' own pipeline over the same modules, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from diffusers import HunyuanVideoPipeline

from engine.engine import Engine

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
