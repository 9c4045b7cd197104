"""The model that ships draws what it is told: its pictures are read back by the classifier beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from engine import hub
from engine.engine import Engine
from engine.types import Request

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "assets/models/tiny-scenes"
MB = 1_000_000


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.from_pretrained() as engine:
        yield engine


@pytest.fixture
def classifier(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts/demo_model"))
    return __import__("classifier")


def test_it_is_the_default(engine: Engine) -> None:
    assert engine.spec.id == "tiny-scenes"
    assert engine.source.folder == hub.bundled("tiny-scenes") == FOLDER
    request = engine.resolve(Request(prompt="x"))
    assert (request.height, request.width) == (256, 256)
    assert (request.negative_prompt, request.true_cfg_scale) == ("", 4.0)


@pytest.mark.parametrize(
    ("prompt", "time", "place", "thing"),
    [
        ("A beautiful sunset over the mountains", "sunset", "mountains", None),
        ("a sailboat on the sea by day", "day", "sea", "sailboat"),
        ("city skyline at night", "night", "city", None),
    ],
)
def test_it_draws_what_it_is_told(
    engine: Engine, classifier: ModuleType, prompt: str, time: str, place: str, thing: str | None
) -> None:
    (output,) = engine.generate(prompt=prompt, seed=1)
    (reading,) = classifier.read([output.frames[0]], classifier.load(FOLDER / "classifier"))
    assert (reading["time"], reading["place"]) == (time, place)
    if thing is not None:
        assert thing in [entry["kind"] for entry in reading["things"]]


@pytest.mark.parametrize("prompt", ["", "zorblax quantum"])
def test_no_words_or_unknown_ones_draw_some_landscape(engine: Engine, prompt: str) -> None:
    first, second = (engine.generate(prompt=prompt, seed=seed, num_inference_steps=4)[0].frames for seed in (1, 2))
    assert first.std() > 15
    assert np.abs(first.astype(int) - second).mean() > 5


def test_it_travels_light() -> None:
    sizes = {path: path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()}
    assert sum(sizes.values()) <= 24 * MB
    assert max(sizes.values()) <= 15 * MB
    assert {path.suffix for path in sizes} <= {".safetensors", ".json", ".md", ".png"}
    assert sum(path.stat().st_size for path in (ROOT / "assets").rglob("*") if path.is_file()) <= 44 * MB
