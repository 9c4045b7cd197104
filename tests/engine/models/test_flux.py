"""FLUX.1 through our stages equals diffusers' own pipelines over the same modules, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import FluxImg2ImgPipeline, FluxInpaintPipeline, FluxPipeline
from PIL import Image

from engine.engine import Engine

SHARED = {"prompt": "a red house", "num_inference_steps": 3, "max_sequence_length": 32, "guidance_scale": 3.5}


@pytest.fixture
def check(flux: Engine, parity: Any) -> Any:
    """Assert that ours and the stock call draw the same; `images` are the stock call's own."""

    def run(cls: Any, seed: int, engine: Engine = flux, images: dict[str, Any] | None = None, **fields: Any) -> None:
        given = {**SHARED, **fields}
        names = ("image_path", "mask_path")
        arguments = {name: value for name, value in given.items() if name not in names} | (images or {})
        parity.same(_ours(engine, seed, **fields), parity.stock_frames(engine, cls, seed, **arguments))

    return run


def _ours(engine: Engine, seed: int, **fields: Any) -> np.ndarray[Any, Any]:
    (output,) = engine.generate(**{**SHARED, **fields}, seed=seed)
    return output.frames


@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
@pytest.mark.parametrize("length", [32, 37, 7])
def test_text_to_image(check: Any, size: tuple[int, int], length: int) -> None:
    fields = {"height": size[0], "width": size[1], "max_sequence_length": length, "guidance_scale": 2.5}
    check(FluxPipeline, 7, **fields)


@pytest.mark.parametrize("negative", ["", "snow and fog"])
def test_true_cfg(flux: Engine, check: Any, negative: str) -> None:
    fields = {"height": 48, "width": 80, "negative_prompt": negative, "true_cfg_scale": 4.0}
    check(FluxPipeline, 3, **fields)
    guided, plain = _ours(flux, 3, **fields), _ours(flux, 3, height=48, width=80)
    assert (guided != plain).any(), "guidance must change the picture"


@pytest.mark.parametrize("cfg", [{}, {"negative_prompt": "rain", "true_cfg_scale": 3.0}], ids=["plain", "true-cfg"])
@pytest.mark.parametrize("strength", [0.4, 0.7, 1.0])
def test_image_to_image(check: Any, picture: Path, strength: float, cfg: dict[str, Any]) -> None:
    fields = {"height": 48, "width": 80, "strength": strength, "num_inference_steps": 5, **cfg}
    check(FluxImg2ImgPipeline, 5, images={"image": Image.open(picture)}, image_path=str(picture), **fields)


@pytest.mark.parametrize("size", [(48, 80), (64, 64)])
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_inpainting(check: Any, picture: Path, mask: Path, strength: float, size: tuple[int, int]) -> None:
    fields = {"height": size[0], "width": size[1], "strength": strength, "num_inference_steps": 4}
    images = {"image": Image.open(picture), "mask_image": Image.open(mask)}
    check(FluxInpaintPipeline, 11, images=images, image_path=str(picture), mask_path=str(mask), **fields)


def test_two_outputs_are_two_stock_calls(flux: Engine, parity: Any) -> None:
    fields = {"height": 64, "width": 64}
    outputs = flux.generate(**SHARED, **fields, seed=21, n=2)
    assert [output.seed for output in outputs] == [21, 22]
    for output in outputs:
        parity.same(output.frames, parity.stock_frames(flux, FluxPipeline, output.seed, **SHARED, **fields))


def test_schnell(schnell_folder: Path, check: Any) -> None:
    with Engine.from_pretrained(
        str(schnell_folder), dit_precision="fp32", text_encoder_precisions=["fp32"], vae_precision="fp32"
    ) as engine:
        assert engine.spec.id == "black-forest-labs/FLUX.1-schnell"
        check(FluxPipeline, 2, engine, height=64, width=48)


def test_a_size_between_multiples_is_drawn_larger_and_cut(flux: Engine) -> None:
    cut = _ours(flux, 9, height=50, width=70)[0]
    assert cut.shape == (50, 70, 3)
    np.testing.assert_array_equal(cut, _ours(flux, 9, height=64, width=80)[0, :50, :70])


def test_strength_zero_gives_the_image_back(flux: Engine, picture: Path) -> None:
    (output,) = flux.generate(**SHARED, image_path=str(picture), strength=0.0, height=48, width=80, seed=1)
    assert output.timings.denoise_steps == ()
    other = flux.generate(**SHARED, image_path=str(picture), strength=0.9, height=48, width=80, seed=1)[0]
    assert (output.frames != other.frames).any()


def test_an_image_without_a_size_gives_its_shape(flux: Engine, picture: Path) -> None:
    request = flux.resolve(flux_request(str(picture)))
    assert (request.height, request.width) == (784, 1312)  # 48:80 within 1024 x 1024, in multiples of 16


def flux_request(picture: str) -> Any:
    from engine.types import Request

    return Request(prompt="x", image_path=(picture,))
