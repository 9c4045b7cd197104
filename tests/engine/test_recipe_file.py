"""A recipe comes back from every format as it went in, and other programs find their text."""

from __future__ import annotations

import base64
import html
import json
import logging
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import media, recipe_file, video
from engine.errors import InputError
from engine.types import Request

FORMATS = ("png", "jpeg", "webp", "gif", "mp4")
RECIPE: dict[str, Any] = {
    "sgdiff": 1,
    "request": {
        "prompt": "Ein \"Boot\" <auf> dem Fluß;\n# 猫 = \\ & 'x' 🎈",
        "negative_prompt": "blur, ünscharf",
        "seed": 2**63 - 1,
        "num_inference_steps": 20,
        "true_cfg_scale": 3.0,
        "guidance_scale": 3.5,
        "width": 47,
        "height": 33,
    },
    "engine": {"model": "tiny-scenes", "folder_hash": "0123456789abcdef", "versions": {"sgdiff-app": "0.1.0"}},
    "inputs": {"image_path": ["00ff"]},
}
TEXT = (
    "Ein \"Boot\" <auf> dem Fluß;\n# 猫 = \\ & 'x' 🎈\n"
    "Negative prompt: blur, ünscharf\n"
    "Steps: 20, CFG scale: 3, Distilled CFG Scale: 3.5, Seed: 9223372036854775807, Size: 47x33, "
    "Model hash: 0123456789, Model: tiny-scenes, Version: sgdiff-app 0.1.0"
)


def written(path: Path, fmt: str, recipe: dict[str, Any] | None = RECIPE) -> Path:
    frames = np.zeros((2 if fmt in ("gif", "mp4") else 1, 33, 47, 3), np.uint8)
    media.encode(frames, path, fmt, Request(), recipe)
    return path


def message(path: Path, code: str) -> str:
    with pytest.raises(InputError) as caught:
        recipe_file.read_recipe(path)
    assert (caught.value.code, caught.value.exit_status) == (code, 2)
    return caught.value.message


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_recipe_comes_back_whatever_the_file_is_called(fmt: str, tmp_path: Path) -> None:
    assert recipe_file.read_recipe(written(tmp_path / "any name", fmt)) == RECIPE


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_longest_prompts_come_back(fmt: str, tmp_path: Path) -> None:
    long = {"request": {"prompt": "a cat, " * 4571, "negative_prompt": "\n=;#\\" * 6400}}
    assert recipe_file.read_recipe(written(tmp_path / "a", fmt, long)) == long


def test_a_recipe_that_no_jpeg_can_hold_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("sgdiff"), "propagate", True)
    letters = np.random.default_rng(0).integers(0x4E00, 0x9FFF, 32_000)
    long = {"request": {"prompt": "".join(map(chr, letters)), "negative_prompt": "".join(map(chr, letters[::-1]))}}
    path = written(tmp_path / "a.jpg", "jpeg", long)
    assert caplog.messages == ["the recipe is too long for a JPEG file and is left out; PNG and WebP hold it"]
    assert message(path, "recipe_not_found") == f"{path}: no recipe inside"
    assert recipe_file.read_recipe(written(tmp_path / "a.webp", "webp", long)) == long


def test_other_programs_find_their_text(tmp_path: Path) -> None:
    assert recipe_file.parameters_text(RECIPE) == TEXT
    with Image.open(written(tmp_path / "a", "png")) as image:
        assert image.info["parameters"] == TEXT
    for fmt in ("jpeg", "webp"):
        with Image.open(written(tmp_path / "a", fmt)) as image:
            comment = image.getexif().get_ifd(0x8769)[0x9286]
        assert comment == b"UNICODE\0" + TEXT.encode("utf-16-be")
    assert video.read_tags(written(tmp_path / "a", "mp4"))["comment"] == TEXT


def test_the_text_names_only_what_is_known() -> None:
    assert recipe_file.parameters_text({}) == "\n"
    request = {"prompt": "a cat", "guidance_scale": 4.0, "strength": 0.6, "seed": 1}
    assert recipe_file.parameters_text({"request": request}) == (
        "a cat\nCFG scale: 4, Seed: 1, Denoising strength: 0.6"
    )


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_file_without_recipe_is_said(fmt: str, tmp_path: Path) -> None:
    path = written(tmp_path / f"a.{fmt}", fmt, None)
    assert message(path, "recipe_not_found") == f"{path}: no recipe inside"


def test_the_comment_of_another_gif_is_no_recipe(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    for comment in (b"made by hand", b"[1]", b"{}", b"\xff"):
        Image.new("P", (4, 4)).save(path, comment=comment)
        assert message(path, "recipe_not_found") == f"{path}: no recipe inside"


def test_files_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert message(path, "invalid_image") == f"{path}: no such file"
    assert message(tmp_path, "invalid_image") == f"{tmp_path}: no such file"
    path.write_text("hello")
    assert message(path, "invalid_image") == f"{path}: is no PNG, JPEG, WebP, GIF or MP4 file"
    path.write_bytes(b"\0\0\0\x20ftypisom" + bytes(40))
    assert message(path, "recipe_not_found") == f"{path}: no recipe inside"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"request": 1}',
        "[" * 100_000,
        "zlib:!!",
        "zlib:AAAA",
        "zlib:"
        + base64.b64encode(
            zlib.compress(b'{"request": {}}' + b" " * 2**23)
        ).decode(),  # unpacks to more than any recipe has
    ],
    ids=["open", "list", "empty", "number", "deep", "base64", "zlib", "bomb"],
)
def test_a_damaged_recipe_is_said(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    packet = recipe_file.XMP.format(html.escape(text)).encode()
    Image.new("RGB", (4, 4)).save(path, xmp=packet)
    assert message(path, "invalid_recipe") == f"{path}: the recipe inside is damaged"


def test_reading_executes_nothing_and_keeps_types(tmp_path: Path) -> None:
    odd = {"request": {"prompt": "{__import__('os')} $(id) `id` %n", "loras": [{"scale": 0.5}]}, "x": [None, True]}
    for fmt in FORMATS:
        assert recipe_file.read_recipe(written(tmp_path / "a", fmt, odd)) == odd
    assert json.loads(json.dumps(odd)) == odd
