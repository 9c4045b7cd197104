"""Masks from what was painted, and pictures as the editor and the slider show them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from engine.errors import InputError
from ui import masks


def layer(size: tuple[int, int], box: tuple[int, int, int, int] | None, alpha: int = 153) -> Image.Image:
    """Return a layer of the editor with one painted rectangle."""
    made = Image.new("RGBA", size, (0, 0, 0, 0))
    if box is not None:
        made.paste((99, 102, 241, alpha), box)
    return made


def editor_value(*layers: Image.Image) -> dict[str, Any]:
    return {"background": None, "layers": list(layers), "composite": None}


def test_what_is_painted_is_white_and_as_large_as_the_picture() -> None:
    mask = masks.painted(editor_value(layer((100, 50), (10, 10, 20, 30))), (200, 100))
    assert mask is not None
    assert (mask.mode, mask.size, mask.getbbox()) == ("L", (200, 100), (20, 20, 40, 60))
    assert set(np.unique(np.asarray(mask)).tolist()) == {0, 255}


def test_layers_are_joined_and_faint_edges_left_out() -> None:
    faint = layer((100, 50), (60, 10, 70, 20), alpha=masks.TOUCHED - 1)
    one, two = layer((100, 50), (0, 0, 10, 10)), layer((100, 50), (20, 0, 30, 10))
    mask = masks.painted(editor_value(one, two, faint), (100, 50))
    assert mask is not None
    assert mask.getbbox() == (0, 0, 30, 10)
    assert mask.getpixel((15, 5)) == 0


@pytest.mark.parametrize("value", [None, editor_value(), editor_value(layer((100, 50), None))])
def test_nothing_painted_is_no_mask(value: dict[str, Any] | None) -> None:
    assert masks.painted(value, (100, 50)) is None


def test_a_mask_is_kept_without_loss(tmp_path: Path) -> None:
    editor = gr.ImageEditor(render=False)
    editor.GRADIO_CACHE = str(tmp_path)
    mask = masks.painted(editor_value(layer((64, 64), (1, 2, 3, 4))), (64, 64))
    assert mask is not None
    path = masks.saved(mask, editor)
    assert path.endswith(".png")
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(mask))


def test_the_editor_shows_a_small_upright_copy(tmp_path: Path) -> None:
    path = tmp_path / "sideways.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (3000, 1500)).save(path, exif=exif)
    picture = masks.checked(str(path))
    assert picture.size == (1500, 3000)
    assert masks.canvas(picture)["background"].size == (512, 1024)
    assert picture.size == (1500, 3000), "the picture itself must stay as it is"


@pytest.mark.parametrize(
    ("content", "problem"), [(b"no picture", "is no image of a kind that can be read"), (None, "is a damaged image")]
)
def test_a_broken_file_is_called_by_its_name(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "holiday.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:900] if content is None else content)
    with pytest.raises(InputError) as error:
        masks.checked(str(path))
    assert error.value.message.startswith(f"holiday.png: {problem}")
    assert str(tmp_path) not in error.value.message


def test_a_picture_lies_under_its_result_in_the_same_size(tmp_path: Path) -> None:
    path = tmp_path / "in.png"
    Image.new("RGB", (320, 200)).save(path)
    old = masks.before(str(path), (320, 192))
    assert old is not None
    assert old.size == (320, 192)
    assert masks.before(str(tmp_path / "gone.png"), (320, 192)) is None
