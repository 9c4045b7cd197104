"""FLUX.1 through our stages equals diffusers' own pipelines over the same modules, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxImg2ImgPipeline, FluxInpaintPipeline, FluxPipeline
from PIL import Image

from engine import attention
from engine.engine import Engine

SHARED = {"prompt": "a red house", "num_inference_steps": 3, "max_sequence_length": 32, "guidance_scale": 3.5}


@contextmanager
def _stock(engine: Engine, cls: Any) -> Iterator[Any]:
    """The stock pipeline over the engine's modules, without our attention handles."""
    assert engine.executor is not None
    components = engine.executor.scheduler.pipeline.model.components
    attention.remove(components["transformer"])
    pipeline = cls(**components)
    pipeline.set_progress_bar_config(disable=True)
    yield pipeline
    attention.install(components["transformer"], "torch_sdpa")


def _stock_image(engine: Engine, cls: Any, seed: int, **arguments: Any) -> np.ndarray[Any, Any]:
    with _stock(engine, cls) as pipeline:
        generator = torch.Generator().manual_seed(seed)
        image = pipeline(**{**SHARED, **arguments}, generator=generator).images[0]
    return np.asarray(image)


def _ours(engine: Engine, seed: int, **fields: Any) -> np.ndarray[Any, Any]:
    (output,) = engine.generate(**{**SHARED, **fields}, seed=seed)
    return output.frames[0]


def _same(ours: np.ndarray[Any, Any], stock: np.ndarray[Any, Any]) -> None:
    assert ours.shape == stock.shape
    assert ours.std() > 1, "a flat picture proves nothing"
    assert np.abs(ours.astype(int) - stock.astype(int)).max() == 0


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inputs") / "picture.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (48, 80, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def mask(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inputs") / "mask.png"
    white = np.zeros((48, 80), dtype=np.uint8)
    white[:, 40:] = 255
    Image.fromarray(white).save(path)
    return path


@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
@pytest.mark.parametrize("length", [32, 37, 7])
def test_text_to_image(flux: Engine, size: tuple[int, int], length: int) -> None:
    fields = {"height": size[0], "width": size[1], "max_sequence_length": length, "guidance_scale": 2.5}
    _same(_ours(flux, 7, **fields), _stock_image(flux, FluxPipeline, 7, **fields))


@pytest.mark.parametrize("negative", ["", "snow and fog"])
def test_true_cfg(flux: Engine, negative: str) -> None:
    fields = {"height": 48, "width": 80, "negative_prompt": negative, "true_cfg_scale": 4.0}
    guided = _ours(flux, 3, **fields)
    _same(guided, _stock_image(flux, FluxPipeline, 3, **fields))
    assert (guided != _ours(flux, 3, height=48, width=80)).any(), "guidance must change the picture"


@pytest.mark.parametrize("cfg", [{}, {"negative_prompt": "rain", "true_cfg_scale": 3.0}], ids=["plain", "true-cfg"])
@pytest.mark.parametrize("strength", [0.4, 0.7, 1.0])
def test_image_to_image(flux: Engine, picture: Path, strength: float, cfg: dict[str, Any]) -> None:
    fields = {"height": 48, "width": 80, "strength": strength, "num_inference_steps": 5, **cfg}
    stock = _stock_image(flux, FluxImg2ImgPipeline, 5, image=Image.open(picture), **fields)
    _same(_ours(flux, 5, image_path=str(picture), **fields), stock)


@pytest.mark.parametrize("size", [(48, 80), (64, 64)])
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_inpainting(flux: Engine, picture: Path, mask: Path, strength: float, size: tuple[int, int]) -> None:
    fields = {"height": size[0], "width": size[1], "strength": strength, "num_inference_steps": 4}
    images = {"image": Image.open(picture), "mask_image": Image.open(mask)}
    stock = _stock_image(flux, FluxInpaintPipeline, 11, **images, **fields)
    _same(_ours(flux, 11, image_path=str(picture), mask_path=str(mask), **fields), stock)


def test_two_outputs_are_two_stock_calls(flux: Engine) -> None:
    fields = {"height": 64, "width": 64}
    outputs = flux.generate(**SHARED, **fields, seed=21, n=2)
    assert [output.seed for output in outputs] == [21, 22]
    for output in outputs:
        _same(output.frames[0], _stock_image(flux, FluxPipeline, output.seed, **fields))


def test_schnell(schnell_folder: Path) -> None:
    with Engine.from_pretrained(
        str(schnell_folder), dit_precision="fp32", text_encoder_precisions=["fp32"], vae_precision="fp32"
    ) as engine:
        assert engine.spec.id == "black-forest-labs/FLUX.1-schnell"
        fields = {"height": 64, "width": 48}
        _same(_ours(engine, 2, **fields), _stock_image(engine, FluxPipeline, 2, **fields))


def test_a_size_between_multiples_is_drawn_larger_and_cut(flux: Engine) -> None:
    cut = _ours(flux, 9, height=50, width=70)
    assert cut.shape == (50, 70, 3)
    np.testing.assert_array_equal(cut, _ours(flux, 9, height=64, width=80)[:50, :70])


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
