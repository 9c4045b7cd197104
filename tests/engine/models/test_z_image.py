"""Z-Image through our stages equals diffusers' own pipelines over the same modules, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ZImageImg2ImgPipeline, ZImageInpaintPipeline, ZImagePipeline
from PIL import Image

from engine.engine import Engine
from engine.errors import UsageError
from engine.types import Request

SHARED = {"prompt": "a red house", "num_inference_steps": 3, "max_sequence_length": 64}
GUIDED = {"guidance_scale": 4.0, "negative_prompt": "snow and fog"}
SIZE = {"height": 48, "width": 80}


@pytest.fixture
def engine(tiny_engine: Callable[..., Engine]) -> Engine:
    return tiny_engine("z-image")


@pytest.fixture
def alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the network compute every picture of a list by itself.

    A stock call with guidance computes both branches as one batch, which rounds otherwise than two calls do.
    """
    network = _model(engine).network
    batched = network.forward

    def forward(x: list[torch.Tensor], t: torch.Tensor, cap_feats: list[torch.Tensor], **rest: Any) -> Any:
        parts = [batched([x[i]], t[i : i + 1], [cap_feats[i]], return_dict=False) for i in range(len(x))]
        return ([part[0][0] for part in parts],)

    monkeypatch.setattr(network, "forward", forward)


@pytest.fixture
def check(engine: Engine, parity: Any) -> Any:
    """Assert that ours and the stock call draw the same; `images` are the stock call's own."""

    def run(cls: Any, seed: int, images: dict[str, Any] | None = None, **fields: Any) -> None:
        parity.same(_ours(engine, seed, **fields), _stock(engine, parity, cls, seed, images, **fields))

    return run


def _model(engine: Engine) -> Any:
    executor: Any = engine.executor
    return executor.scheduler.pipeline.model


def _ours(engine: Engine, seed: int, **fields: Any) -> np.ndarray[Any, Any]:
    (output,) = engine.generate(**{**SHARED, **fields}, seed=seed)
    return output.frames


def _stock(
    engine: Engine, parity: Any, cls: Any, seed: int, images: dict[str, Any] | None = None, **fields: Any
) -> np.ndarray[Any, Any]:
    given = {"guidance_scale": engine.spec.defaults["guidance_scale"], **SHARED, **fields}
    arguments = {name: value for name, value in given.items() if name not in ("image_path", "mask_path")}
    frames: np.ndarray[Any, Any] = parity.stock_frames(engine, cls, seed, **arguments, **(images or {}))
    return frames


def _differs(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    return bool(np.abs(one.astype(int) - other.astype(int)).max() > 1)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
@pytest.mark.parametrize(
    "cfg",
    [
        {"guidance_scale": 0.0},
        {},
        GUIDED,
        {**GUIDED, "guidance_scale": 0.5, "cfg_normalization": 0.9},
        {**GUIDED, "cfg_normalization": 3.0},
    ],
    ids=["plain", "empty-negative", "negative", "capped", "not-capped"],
)
def test_text_to_image(check: Any, size: tuple[int, int], cfg: dict[str, Any]) -> None:
    check(ZImagePipeline, 7, height=size[0], width=size[1], **cfg)


def test_an_untouched_stock_call_with_guidance_differs_by_rounding_alone(engine: Engine, parity: Any) -> None:
    fields = {"height": 48, "width": 96, **GUIDED, "negative_prompt": "snow and fog " * 8}  # another padded length
    stock = _stock(engine, parity, ZImagePipeline, 7, **fields) * 255
    assert np.abs(_ours(engine, 7, **fields) - stock).max() < 0.51


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("prompt", ("a red house", "the sea")),
        ("negative_prompt", ("", "snow and fog")),
        ("guidance_scale", (1.0, 4.0)),
        ("cfg_normalization", (0.0, 0.8)),
        ("flow_shift", (3.0, 6.0)),
        ("max_sequence_length", (4, 64)),
    ],
)
def test_a_setting_changes_the_picture(engine: Engine, field: str, values: tuple[Any, Any]) -> None:
    one, other = (_ours(engine, 3, **{**SIZE, **GUIDED, field: value}) for value in values)
    assert _differs(one, other)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("cfg", [{"guidance_scale": 0.0}, GUIDED], ids=["plain", "guided"])
@pytest.mark.parametrize("strength", [0.4, 0.7, 1.0])
def test_image_to_image(check: Any, picture: Path, strength: float, cfg: dict[str, Any]) -> None:
    fields = {**SIZE, "strength": strength, "num_inference_steps": 5, **cfg}
    check(ZImageImg2ImgPipeline, 5, {"image": Image.open(picture)}, image_path=str(picture), **fields)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("size", [(48, 80), (64, 64)])
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_inpainting(check: Any, picture: Path, mask: Path, strength: float, size: tuple[int, int]) -> None:
    fields = {"height": size[0], "width": size[1], "strength": strength, "num_inference_steps": 4, **GUIDED}
    # The stock call takes the picture at its own size, and resizes the mask alone.
    sized = Image.open(picture).resize(size[::-1], Image.Resampling.LANCZOS)
    images = {"image": sized, "mask_image": Image.open(mask)}
    check(ZImageInpaintPipeline, 11, images, image_path=str(picture), mask_path=str(mask), **fields)


@pytest.mark.usefixtures("alone")
def test_two_outputs_are_two_stock_calls(engine: Engine, parity: Any) -> None:
    outputs = engine.generate(**SHARED, **SIZE, **GUIDED, seed=21, n=2)
    assert [output.seed for output in outputs] == [21, 22]
    for output in outputs:
        parity.same(output.frames, _stock(engine, parity, ZImagePipeline, output.seed, **SIZE, **GUIDED))


def test_the_shift_asked_for_replaces_the_schedulers(engine: Engine, parity: Any) -> None:
    ours = _ours(engine, 4, **SIZE, guidance_scale=0.0, flow_shift=2.0)
    with parity.stock(engine, ZImagePipeline) as pipeline:
        pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, shift=2.0)
        generator = torch.Generator().manual_seed(4)
        stock = pipeline(**SHARED, **SIZE, guidance_scale=0.0, generator=generator, output_type="np").images
    parity.same(ours, stock)


def test_turbo_is_known_by_its_folder_and_needs_no_guidance(tiny_engine: Any, parity: Any) -> None:
    turbo, base = tiny_engine("z-image-turbo"), tiny_engine("z-image")
    assert (turbo.spec.id, base.spec.id) == ("Tongyi-MAI/Z-Image-Turbo", "Tongyi-MAI/Z-Image")
    parity.same(_ours(turbo, 2, **SIZE), _stock(turbo, parity, ZImagePipeline, 2, **SIZE))
    resolved = turbo.resolve(Request(prompt="x"))
    assert (resolved.num_inference_steps, resolved.guidance_scale, resolved.flow_shift) == (9, 0.0, 3.0)


def test_a_size_between_multiples_is_drawn_larger_and_cut(engine: Engine) -> None:
    cut = _ours(engine, 9, height=50, width=70)[0]
    np.testing.assert_array_equal(cut, _ours(engine, 9, height=64, width=80)[0, :50, :70])


@pytest.mark.parametrize(("field", "limit"), [("max_sequence_length", 992), ("height", 8192), ("width", 8192)])
def test_more_than_its_positions_is_refused(engine: Engine, field: str, limit: int) -> None:
    with pytest.raises(UsageError) as caught:
        engine.resolve(Request(prompt="x", **{field: limit + 1}))  # type: ignore[arg-type]
    assert caught.value.message == f"{field}: must be at most {limit} for Tongyi-MAI/Z-Image, got {limit + 1}"


def test_the_longest_text_is_drawn(engine: Engine) -> None:
    assert _ours(engine, 1, prompt="xq " * 1000, max_sequence_length=992, **SIZE).std() > 1


def test_previews_show_the_picture_and_leave_it_as_it_is(engine: Engine) -> None:
    fields = {**SHARED, **SIZE, "seed": 6}
    *progress, output = engine.stream(**fields, preview=True)
    pictures = [entry.preview for entry in progress if entry.preview]
    assert len(pictures) == 3 and all(picture.startswith(b"\xff\xd8") for picture in pictures)
    np.testing.assert_array_equal(output.frames, engine.generate(**fields)[0].frames)


def test_runs_in_turns_draw_what_they_draw_alone(engine: Engine, parity: Any, picture: Path) -> None:
    asked: list[dict[str, Any]] = [
        {**SHARED, **SIZE, **GUIDED, "seed": 1},
        {**SHARED, "height": 64, "width": 64, "image_path": (str(picture),), "strength": 0.7, "seed": 2},
    ]
    for fields, frames in zip(asked, parity.in_turns(engine, asked), strict=True):
        np.testing.assert_array_equal(frames, engine.generate(**fields)[0].frames)


@pytest.mark.parametrize("vae", ["bf16", "fp32"])
def test_bf16_draws(tiny_engine: Any, picture: Path, vae: str) -> None:
    settings = {"dit_precision": "bf16", "vae_precision": vae, "text_encoder_precisions": ("bf16",)}
    engine = tiny_engine("z-image", **settings)
    for fields in ({}, {"image_path": str(picture), "strength": 0.7}):
        assert _ours(engine, 8, **SIZE, **GUIDED, **fields).std() > 1
