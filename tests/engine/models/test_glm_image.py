"""GLM-Image through our stages equals diffusers' own pipeline over the same modules, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import GlmImagePipeline
from diffusers.pipelines.glm_image import pipeline_glm_image
from PIL import Image
from transformers import GlmImageProcessor

from engine import env
from engine.engine import Engine, spec_of
from engine.errors import Cancelled, InputError, UsageError
from engine.runtime.control import Control
from engine.types import Request

SHARED = {"prompt": 'a sign that says "hello"', "num_inference_steps": 3, "max_sequence_length": 64}
SIZE = {"height": 64, "width": 96}


@pytest.fixture
def engine(tiny_engine: Callable[..., Engine]) -> Engine:
    return tiny_engine("glm-image")


@pytest.fixture
def short_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the prior's preview, which it draws before a picture, have 4 tokens in place of 256."""
    monkeypatch.setattr(
        GlmImageProcessor, "_get_target_shape", lambda self, height, width: (height // 32, width // 32, 2, 2)
    )


def _ours(engine: Engine, seed: int, **fields: Any) -> np.ndarray[Any, Any]:
    (output,) = engine.generate(**{**SHARED, **SIZE, **fields}, seed=seed)
    return output.frames


def _stock(engine: Engine, parity: Any, seed: int, **fields: Any) -> np.ndarray[Any, Any]:
    arguments = {**SHARED, **SIZE, **fields}
    frames: np.ndarray[Any, Any] = parity.stock_frames(engine, GlmImagePipeline, seed, **arguments)
    return frames


@pytest.fixture
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two pictures of other sizes, in multiples of 32 pixels, which is all that the stock call can read."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(1)
    paths = [folder / "one.png", folder / "two.png"]
    for path, shape in zip(paths, ((64, 32, 3), (32, 64, 3)), strict=True):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return paths


def _stock_with_images(
    engine: Engine, parity: Any, monkeypatch: pytest.MonkeyPatch, seed: int, images: list[Path], **fields: Any
) -> np.ndarray[Any, Any]:
    """The stock call, with the list of feature maps that it has of its images passed on to the prior as it is.

    It puts the maps together in the form of an older transformers, which the prior no longer takes.
    """

    class Maps(list[torch.Tensor]):
        pass

    class Torch:
        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

        def cat(self, tensors: Any, dim: int = 0) -> Any:
            return tensors if isinstance(tensors, Maps) else torch.cat(tensors, dim=dim)

    prior = _model(engine).components["vision_language_encoder"]
    original = prior.get_image_features

    def features(*arguments: Any, **named: Any) -> Any:
        found = original(*arguments, **named)
        found.pooler_output = Maps(found.pooler_output)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(pipeline_glm_image, "torch", Torch())
        patch.setattr(prior, "get_image_features", features)
        return _stock(engine, parity, seed, image=[Image.open(path) for path in images], **fields)


def _model(engine: Engine) -> Any:
    executor: Any = engine.executor
    return executor.scheduler.pipeline.model


def _paths(images: list[Path]) -> tuple[str, ...]:
    return tuple(str(path) for path in images)


@pytest.mark.parametrize("scale", [1.0, 1.5])
@pytest.mark.parametrize("count", [1, 2])
def test_image_input(
    engine: Engine,
    parity: Any,
    monkeypatch: pytest.MonkeyPatch,
    pictures: list[Path],
    count: int,
    scale: float,
) -> None:
    images = pictures[:count]
    ours = _ours(engine, 5, image_path=_paths(images), guidance_scale=scale)
    parity.same(ours, _stock_with_images(engine, parity, monkeypatch, 5, images, guidance_scale=scale))


@pytest.mark.parametrize("prompt", ["a cat", 'a sign that says "hello"'], ids=["no-glyphs", "glyphs"])
def test_text_to_image(engine: Engine, parity: Any, prompt: str) -> None:
    parity.same(_ours(engine, 7, prompt=prompt), _stock(engine, parity, 7, prompt=prompt))


@pytest.mark.usefixtures("short_prior")
@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("size", [(64, 64), (96, 32)])
def test_guidance_and_sizes(engine: Engine, parity: Any, size: tuple[int, int], scale: float) -> None:
    fields = {"height": size[0], "width": size[1], "guidance_scale": scale, "num_inference_steps": 5}
    parity.same(_ours(engine, 3, **fields), _stock(engine, parity, 3, **fields))


@pytest.mark.usefixtures("short_prior")
def test_two_outputs_are_two_stock_calls(engine: Engine, parity: Any) -> None:
    outputs = engine.generate(**SHARED, **SIZE, seed=21, n=2)
    assert [output.seed for output in outputs] == [21, 22]
    for output in outputs:
        parity.same(output.frames, _stock(engine, parity, output.seed))


@pytest.mark.usefixtures("short_prior")
@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("prompt", ('a sign that says "hello"', 'a sign that says "good night"')),
        ("guidance_scale", (1.0, 4.0)),
        ("max_sequence_length", (3, 64)),
    ],
)
def test_a_setting_changes_the_picture(engine: Engine, field: str, values: tuple[Any, Any]) -> None:
    one, other = (_ours(engine, 3, **{"guidance_scale": 4.0, field: value}) for value in values)
    assert (one != other).any()


def test_each_input_image_changes_the_picture(engine: Engine, pictures: list[Path]) -> None:
    one, other = pictures
    drawn = [_ours(engine, 3, image_path=_paths(images)) for images in ([one], [other], [one, other])]
    assert all((a != b).any() for i, a in enumerate(drawn) for b in drawn[:i])


def test_an_input_image_of_any_size_is_read_as_the_prior_sees_it(engine: Engine, picture: Path) -> None:
    assert _ours(engine, 3, image_path=(str(picture),)).std() > 1  # 80 x 48: the prior sees 64 x 32


def test_an_input_image_that_the_prior_cannot_read_is_refused(engine: Engine, tmp_path: Path) -> None:
    for size, problem in (
        ((320, 64), "but for zai-org/GLM-Image one side may be at most 4 times the other"),
        ((12, 12), "but zai-org/GLM-Image needs at least 16 pixels a side"),
    ):
        path = tmp_path / "input.png"
        Image.new("RGB", size).save(path)
        with pytest.raises(InputError) as caught:
            _ours(engine, 1, image_path=(str(path),))
        assert caught.value.message == f"image_path: an image is {size[0]}x{size[1]}, {problem}"


def test_the_stock_call_is_not_given_images(engine: Engine, pictures: list[Path]) -> None:
    _, spec = spec_of(replace(engine.config, backend="diffusers"), env.read())  # reads no weights
    assert spec.family == "passthrough"
    with pytest.raises(UsageError) as caught:
        Request(**SHARED, image_path=_paths(pictures)).resolve(spec)
    assert caught.value.message == (
        "image_path: zai-org/GLM-Image takes it with --backend native alone: "
        "diffusers cannot read its images with this version of transformers"
    )
    assert Request(**SHARED).resolve(spec).guidance_scale == 1.5


def test_a_prompt_must_not_stand_for_an_image(engine: Engine) -> None:
    with pytest.raises(UsageError) as caught:
        engine.resolve(Request(prompt="a <|image|> of a cat"))
    assert caught.value.message == "prompt: must not hold <|image|>, which zai-org/GLM-Image itself uses"


def test_a_size_between_multiples_is_drawn_larger_and_cut(engine: Engine, pictures: list[Path]) -> None:
    fields = {"image_path": _paths(pictures[:1])}
    cut = _ours(engine, 9, height=50, width=70, **fields)[0]
    np.testing.assert_array_equal(cut, _ours(engine, 9, height=64, width=96, **fields)[0, :50, :70])


def test_the_priors_randomness_is_its_own(engine: Engine, pictures: list[Path]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = _ours(engine, 4, image_path=_paths(pictures))
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(one, _ours(engine, 4, image_path=_paths(pictures)))


def test_a_cancel_takes_effect_within_the_prior(engine: Engine) -> None:
    control, calls = Control(), 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            control.cancel()

    hook = _model(engine).components["vision_language_encoder"].register_forward_hook(count)
    with pytest.raises(Cancelled):
        list(engine.run(Request(**SHARED, **SIZE, seed=1), control))
    hook.remove()
    assert calls == 3


@pytest.mark.usefixtures("short_prior")
def test_previews_show_the_picture_and_leave_it_as_it_is(engine: Engine) -> None:
    fields = {**SHARED, **SIZE, "seed": 6}
    *progress, output = engine.stream(**fields, preview=True)
    pictures = [entry.preview for entry in progress if entry.preview]
    assert len(pictures) == 3 and all(picture.startswith(b"\xff\xd8") for picture in pictures)
    np.testing.assert_array_equal(output.frames, engine.generate(**fields)[0].frames)


def test_runs_in_turns_draw_what_they_draw_alone(engine: Engine, parity: Any, pictures: list[Path]) -> None:
    asked: list[dict[str, Any]] = [
        {**SHARED, **SIZE, "image_path": _paths(pictures), "seed": 1},
        {**SHARED, "height": 64, "width": 64, "image_path": _paths(pictures[1:]), "guidance_scale": 1.0, "seed": 2},
    ]
    for fields, frames in zip(asked, parity.in_turns(engine, asked), strict=True):
        np.testing.assert_array_equal(frames, engine.generate(**fields)[0].frames)


@pytest.mark.parametrize("vae", ["bf16", "fp32"])
def test_bf16_draws(tiny_engine: Any, pictures: list[Path], vae: str) -> None:
    settings = {"dit_precision": "bf16", "vae_precision": vae, "text_encoder_precisions": ("bf16",)}
    engine = tiny_engine("glm-image", **settings)
    assert engine.spec.id == "zai-org/GLM-Image"
    assert _ours(engine, 8, image_path=_paths(pictures)).std() > 1
