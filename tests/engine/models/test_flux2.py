"""FLUX.2 through our stages equals diffusers' own pipelines over the same modules, to the last bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import Flux2KleinPipeline, Flux2Pipeline
from PIL import Image

from engine.engine import Engine
from engine.errors import InputError, UsageError
from engine.types import Output, Progress, Request

SHARED = {"prompt": "a red house", "num_inference_steps": 2, "max_sequence_length": 128}
STOCK = {"text_encoder_out_layers": (1, 2, 3)}  # the tiny encoders have four layers
CLASSES = {"flux2": Flux2Pipeline, "flux2-klein": Flux2KleinPipeline, "flux2-klein-base": Flux2KleinPipeline}

Build = Callable[..., Engine]


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures of 96 x 80 and of 70 x 100 pixels."""
    folder, rng = tmp_path_factory.mktemp("references"), np.random.default_rng(0)
    paths = [folder / "first.png", folder / "second.png"]
    for path, (width, height) in zip(paths, [(96, 80), (70, 100)], strict=True):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def check(tiny_engine: Build, parity: Any) -> Any:
    """Assert that ours and the stock call draw the same, and return what they draw."""

    def run(family: str, seed: int, images: list[Path] | None = None, **fields: Any) -> np.ndarray[Any, Any]:
        engine, given = tiny_engine(family), {**SHARED, **fields}
        arguments = {**given, **STOCK} | ({"image": [Image.open(path) for path in images]} if images else {})
        frames = _ours(engine, seed, images, **fields)
        parity.same(frames, parity.stock_frames(engine, CLASSES[family], seed, **arguments))
        return frames

    return run


def _ours(engine: Engine, seed: int, images: list[Path] | None = None, **fields: Any) -> np.ndarray[Any, Any]:
    paths = {"image_path": tuple(map(str, images))} if images else {}
    (output,) = engine.generate(**{**SHARED, **fields, **paths}, seed=seed)
    return output.frames


@pytest.mark.parametrize(
    ("family", "known"), [("flux2", "dev"), ("flux2-klein", "klein-4B"), ("flux2-klein-base", "klein-base-4B")]
)
def test_a_folder_tells_the_model(tiny_engine: Build, family: str, known: str) -> None:
    assert tiny_engine(family).spec.id == f"black-forest-labs/FLUX.2-{known}"


@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
@pytest.mark.parametrize("family", CLASSES)
def test_text_to_image(check: Any, family: str, size: tuple[int, int]) -> None:
    fields = {"height": size[0], "width": size[1], "guidance_scale": 1.0}
    frames = check(family, 7, **fields)
    assert (frames != check(family, 7, **{**fields, "prompt": "the sea"})).any(), "the prompt must matter"


def test_embedded_guidance(check: Any) -> None:
    weak, strong = (check("flux2", 3, height=48, width=64, guidance_scale=scale) for scale in (1.5, 6.0))
    assert (weak != strong).any(), "guidance must change the picture"


def test_classifier_free_guidance_of_klein_base(check: Any) -> None:
    plain, guided = (check("flux2-klein-base", 3, height=48, width=64, guidance_scale=scale) for scale in (1.0, 4.0))
    assert (plain != guided).any(), "guidance must change the picture"


def test_distilled_klein_ignores_guidance(check: Any, caplog: pytest.LogCaptureFixture) -> None:
    plain, guided = (check("flux2-klein", 3, height=48, width=64, guidance_scale=scale) for scale in (1.0, 4.0))
    np.testing.assert_array_equal(plain, guided)
    assert "guidance_scale has no effect on black-forest-labs/FLUX.2-klein-4B" in caplog.text


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("family", CLASSES)
def test_reference_images(check: Any, tiny_engine: Build, references: list[Path], family: str, count: int) -> None:
    fields = {"height": 64, "width": 48, "guidance_scale": 3.0}
    frames = check(family, 5, references[:count], **fields)
    fewer = _ours(tiny_engine(family), 5, references[: count - 1], **fields)
    assert (frames != fewer).any(), "every image must matter"


def test_the_first_image_gives_the_size(check: Any, references: list[Path]) -> None:
    frames = check("flux2-klein", 2, references[::-1], guidance_scale=1.0)
    assert frames.shape[1:3] == (96, 64)  # 70 x 100 in whole tokens, and no larger


def test_a_large_image_is_shrunk(tiny_engine: Build, parity: Any, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (1000, 1200, 3), dtype=np.uint8)).save(path)
    engine = tiny_engine("flux2-klein")
    with parity.stock(engine, Flux2KleinPipeline) as pipeline:
        seen: list[Any] = []
        pipeline.image_processor.preprocess = lambda image, **size: seen.append((image, size)) or 1 / 0
        with pytest.raises(ZeroDivisionError):
            pipeline(image=Image.open(path), prompt="x", **STOCK)
    ((image, size),) = seen
    model: Any = engine.executor.scheduler.pipeline.model  # type: ignore[union-attr]
    reference = model.reference(str(path))
    assert reference.shape[2:] == (size["height"], size["width"]) == (928, 1120)
    expected = model.helpers.image_processor.preprocess(image, **size)
    np.testing.assert_array_equal(reference.numpy(), expected.numpy())
    request = engine.resolve(Request(prompt="x", image_path=(str(path),)))
    assert (request.height, request.width) == (928, 1120)


@pytest.mark.parametrize(
    ("size", "problem"),
    [
        ((63, 80), "needs at least 64 pixels a side"),
        ((640, 64), "one side may be at most 8 times the other"),
    ],
)
def test_an_image_that_the_model_cannot_read(
    tiny_engine: Build, tmp_path: Path, size: tuple[int, int], problem: str
) -> None:
    path = tmp_path / "image.png"
    Image.new("RGB", size).save(path)
    with pytest.raises(InputError) as caught:
        tiny_engine("flux2").generate(**SHARED, image_path=str(path), height=64, width=64)
    assert problem in caught.value.message
    assert f"{size[0]}x{size[1]}" in caught.value.message


def test_dev_takes_no_negative_prompt(tiny_engine: Build) -> None:
    with pytest.raises(UsageError) as caught:
        tiny_engine("flux2").generate(**SHARED, negative_prompt="rain")
    assert caught.value.message.startswith("negative_prompt: not used by black-forest-labs/FLUX.2-dev")


def test_two_outputs_are_two_stock_calls(tiny_engine: Build, parity: Any) -> None:
    engine, fields = tiny_engine("flux2"), {**SHARED, "height": 64, "width": 64}
    outputs = engine.generate(**fields, seed=21, n=2)
    assert [output.seed for output in outputs] == [21, 22]
    for output in outputs:
        parity.same(output.frames, parity.stock_frames(engine, Flux2Pipeline, output.seed, **fields, **STOCK))


def test_runs_taking_turns_draw_what_they_draw_alone(tiny_engine: Build, parity: Any, references: list[Path]) -> None:
    engine = tiny_engine("flux2-klein-base")
    guided = {"height": 64, "width": 64, "guidance_scale": 4.0, "image_path": [str(references[0])]}
    requests = [
        {**SHARED, **guided, "seed": 4},
        {**SHARED, "height": 48, "width": 80, "guidance_scale": 1.0, "num_inference_steps": 3, "seed": 4},
    ]
    for request, frames in zip(requests, parity.in_turns(engine, requests), strict=True):
        np.testing.assert_array_equal(frames, engine.generate(**request)[0].frames)


def test_a_preview_is_shown_and_changes_nothing(tiny_engine: Build) -> None:
    engine, fields = tiny_engine("flux2"), {**SHARED, "height": 64, "width": 96, "seed": 8}
    events = list(engine.stream(**fields, preview=True))
    previews = [event.preview for event in events if isinstance(event, Progress) and event.preview]
    assert len(previews) == 2
    assert all(preview.startswith(b"\xff\xd8") for preview in previews)
    (output,) = [event for event in events if isinstance(event, Output)]
    np.testing.assert_array_equal(output.frames, engine.generate(**fields)[0].frames)


@pytest.mark.parametrize("vae", ["bf16", "fp32"])
@pytest.mark.parametrize("family", ["flux2", "flux2-klein-base"])
def test_lower_precision(tiny_engine: Build, references: list[Path], family: str, vae: str) -> None:
    engine = tiny_engine(family, dit_precision="bf16", vae_precision=vae, text_encoder_precisions=("bf16",))
    assert _ours(engine, 1, references, height=64, width=64).std() > 1


def test_a_processor_is_read_as_the_tokenizer_inside_it(tiny_engine: Build, tmp_path: Path) -> None:
    ours = tiny_engine("flux2")
    folder = tmp_path / "published"
    shutil.copytree(ours.source.folder, folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["tokenizer"] = ["transformers", "PixtralProcessor"]  # as the published folder has it
    (folder / "model_index.json").write_text(json.dumps(index))
    with Engine.from_pretrained(
        str(folder), dit_precision="fp32", vae_precision="fp32", text_encoder_precisions=["fp32"]
    ) as engine:
        difference = _ours(engine, 6, height=64, width=64).astype(int) - _ours(ours, 6, height=64, width=64)
    assert np.abs(difference).max() <= 1  # of weights read twice
