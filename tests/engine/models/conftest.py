"""Parity: an engine over a tiny model, and the stock pipeline over the same modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine import attention, schema
from engine.engine import Engine
from engine.models.base import assemble
from engine.passes.precision import DENOISERS
from engine.runtime.control import Control
from engine.types import Request

FP32 = {"dit_precision": "fp32", "vae_precision": "fp32", "image_encoder_precision": "fp32"}
Pixels = np.ndarray[Any, Any]


@contextmanager
def stock(engine: Engine, cls: Any) -> Iterator[Any]:
    """The stock pipeline `cls` over the engine's own modules, without our attention handles."""
    assert engine.executor is not None
    model: Any = engine.executor.scheduler.pipeline.model
    networks = [part for name, part in model.components.items() if name.startswith(DENOISERS)]
    for network in networks:
        attention.remove(network)
    try:
        yield assemble(cls, model.components, engine.spec.settings)
    finally:
        for network in networks:
            attention.install(network, "torch_sdpa", model.masked)


def stock_frames(engine: Engine, cls: Any, seed: int, **arguments: Any) -> Pixels:
    """What the stock call draws, as (frames, height, width, 3) in [0, 1]."""
    with stock(engine, cls) as pipeline:
        generator = torch.Generator().manual_seed(seed)
        result = pipeline(**arguments, generator=generator, output_type="np")
    frames = np.asarray(result[0])
    return frames[0] if frames.ndim == 5 else frames


def same(ours: Pixels, stock: Pixels) -> None:
    """Assert that uint8 frames of ours are exactly the stock call's frames in [0, 1]."""
    assert ours.shape == stock.shape
    assert ours.std() > 1, "a flat picture proves nothing"
    expected = (stock * 255).round().astype(np.uint8)
    assert np.abs(ours.astype(int) - expected.astype(int)).max() == 0


def in_turns(engine: Engine, requests: list[dict[str, Any]]) -> list[Pixels]:
    """What requests draw when each takes a step in turn."""
    assert engine.executor is not None
    pipeline = engine.executor.scheduler.pipeline
    states = [pipeline.begin(engine.resolve(schema.read(Request, given)), Control()) for given in requests]
    while sum(pipeline.advance(state) for state in states):  # every one of them, so not `any`
        pass
    return [pipeline.finish(state)[0] for state in states]


@pytest.fixture(scope="session")
def tiny_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Engine]]:
    """An engine in fp32 over a tiny model of a family: `tiny_engine("wan", model_id=...)`, made once per arguments."""
    from engine.models import tiny

    folders: dict[str, Path] = {}
    engines: dict[str, Engine] = {}

    def build(family: str, **settings: Any) -> Engine:
        if family not in folders:
            folders[family] = tiny.make(family, tmp_path_factory.mktemp("models") / f"tiny-{family}")
        key = f"{family} {sorted(settings.items())}"
        if key not in engines:
            given = {**FP32, "text_encoder_precisions": ["fp32"], **settings}
            engines[key] = Engine.from_pretrained(str(folders[family]), **given)
        return engines[key]

    yield build
    engines.clear()  # not `close`, which collects garbage for each of them


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of 80 x 48 pixels."""
    path = tmp_path_factory.mktemp("inputs") / "picture.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (48, 80, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(scope="session")
def mask(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mask of 80 x 48 pixels: the right half may change."""
    path = tmp_path_factory.mktemp("inputs") / "mask.png"
    white = np.zeros((48, 80), dtype=np.uint8)
    white[:, 40:] = 255
    Image.fromarray(white).save(path)
    return path


@pytest.fixture(scope="session")
def parity() -> Any:
    """The functions of this module, for test modules: same, stock, stock_frames, in_turns."""

    class Parity:
        same = staticmethod(same)
        stock = staticmethod(stock)
        stock_frames = staticmethod(stock_frames)
        in_turns = staticmethod(in_turns)

    return Parity
