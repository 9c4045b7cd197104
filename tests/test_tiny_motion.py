"""The model of clips that ships draws what it is told: a clip is read back by the reader that its figures come from."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from engine import hub
from engine.engine import Engine

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "assets/models/tiny-motion"
TOOLS = ROOT / "scripts/demo_model"
MB = 1_000_000


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setitem(__import__("sys").modules, "skia", None)  # whoever reads a clip draws none
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.syspath_prepend(str(TOOLS / "motion"))
    return __import__("motion_reader")


def test_a_clip_shows_and_moves_as_it_is_told(reading: ModuleType) -> None:
    prompt = "a red sailboat sails to the left on the sea at sunset"
    with Engine.from_pretrained("tiny-motion") as engine:
        assert engine.source.folder == hub.bundled("tiny-motion") == FOLDER
        (output,) = engine.generate(prompt=prompt, seed=1)
    assert output.frames.shape == (33, 128, 192, 3)
    (seen,) = reading.read(output.frames[None], reading.load(TOOLS / "motion/reader"))
    assert {k: seen[k] for k in ("time", "place", "thing", "colour", "direction")} == {
        "time": "sunset",
        "place": "sea",
        "thing": "sailboat",
        "colour": "red",
        "direction": "left",
    }
    moved = np.abs(np.diff(output.frames.astype(np.int16), axis=0)).mean((0, 2, 3))  # by row
    assert moved[:25].mean() < moved[60:].mean() / 4, "the sky over the boat is at rest"


def test_it_travels_light() -> None:
    sizes = {path: path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()}
    assert sum(sizes.values()) <= 16 * MB
    assert max(sizes.values()) <= 15 * MB
    assert {path.suffix for path in sizes} <= {".safetensors", ".json", ".md", ".webp"}
    samples = sorted((ROOT / "assets/examples").glob("tiny-motion-*.webp"))
    assert len(samples) == 6
    assert all(path.stat().st_size <= MB // 2 for path in samples)
