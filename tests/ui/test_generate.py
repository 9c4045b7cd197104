"""Generate: shapes of about the model's own size, with sides that it can draw."""

from __future__ import annotations

import pytest

from engine.catalog import MODELS, ModelSpec, by_name
from ui.generate import EXAMPLES, RATIOS, ratio_of, size_of

PICTURES = [entry for entry in MODELS if not entry.is_video]


@pytest.mark.parametrize("served", PICTURES, ids=lambda entry: entry.id)
@pytest.mark.parametrize("ratio", RATIOS)
def test_a_shape_is_one_that_the_model_draws(served: ModelSpec, ratio: str) -> None:
    width, height = size_of(ratio, served)
    across, down = (int(part) for part in ratio.split(":"))
    assert width % served.multiple == height % served.multiple == 0
    assert width * height <= served.max_pixels
    assert width / height == pytest.approx(across / down, rel=0.15)
    area = served.defaults.get("width", 1024) * served.defaults.get("height", 1024)
    assert width * height == pytest.approx(area, rel=0.15)


def test_the_sides_tell_the_shape() -> None:
    tiny = by_name("tiny-scenes")
    assert [ratio_of(tiny, *size_of(ratio, tiny)) for ratio in RATIOS] == list(RATIOS)
    assert ratio_of(tiny, None, None) == "1:1"
    assert ratio_of(tiny, 64, 640) is None


def test_examples_fit_what_the_bundled_model_reads() -> None:
    assert len(EXAMPLES) == 4 and all(len(text.split()) < 20 for text in EXAMPLES)
