"""Qwen-Image-Edit through our stages equals diffusers' own pipelines, once these see where patches lie."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import QwenImageEditPipeline, QwenImageEditPlusPipeline
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from PIL import Image

from engine.engine import Engine
from engine.errors import ModelError, UsageError
from engine.models.tiny.qwen_image import processor
from engine.types import Output, Progress, Request

SHARED = {"prompt": "make it blue", "num_inference_steps": 2, "height": 64, "width": 64}
GUIDED = {"negative_prompt": "snow and fog", "true_cfg_scale": 4.0}
PLAIN = {"true_cfg_scale": 1.0}
ONE, PLUS = QwenImageEditPipeline, QwenImageEditPlusPipeline
FAMILIES = {"qwen-image-edit": ONE, "qwen-image-edit-2509": PLUS, "qwen-image-edit-2511": PLUS}


@pytest.fixture(autouse=True)
def small_areas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let input pictures be scaled to 96 x 96 pixels' area, for the text encoder of the later editors to 64 x 64."""
    plus: Any = pipeline_qwenimage_edit_plus
    monkeypatch.setattr(plus, "VAE_IMAGE_SIZE", 96 * 96)
    monkeypatch.setattr(plus, "CONDITION_IMAGE_SIZE", 64 * 64)
    monkeypatch.setattr(
        pipeline_qwenimage_edit,
        "calculate_dimensions",
        lambda _, ratio: (*plus.calculate_dimensions(96 * 96, ratio), None),
    )


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures of three shapes: wide, high, square."""
    rng = np.random.default_rng(5)
    place = tmp_path_factory.mktemp("pictures")
    sizes = ((48, 80), (90, 40), (64, 64))
    paths = [place / f"{height}x{width}.png" for height, width in sizes]
    for path, size in zip(paths, sizes, strict=True):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return paths


@contextmanager
def corrected(encoder: Any) -> Iterator[None]:
    """Give the text encoder the token types that the stock pipelines do not."""
    forward = encoder.forward

    def with_types(input_ids: torch.Tensor, **given: Any) -> Any:
        types = torch.zeros_like(input_ids)
        types[input_ids == encoder.config.image_token_id] = 1
        return forward(input_ids=input_ids, mm_token_type_ids=types, **given)

    encoder.forward = with_types
    try:
        yield
    finally:
        del encoder.forward


def stock_frames(engine: Engine, parity: Any, seed: int, images: list[Path], **fields: Any) -> np.ndarray[Any, Any]:
    """What the corrected stock call draws."""
    cls: Any = PLUS if engine.spec.max_images > 1 else ONE
    opened: Any = [Image.open(path) for path in images]
    with parity.stock(engine, cls) as pipeline, corrected(pipeline.text_encoder):
        pipeline.processor = processor(pipeline.tokenizer)
        arguments = {**SHARED, **fields, "image": opened if cls is PLUS else opened[0]}
        generator = torch.Generator().manual_seed(seed)
        frames: np.ndarray[Any, Any] = pipeline(**arguments, generator=generator, output_type="np")[0]
    return frames


def ours(engine: Engine, seed: int, images: list[Path], **fields: Any) -> np.ndarray[Any, Any]:
    (output,) = engine.generate(**{**SHARED, **fields}, image_path=[str(path) for path in images], seed=seed)
    return output.frames


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_is_known_as_its_model(tiny_engine: Any, family: str) -> None:
    spec = tiny_engine(family).spec
    assert (spec.id.lower(), spec.family) == (f"qwen/{family}", "qwen_image_edit")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cfg", [PLAIN, GUIDED], ids=["plain", "guided"])
def test_one_picture(tiny_engine: Any, parity: Any, pictures: list[Path], family: str, cfg: dict[str, Any]) -> None:
    engine = tiny_engine(family)
    parity.same(ours(engine, 3, pictures[:1], **cfg), stock_frames(engine, parity, 3, pictures[:1], **cfg))


@pytest.mark.parametrize("family", ["qwen-image-edit-2509", "qwen-image-edit-2511"])
@pytest.mark.parametrize("count", [2, 3])
def test_pictures_of_several_shapes(
    tiny_engine: Any, parity: Any, pictures: list[Path], family: str, count: int
) -> None:
    engine = tiny_engine(family)
    fields = {**GUIDED, "height": 48, "width": 96, "num_inference_steps": 3}
    parity.same(
        ours(engine, 5, pictures[:count], **fields), stock_frames(engine, parity, 5, pictures[:count], **fields)
    )


def test_a_high_picture_in_a_wide_output(tiny_engine: Any, parity: Any, pictures: list[Path]) -> None:
    engine = tiny_engine("qwen-image-edit")
    fields = {**PLAIN, "height": 48, "width": 80}
    parity.same(ours(engine, 5, pictures[1:2], **fields), stock_frames(engine, parity, 5, pictures[1:2], **fields))


def test_two_outputs_are_two_stock_calls(tiny_engine: Any, parity: Any, pictures: list[Path]) -> None:
    engine = tiny_engine("qwen-image-edit-2511")
    paths = [str(path) for path in pictures[:2]]
    outputs = engine.generate(**SHARED, **PLAIN, image_path=paths, seed=21, n=2)
    assert [output.seed for output in outputs] == [21, 22]
    for output in outputs:
        parity.same(output.frames, stock_frames(engine, parity, output.seed, pictures[:2], **PLAIN))


def test_everything_that_is_given_matters(tiny_engine: Any, pictures: list[Path]) -> None:
    engine = tiny_engine("qwen-image-edit-2509")
    one = ours(engine, 1, pictures[:2], **GUIDED)
    others = (
        ours(engine, 1, pictures[:2], **GUIDED | {"prompt": "make it red"}),
        ours(engine, 1, pictures[:2], **GUIDED | {"negative_prompt": "rain"}),
        ours(engine, 1, pictures[1::-1], **GUIDED),
        ours(engine, 1, pictures[:1], **GUIDED),
        ours(tiny_engine("qwen-image-edit-2511"), 1, pictures[:2], **GUIDED),  # of equal weights
    )
    assert all((one != other).any() for other in others)


def test_the_text_encoder_sees_where_patches_lie(tiny_engine: Any, parity: Any, pictures: list[Path]) -> None:
    engine = tiny_engine("qwen-image-edit-2509")
    image = Image.open(pictures[2])
    model: Any = engine.executor.scheduler.pipeline.model
    with parity.stock(engine, PLUS) as pipeline:
        pipeline.processor = processor(pipeline.tokenizer)
        asked = {"prompt": ["make it blue"], "image": [image], "device": torch.device("cpu")}
        flat = pipeline.encode_prompt(**asked)[0]
        with corrected(pipeline.text_encoder):
            placed = pipeline.encode_prompt(**asked)[0]
    state: Any = SimpleNamespace(
        request=Request(image_path=(str(pictures[2]),), max_sequence_length=512),
        device=torch.device("cpu"),
        grid=(64, 64),
    )
    embeds = model.conditioning(state, "make it blue")["encoder_hidden_states"]
    assert torch.equal(embeds, placed)
    assert (embeds - flat).abs().max() > 1e-3
    assert not model.components["text_encoder"]._forward_pre_hooks


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_pictures_of_every_mode(tiny_engine: Any, tmp_path: Path, pictures: list[Path], mode: str) -> None:
    engine = tiny_engine("qwen-image-edit")
    image = Image.open(pictures[0]).convert(mode)
    image.save(tmp_path / "image.png")
    image.convert("RGB").save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(
        ours(engine, 1, [tmp_path / "image.png"], **PLAIN), ours(engine, 1, [tmp_path / "rgb.png"], **PLAIN)
    )


@pytest.mark.parametrize("size", [(80, 48), (48, 80), (64, 64), (1000, 333), (400, 300), (99, 1), (1, 100)])
def test_the_last_picture_shapes_the_output_as_in_the_stock_call(
    tiny_engine: Any, tmp_path: Path, pictures: list[Path], size: tuple[int, int]
) -> None:
    Image.new("RGB", size).save(tmp_path / "last.png")
    sources = (str(pictures[1]), str(tmp_path / "last.png"))
    resolved = tiny_engine("qwen-image-edit-2509").resolve(Request(prompt="x", image_path=sources))
    stock: Any = pipeline_qwenimage_edit_plus
    assert (resolved.width, resolved.height) == stock.calculate_dimensions(1024 * 1024, size[0] / size[1])


def test_only_so_many_tokens_of_a_prompt_count(
    tiny_engine: Any, pictures: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    engine = tiny_engine("qwen-image-edit")
    tokens = len(engine.executor.scheduler.pipeline.model.components["tokenizer"]("a red")["input_ids"])
    fields = {**PLAIN, "max_sequence_length": tokens}
    long = ours(engine, 1, pictures[:1], **fields | {"prompt": "a red house at night"})
    assert f"prompt: only the first {tokens} of its" in caplog.text
    np.testing.assert_array_equal(long, ours(engine, 1, pictures[:1], **fields | {"prompt": "a red"}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": "a <|image_pad|>"}, "prompt: must not hold <|image_pad|>, which Qwen/Qwen-Image-Edit itself uses"),
        (
            {"negative_prompt": "<|image_pad|>"},
            "negative_prompt: must not hold <|image_pad|>, which Qwen/Qwen-Image-Edit itself uses",
        ),
        ({"max_sequence_length": 1025}, "max_sequence_length: must be at most 1024 for Qwen/Qwen-Image-Edit, got 1025"),
        ({"mask_path": "m.png"}, "mask_path: Qwen/Qwen-Image-Edit takes no mask"),
        ({"image_path": None}, "image_path: Qwen/Qwen-Image-Edit needs one"),
        ({"image_path": ["a.png", "b.png"]}, "image_path: Qwen/Qwen-Image-Edit takes one image, got 2"),
    ],
)
def test_what_cannot_be_edited(tiny_engine: Any, pictures: list[Path], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        tiny_engine("qwen-image-edit").generate(**{**SHARED, "image_path": [str(pictures[0])], **fields})
    assert error.value.message == message


def test_a_picture_that_is_a_line(tiny_engine: Any, tmp_path: Path) -> None:
    Image.new("RGB", (101, 1)).save(tmp_path / "line.png")
    with pytest.raises(UsageError) as error:
        ours(tiny_engine("qwen-image-edit"), 1, [tmp_path / "line.png"])
    message = "image_path: an image is 101x1, but for Qwen/Qwen-Image-Edit one side may be at most 100 times the other"
    assert error.value.message == message


def test_a_preview_shows_the_picture_and_changes_nothing(tiny_engine: Any, pictures: list[Path]) -> None:
    engine = tiny_engine("qwen-image-edit-2511")
    fields = {**SHARED, **GUIDED, "image_path": [str(pictures[0])], "seed": 2}
    events = list(engine.stream(preview=True, **fields))
    previews = [event.preview for event in events if isinstance(event, Progress) and event.stage == "denoising"]
    assert [preview is not None and preview.startswith(b"\xff\xd8") for preview in previews] == [True, True]
    (output,) = (event for event in events if isinstance(event, Output))
    np.testing.assert_array_equal(output.frames, engine.generate(**fields)[0].frames)


@pytest.mark.parametrize("vae", ["bf16", "fp32"])
def test_half_precision(tiny_engine: Any, pictures: list[Path], vae: str) -> None:
    precisions = {"dit_precision": "bf16", "text_encoder_precisions": ("bf16",), "vae_precision": vae}
    assert ours(tiny_engine("qwen-image-edit-2511", **precisions), 1, pictures[:2], **GUIDED).std() > 1


def test_runs_in_turns_equal_runs_alone(tiny_engine: Any, parity: Any, pictures: list[Path]) -> None:
    engine = tiny_engine("qwen-image-edit-2511")
    requests = [
        {**SHARED, **GUIDED, "image_path": [str(path) for path in pictures[:2]], "seed": 1},
        {**SHARED, **PLAIN, "image_path": [str(pictures[2])], "width": 96, "seed": 2},
    ]
    alone = [engine.generate(**request)[0].frames for request in requests]
    for expected, frames in zip(alone, parity.in_turns(engine, requests), strict=True):
        np.testing.assert_array_equal(frames, expected)


def test_a_processor_folder_as_it_is_published(tiny_engine: Any, tmp_path: Path) -> None:
    """Published folders hold the settings of the picture half in a file of their own."""
    folder = tiny_engine("qwen-image-edit").source.folder
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    nested = json.loads((copy / "processor" / "processor_config.json").read_text())
    (copy / "processor" / "processor_config.json").unlink()
    (copy / "processor" / "preprocessor_config.json").write_text(
        json.dumps({**nested["image_processor"], "processor_class": "Qwen2VLProcessor"})
    )
    with Engine.from_pretrained(str(copy), model_id="Qwen-Image-Edit") as engine:
        assert engine.executor is not None
        model: Any = engine.executor.scheduler.pipeline.model
        assert model.components["processor"].size["longest_edge"] == 112 * 112


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="with torchvision it can be loaded")
def test_a_stock_pipeline_says_what_it_lacks(tiny_engine: Any) -> None:
    """It needs the whole processor; a picture half in its place would fail in the middle of a call."""
    folder = tiny_engine("qwen-image-edit").source.folder
    with pytest.raises(ModelError, match="processor: Qwen2VLProcessor cannot be loaded: "):
        Engine.from_pretrained(str(folder), backend="diffusers")
