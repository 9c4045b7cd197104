"""The adapters that ship with tiny-scenes: small, each in another layout, each a style that is seen in the pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.engine import Engine
from engine.lora.facts import facts

ROOT = Path(__file__).parent.parent
LORAS = {"pixel-art": "kohya", "pencil-sketch": "diffusers", "neon-night": "comfyui"}
FIELDS: dict[str, Any] = {"prompt": "a red boat on the sea at sunset", "seed": 5, "num_inference_steps": 6}
Frame = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.from_pretrained("tiny-scenes") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def plain(engine: Engine) -> Frame:
    return _draw(engine)


def _draw(engine: Engine, *worn: tuple[str, float]) -> Frame:
    loras = [{"path": name, "scale": scale} for name, scale in worn]
    (output,) = engine.generate(**FIELDS, loras=loras)
    return output.frames[0]


def _grey(frame: Frame) -> Frame:
    grey: Frame = frame.astype(float) @ np.array([0.299, 0.587, 0.114]) / 255
    return grey


def _squares(frame: Frame) -> float:
    """How much steeper a picture is where columns of 8 pixels meet than elsewhere."""
    steep = np.abs(np.diff(_grey(frame), axis=1)).sum(0)
    meet = np.arange(len(steep)) % 8 == 7
    return float(steep[meet].mean() / steep[~meet].mean())


def _light(frame: Frame) -> float:
    return float(_grey(frame).mean())


@pytest.mark.parametrize(("name", "layout"), LORAS.items())
def test_a_file_is_small_and_says_what_it_is(name: str, layout: str) -> None:
    path = ROOT / "assets/loras" / f"{name}.safetensors"
    assert path.stat().st_size <= 1_000_000
    told = facts(path)
    assert (told["name"], told["layout"]) == (name, layout)


@pytest.mark.parametrize(
    ("name", "measure", "sign"), [("pixel-art", _squares, 1), ("pencil-sketch", _light, 1), ("neon-night", _light, -1)]
)
def test_a_style_grows_with_its_strength(engine: Engine, plain: Frame, name: str, measure: Any, sign: int) -> None:
    none, half, whole = (
        sign * measure(frame) for frame in (plain, _draw(engine, (name, 0.5)), _draw(engine, (name, 1.0)))
    )
    assert none < half < whole
    assert whole - none > 0.08


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The readers that the figures of the card come from."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts/demo_model"))
    report = __import__("style_report")
    return report.load(ROOT / "scripts/demo_model/reader" / report.READERS, ROOT / "assets/models/tiny-scenes")


def test_a_style_is_read_and_the_scene_stays(engine: Engine, readers: Any) -> None:
    prompt, names = "a red sailboat on the sea by day", [*LORAS]
    for at, name in enumerate([None, *names], -1):
        worn = [{"path": name, "scale": 1.0}] if name else []
        (output,) = engine.generate(prompt=prompt, seed=7, num_inference_steps=12, loras=worn)
        shown = __import__("style_reader").read(output.frames, readers.style)[0]
        assert [*(shown > 0.5)] == [k == at for k in range(len(names))], name
        (seen,) = __import__("classifier").read(output.frames, readers.adapted)
        assert (seen["time"], seen["place"]) == ("day", "sea"), name
        assert ("sailboat", "red") in {(thing["kind"], thing["colour"]) for thing in seen["things"]}, name


def test_two_at_once_mix(engine: Engine) -> None:
    pixels, neon = ("pixel-art", 0.7), ("neon-night", 0.7)
    both = _draw(engine, pixels, neon)
    assert _squares(both) > _squares(_draw(engine, neon)) + 0.05
    assert _light(both) < _light(_draw(engine, pixels)) - 0.05


def test_none_again_is_the_plain_picture(engine: Engine, plain: Frame) -> None:
    engine.set_lora("neon", "neon-night")
    (worn,) = engine.generate(**FIELDS)
    engine.unmerge_lora()
    (output,) = engine.generate(**FIELDS)
    assert (worn.frames[0] != plain).any()
    np.testing.assert_array_equal(output.frames[0], plain)
