"""Any other diffusers pipeline runs as it is, watched step by step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline, WanPipeline

from engine.engine import Engine
from engine.errors import Cancelled, ModelError, UsageError
from engine.models import passthrough
from engine.runtime.control import Control
from engine.types import Progress, Request

FP32: dict[str, Any] = {"dit_precision": "fp32", "vae_precision": "fp32", "text_encoder_precisions": ["fp32"]}


@pytest.fixture(scope="module")
def sdxl(sdxl_folder: Path) -> Iterator[Engine]:
    with Engine.from_pretrained(str(sdxl_folder), **FP32) as engine:
        yield engine


@pytest.fixture(scope="module")
def wan(wan_folder: Path) -> Iterator[Engine]:
    with Engine.from_pretrained(str(wan_folder), **FP32) as engine:
        yield engine


def _parts(engine: Engine) -> Any:
    assert engine.executor is not None
    return engine.executor.scheduler.pipeline.model.components


def test_an_image_equals_the_stock_call(sdxl: Engine) -> None:
    fields = {"prompt": "a hill", "height": 64, "width": 64, "num_inference_steps": 3, "guidance_scale": 4.0}
    (output,) = sdxl.generate(**fields, negative_prompt="fog", seed=6)
    stock = StableDiffusionXLPipeline(**_parts(sdxl))
    stock.set_progress_bar_config(disable=True)
    image = stock(**fields, negative_prompt="fog", generator=torch.Generator().manual_seed(6)).images[0]
    np.testing.assert_array_equal(output.frames[0], np.asarray(image))
    assert output.frames.std() > 1


def test_a_video_equals_the_stock_call(wan: Engine) -> None:
    fields = {"prompt": "a hill", "height": 32, "width": 32, "num_frames": 9, "num_inference_steps": 3}
    (output,) = wan.generate(**fields, seed=6)
    stock = WanPipeline(**_parts(wan))
    stock.set_progress_bar_config(disable=True)
    frames = stock(**fields, generator=torch.Generator().manual_seed(6), output_type="np").frames[0]
    np.testing.assert_array_equal(output.frames, (frames * 255).round().astype(np.uint8))
    assert output.frames.shape == (9, 32, 32, 3)
    assert output.request.output_format == "mp4"


@pytest.mark.parametrize("name", ["sdxl", "wan"])
def test_steps_are_counted_whatever_guidance_costs(name: str, request: pytest.FixtureRequest) -> None:
    engine = request.getfixturevalue(name)
    heard: list[Progress] = []
    fields = {"height": 32, "width": 32, "num_inference_steps": 4}
    (output,) = engine.generate("a hill", on_progress=heard.append, seed=1, **fields)
    steps = [progress.step for progress in heard if progress.stage == "denoising"]
    assert steps == [1, 2, 3, 4]
    assert len(output.timings.denoise_steps) == 4


def test_cancel_within_a_step(sdxl: Engine) -> None:
    steps: list[int] = []

    def report(progress: Progress) -> None:
        steps.append(progress.step)
        if progress.step == 2:
            control.cancel()

    control = Control(report)
    with pytest.raises(Cancelled):
        list(sdxl.run(Request(prompt="x", height=64, width=64, num_inference_steps=20), control))
    assert max(steps) == 2
    assert sdxl.generate("x", height=64, width=64, num_inference_steps=2, seed=1)


def test_defaults_come_from_the_signature(sdxl: Engine, wan: Engine) -> None:
    assert sdxl.spec.defaults["num_inference_steps"] == 50
    assert sdxl.spec.defaults["guidance_scale"] == 5.0
    assert sdxl.spec.tasks == ("T2I",)
    assert wan.spec.tasks == ("T2V",)
    assert wan.spec.defaults["num_frames"] == 81
    assert wan.spec.is_video


def test_a_field_that_the_call_lacks_is_refused(sdxl: Engine) -> None:
    with pytest.raises(UsageError, match=r"^num_frames: not used by .*; optional settings that it uses: guidance"):
        sdxl.resolve(Request(prompt="x", num_frames=9))


def test_extra_arguments_reach_the_call(sdxl: Engine) -> None:
    fields = {"height": 64, "width": 64, "num_inference_steps": 2, "seed": 3}
    plain = sdxl.generate("x", **fields)[0].frames
    changed = sdxl.generate("x", **fields, diffusers_kwargs={"guidance_rescale": 0.9, "eta": 0.0})[0].frames
    assert (plain != changed).any()


@pytest.mark.parametrize("name", ["nope", "output_type", "num_images_per_prompt", "generator", "height"])
def test_extra_arguments_that_the_call_lacks_or_we_give(sdxl: Engine, name: str) -> None:
    with pytest.raises(UsageError) as error:
        sdxl.resolve(Request(prompt="x", diffusers_kwargs={name: 1}))
    assert error.value.message.startswith(
        f"diffusers_kwargs: StableDiffusionXLPipeline takes no argument '{name}' from here"
    )


def test_an_unknown_class() -> None:
    with pytest.raises(ModelError, match=r"^'NopePipeline' is not a pipeline of the installed diffusers .*not run$"):
        passthrough.pipeline_class("NopePipeline")


def test_flux_through_the_stock_pipeline_when_asked(flux_folder: Path, flux: Engine) -> None:
    fields: dict[str, Any] = {"prompt": "a hill", "height": 64, "width": 64, "num_inference_steps": 2, "seed": 5}
    with Engine.from_pretrained(str(flux_folder), backend="diffusers", **FP32) as stock:
        assert stock.spec.family == "passthrough"
        assert stock.spec.defaults["num_inference_steps"] == 50, "the catalog's default, not the call's"
        difference = stock.generate(**fields)[0].frames.astype(int) - flux.generate(**fields)[0].frames
    assert np.abs(difference).max() <= 1, "another copy of the weights may round differently"


@pytest.mark.parametrize(("model", "size"), [("sdxl", (60, 75)), ("wan", (30, 20))])
def test_the_output_has_exactly_the_size_asked_for(
    model: str, size: tuple[int, int], request: pytest.FixtureRequest
) -> None:
    engine: Engine = request.getfixturevalue(model)
    frames = {"num_frames": 5} if model == "wan" else {}
    (output,) = engine.generate("x", height=size[0], width=size[1], num_inference_steps=1, seed=1, **frames)
    assert output.frames.shape[1:] == (*size, 3)


def test_frames_are_rounded_with_a_warning(wan: Engine, caplog: pytest.LogCaptureFixture) -> None:
    request = wan.resolve(Request(prompt="x", num_frames=6))
    assert request.num_frames == 5
    assert caplog.messages == [f"num_frames: 6 becomes 5, since {wan.spec.id} needs 4k + 1"]


def test_previews_of_a_stock_call(sdxl: Engine, wan: Engine) -> None:
    fields: dict[str, Any] = {"height": 64, "width": 64, "num_inference_steps": 3, "seed": 1}
    seen: list[Progress] = []
    list(sdxl.run(Request(prompt="x", **fields), Control(seen.append, preview=True)))
    steps = [progress for progress in seen if progress.stage == "denoising"]
    assert all(progress.preview for progress in steps)
    fields |= {"num_frames": 5, "height": 32, "width": 32}
    assert list(wan.run(Request(prompt="x", **fields), Control(preview=True))), "clips have no preview, and draw"


def test_cancel_while_a_stock_call_decodes(sdxl: Engine) -> None:
    decoder = _parts(sdxl)["vae"].decoder
    control, decoded = Control(), list[None]()
    before = decoder.register_forward_pre_hook(lambda *_: control.cancel())
    after = decoder.register_forward_hook(lambda *_: decoded.append(None))
    with pytest.raises(Cancelled):
        list(sdxl.run(Request(prompt="x", height=64, width=64, num_inference_steps=1), control))
    before.remove()
    after.remove()
    assert decoded == []


def test_a_pipeline_that_edits_needs_a_picture(flux_folder: Path) -> None:
    with Engine.from_pretrained(str(flux_folder), pipeline_class_name="FluxImg2ImgPipeline", **FP32) as engine:
        assert engine.spec.tasks == ("I2I",)
        with pytest.raises(UsageError) as error:
            engine.resolve(Request(prompt="x"))
    assert error.value.message == f"image_path: {flux_folder} needs one"


def test_a_stock_pipeline_runs_alone(sdxl: Engine) -> None:
    assert sdxl.executor is not None
    assert sdxl.executor.scheduler.max_running == 1
