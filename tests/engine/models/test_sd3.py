"""Stable Diffusion 3.5 through our stages equals diffusers' own pipelines over the same modules, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchHeunDiscreteScheduler, StableDiffusion3Img2ImgPipeline, StableDiffusion3Pipeline
from PIL import Image

from engine.engine import Engine
from engine.types import Output, Progress

SHARED = {
    "prompt": "a red house", "num_inference_steps": 3, "max_sequence_length": 32, "guidance_scale": 1.0,
}  # fmt: skip

Build = Callable[..., Engine]


@pytest.fixture
def alone(tiny_engine: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the network compute every picture of a batch by itself.

    A stock call with guidance computes both branches as one batch, which rounds otherwise than two calls do.
    """
    executor: Any = tiny_engine("sd3").executor
    network = executor.scheduler.pipeline.model.network
    batched = network.forward

    def forward(return_dict: bool, joint_attention_kwargs: None = None, **inputs: torch.Tensor) -> tuple[torch.Tensor]:
        count = len(inputs["timestep"])
        pictures = [{name: tensor[i : i + 1] for name, tensor in inputs.items()} for i in range(count)]
        return (torch.cat([batched(**picture, return_dict=False)[0] for picture in pictures]),)

    monkeypatch.setattr(network, "forward", forward)


@pytest.fixture
def check(tiny_engine: Build, parity: Any) -> Any:
    """Assert that ours and the stock call draw the same, and return what they draw."""

    def run(cls: Any, seed: int, image: Path | None = None, **fields: Any) -> np.ndarray[Any, Any]:
        engine, given = tiny_engine("sd3"), {**SHARED, **fields}
        (output,) = engine.generate(**given, **({"image_path": str(image)} if image else {}), seed=seed)
        arguments = given | ({"image": Image.open(image)} if image else {})
        parity.same(output.frames, parity.stock_frames(engine, cls, seed, **arguments))
        return output.frames

    return run


def test_a_folder_tells_the_model(tiny_engine: Build) -> None:
    assert tiny_engine("sd3").spec.id == "stabilityai/stable-diffusion-3.5-large"


@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
def test_text_to_image(check: Any, size: tuple[int, int]) -> None:
    fields = {"height": size[0], "width": size[1]}
    frames = check(StableDiffusion3Pipeline, 7, **fields)
    assert (frames != check(StableDiffusion3Pipeline, 7, **fields, prompt="the sea")).any(), "the prompt must matter"


@pytest.mark.usefixtures("alone")
def test_guidance(check: Any) -> None:
    fields = {"height": 48, "width": 80, "guidance_scale": 4.0}
    drawn = [
        check(StableDiffusion3Pipeline, 3, **fields),
        check(StableDiffusion3Pipeline, 3, **fields, negative_prompt="snow and fog"),
        check(StableDiffusion3Pipeline, 3, **{**fields, "guidance_scale": 1.0}),
    ]
    assert (drawn[0] != drawn[1]).any(), "the negative prompt must matter"
    assert (drawn[0] != drawn[2]).any(), "guidance must change the picture"


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("strength", [0.4, 0.7, 1.0])
def test_image_to_image(check: Any, picture: Path, strength: float, scale: float) -> None:
    fields = {"height": 48, "width": 80, "strength": strength, "num_inference_steps": 5, "guidance_scale": scale}
    check(StableDiffusion3Img2ImgPipeline, 5, picture, **fields)


def test_a_batch_of_both_branches_changes_rounding_only(tiny_engine: Build, parity: Any) -> None:
    engine, fields = tiny_engine("sd3"), {**SHARED, "height": 64, "width": 64, "guidance_scale": 4.0}
    stock = parity.stock_frames(engine, StableDiffusion3Pipeline, 9, **fields)
    (output,) = engine.generate(**fields, seed=9)
    assert np.abs(output.frames - stock * 255).max() < 0.51  # half a level is what rounding to uint8 takes


def test_two_outputs_are_two_stock_calls(tiny_engine: Build, parity: Any) -> None:
    engine, fields = tiny_engine("sd3"), {**SHARED, "height": 64, "width": 64}
    outputs = engine.generate(**fields, seed=21, n=2)
    assert [output.seed for output in outputs] == [21, 22]
    for output in outputs:
        parity.same(output.frames, parity.stock_frames(engine, StableDiffusion3Pipeline, output.seed, **fields))


def test_a_preview_is_shown_and_changes_nothing(tiny_engine: Build) -> None:
    engine, fields = tiny_engine("sd3"), {**SHARED, "height": 64, "width": 96, "seed": 8}
    events = list(engine.stream(**fields, preview=True))
    previews = [event.preview for event in events if isinstance(event, Progress) and event.preview]
    assert len(previews) == 3
    (output,) = [event for event in events if isinstance(event, Output)]
    np.testing.assert_array_equal(output.frames, engine.generate(**fields)[0].frames)


def test_a_scheduler_that_takes_two_forwards_a_step(
    tiny_engine: Build, parity: Any, picture: Path, tmp_path: Path
) -> None:
    FlowMatchHeunDiscreteScheduler(shift=3.0).save_pretrained(tmp_path / "heun")
    engine = tiny_engine("sd3", component_paths={"scheduler": str(tmp_path / "heun")})
    fields = {**SHARED, "height": 48, "width": 80, "num_inference_steps": 5}
    drawn = []
    for strength, cls, forwards in ((None, StableDiffusion3Pipeline, 9), (0.4, StableDiffusion3Img2ImgPipeline, 3)):
        image = {"image_path": str(picture), "strength": strength} if strength else {}
        (output,) = engine.generate(**fields, **image, seed=5)
        given = {"image": Image.open(picture), "strength": strength} if strength else {}
        parity.same(output.frames, parity.stock_frames(engine, cls, 5, **fields, **given))
        assert len(output.timings.denoise_steps) == forwards
        drawn.append(output.frames)
    (euler,) = tiny_engine("sd3").generate(**fields, seed=5)
    assert (euler.frames != drawn[0]).any()


@pytest.mark.parametrize("vae", ["bf16", "fp32"])
def test_lower_precision(tiny_engine: Build, picture: Path, vae: str) -> None:
    engine = tiny_engine("sd3", dit_precision="bf16", vae_precision=vae, text_encoder_precisions=("bf16",))
    (output,) = engine.generate(
        **{**SHARED, "guidance_scale": 4.0}, image_path=str(picture), height=48, width=80, seed=1
    )
    assert output.frames.std() > 1
