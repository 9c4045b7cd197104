"""Grids: values of an axis, cells and their bound, the PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine.compare import EDGE, Axis, axis, cells, picture
from engine.errors import UsageError


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("num_inference_steps", "4, 8,12", (4, 8, 12)),
        ("seed", "1-10 (+3)", (1, 4, 7, 10)),
        ("seed", "1-3, 7, 7", (1, 2, 3, 7)),
        ("guidance_scale", "1-2 (+0.5), 7", (1.0, 1.5, 2.0, 7.0)),
        ("lora", "-1 - 1", (-1.0, 0.0, 1.0)),
        ("output_format", "png, webp", ("png", "webp")),
        ("prompt", "house > castle, small hut", ("house", "castle", "small hut")),
    ],
)
def test_values(name: str, text: str, values: tuple[Any, ...]) -> None:
    assert axis(name, text).values == values


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("seed", " , ", "seed: needs values, such as '4, 8, 12' or '1-10 (+3)'"),
        ("seed", "a", "seed: must be numbers with commas between, such as '4, 8, 12' or '1-10 (+3)'; got 'a'"),
        ("seed", "1.5", "seed: must be whole numbers, got '1.5'"),
        ("seed", "9-1", "seed: must go up, such as '1-10 (+3)'; got '9-1'"),
        ("seed", "1-9 (+0)", "seed: must go up, such as '1-10 (+3)'; got '1-9 (+0)'"),
        ("seed", "1-1000000000", "the grid has 1000000000 cells, and at most 64 are drawn; take fewer values"),
        ("prompt", "house", "prompt: must be 'word > other, other', such as 'house > castle'; got 'house'"),
    ],
)
def test_what_is_no_axis(name: str, text: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        axis(name, text)
    assert raised.value.message == message


def test_a_choice_names_the_others() -> None:
    with pytest.raises(UsageError, match=r"output_format: must be one of .*webp.*; got 'bmp'"):
        axis("output_format", "bmp")


def test_labels_are_short() -> None:
    assert axis("guidance_scale", "1-2 (+0.5)").labels == ("1", "1.5", "2")


def test_cells_by_row() -> None:
    found = cells({"prompt": "a house", "seed": 5}, axis("seed", "1, 2"), axis("prompt", "house > hut"))
    assert found == [
        [{"prompt": "a house", "seed": 1}, {"prompt": "a house", "seed": 2}],
        [{"prompt": "a hut", "seed": 1}, {"prompt": "a hut", "seed": 2}],
    ]
    loras = [{"path": "a", "scale": 1.0}]
    assert cells({"loras": loras}, axis("lora", "0.5"), None) == [[{"loras": [{"path": "a", "scale": 0.5}]}]]


def test_cells_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="has 81 cells, and at most 64"):
        cells({}, axis("seed", "1-9"), axis("num_inference_steps", "1-9"))
    with pytest.raises(UsageError, match="prompt: has no 'dog' to replace"):
        cells({"prompt": "a cat"}, axis("prompt", "dog > cow"), None)
    with pytest.raises(UsageError, match="lora: no adapter is set; choose one in LoRA first"):
        cells({}, axis("lora", "1"), None)
    with pytest.raises(UsageError, match="seed: both directions vary the same setting"):
        cells({}, axis("seed", "1"), axis("seed", "2"))


def test_one_picture_with_labels(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), "red").save(tmp_path / "red.png")
    Image.new("RGB", (64, 48), "blue").save(tmp_path / "blue.png")
    files = [[tmp_path / "red.png", None], [None, tmp_path / "blue.png"]]
    picture(Axis("seed", (1, 2)).labels, ["a", "b"], files, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (EDGE + 128, EDGE + 96)
        assert grid.getpixel((EDGE + 10, EDGE + 10)) == (255, 0, 0)
        assert grid.getpixel((EDGE + 74, EDGE + 58)) == (0, 0, 255)
        assert grid.getpixel((EDGE + 74, EDGE + 10)) == (255, 255, 255)
        assert any(grid.getpixel((x, EDGE // 2)) != (255, 255, 255) for x in range(EDGE, EDGE + 64))
