"""Requests for videos: what a model can do, how long a clip is, what a remix takes over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine import catalog
from engine.catalog import ModelSpec
from engine.errors import InputError
from engine.jobs import Job
from engine.types import LoraRef, Request
from sgdiff_app.server import video_request
from sgdiff_app.server.body import Body
from sgdiff_app.server.errors import ApiError
from sgdiff_app.server.fields import VideoFields
from sgdiff_app.server.inputs import Inputs


def spec(name: str) -> ModelSpec:
    found = catalog.by_name(name)
    assert found is not None
    return found


T2V, I2V, TI2V = spec("Wan2.1-T2V-1.3B"), spec("Wan2.1-I2V-14B-480P"), spec("Wan2.2-TI2V-5B")


@pytest.mark.parametrize(
    ("model", "task", "has_input"),
    [
        (T2V, None, False), (T2V, "T2V", False), (I2V, None, True), (I2V, "I2V", True), (TI2V, None, False),
        (TI2V, None, True), (TI2V, "T2V", False), (TI2V, "TI2V", True),
    ],
)  # fmt: skip
def test_what_a_model_can_do(model: ModelSpec, task: str | None, has_input: bool) -> None:
    video_request.check_task(model, task, has_input)


@pytest.mark.parametrize(
    ("model", "task", "has_input", "code", "message"),
    [
        (T2V, None, True, "unsupported_task", "input_reference is not supported for T2V models"),
        (TI2V, "T2V", True, "unsupported_task", "input_reference is not supported for T2V models"),
        (I2V, None, False, "missing_parameter", f"input_reference: {I2V.id} needs one for I2V"),
        (TI2V, "TI2V", False, "missing_parameter", f"input_reference: {TI2V.id} needs one for TI2V"),
        (TI2V, "I2V", True, "unsupported_task", f"task_type: {TI2V.id} does not do I2V; it does T2V, TI2V"),
        (spec("FLUX.1-dev"), None, False, "unsupported_task", "draws pictures, not videos; POST /v1/images/gen"),
    ],
)
def test_what_it_cannot(model: ModelSpec, task: str | None, has_input: bool, code: str, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        video_request.check_task(model, task, has_input)
    assert (caught.value.status, caught.value.code) == (400, code)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("request_", "seconds", "fps", "frames"),
    [
        (Request(), None, None, None),
        (Request(), "4", None, 64),
        (Request(), 4, 24, 96),
        (Request(fps=8), "4", 24, 32),
        (Request(num_frames=5, fps=8), "4", 24, 5),
    ],
)
def test_seconds_are_frames(request_: Request, seconds: Any, fps: int | None, frames: int | None) -> None:
    assert video_request.timed(request_, VideoFields(seconds=seconds), fps, T2V).num_frames == frames


def source(**changes: Any) -> Job:
    request = Request(prompt="a boat", width=64, height=48, num_frames=5, fps=4, seed=7, num_inference_steps=20)
    notes = changes.pop("notes", {})
    return Job("video_1", "video", "m", "m", request, request.replace(**changes), notes=notes)


def test_a_remix_takes_over_everything_but_what_is_said() -> None:
    job = source(loras=(LoraRef(path="a"),), guidance_scale=3.5)
    request = video_request.remixed(job, Request(prompt="b", guidance_scale=2.0), {"prompt", "guidance_scale"})
    assert request == job.resolved.replace(prompt="b", guidance_scale=2.0)


def test_a_word_for_the_quality_of_a_remix_decides_its_steps_unless_they_are_given() -> None:
    low = Request(prompt="b", quality="low")
    job = source(notes={"quality": "high"})
    assert video_request.remixed(job, low, {"prompt", "quality"}).num_inference_steps is None
    both = low.replace(num_inference_steps=9)
    assert video_request.remixed(job, both, {"prompt", "quality", "num_inference_steps"}).num_inference_steps == 9
    same = video_request.remixed(job, Request(prompt="b"), {"prompt"})
    assert (same.quality, same.num_inference_steps) == ("high", 20)


def test_seeds_of_several_outputs_make_way_for_another_number_of_them() -> None:
    job = source(seed=(3, 5), num_outputs_per_prompt=2)
    assert video_request.remixed(job, Request(prompt="b"), {"prompt"}).seed == (3, 5)
    three = Request(prompt="b", num_outputs_per_prompt=3)
    assert video_request.remixed(job, three, {"prompt", "num_outputs_per_prompt"}).seed == 3


def test_what_a_body_speaks_of_by_whatever_name() -> None:
    body = Body({"prompt": "a", "steps": 4, "n": 2, "size": "64x48", "user": "me", "seconds": "2", "lora_path": "x"})
    fields = VideoFields(size="64x48", seconds="2", lora_path="x")
    assert video_request.given(body, fields) == {
        "prompt", "num_inference_steps", "num_outputs_per_prompt", "width", "height", "num_frames", "loras",
    }  # fmt: skip
    assert video_request.given(Body({"size": "auto"}), VideoFields(size="auto")) == set()


def test_inputs_of_a_remix_are_copies(tmp_path: Path) -> None:
    service: Any = None
    (tmp_path / "video_1_0.png").write_bytes(b"picture")
    inputs = Inputs(service, "video_2")
    found = video_request.copied([str(tmp_path / "video_1_0.png")], inputs)
    assert found == tuple(inputs.saved) == (str(tmp_path / "video_2_0.png"),)
    assert Path(found[0]).read_bytes() == b"picture"
    with pytest.raises(InputError, match=r"^input_reference: the input of the source is not there any more"):
        video_request.copied([str(tmp_path / "gone.png")], inputs)
