"""Nothing that was written beside the pixels is left, and the pixels are the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from engine import media, recipe_file, strip, video
from engine.errors import OutputError
from engine.types import Request
from tests.engine.test_settings_text import RECIPE


def drawn(path: Path, fmt: str) -> Path:
    frames = np.random.default_rng(0).integers(0, 255, (3 if fmt in ("gif", "mp4") else 1, 32, 48, 3), np.uint8)
    media.encode(frames, path, fmt, Request(), RECIPE)
    return path


def pixels(path: Path, fmt: str) -> np.ndarray:
    if fmt == "mp4":
        return video.read_frames(path, [0, 1, 2], (32, 48))
    with Image.open(path) as image:
        return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)])


@pytest.mark.parametrize("fmt", ["png", "jpeg", "webp", "gif", "mp4"])
def test_pixels_stay_and_words_go(fmt: str, tmp_path: Path) -> None:
    path = drawn(tmp_path / "with", fmt)
    assert recipe_file.read_texts(path)
    data = strip.stripped(path.read_bytes())
    plain = tmp_path / "without"
    plain.write_bytes(data)
    assert not [text for text in recipe_file.read_texts(plain).values() if "Boot" in text or "sgdiff" in text]
    assert b"Boot" not in data and b"sgdiff" not in data
    assert np.array_equal(pixels(plain, fmt), pixels(path, fmt))
    if fmt == "gif":
        with Image.open(plain) as image, Image.open(path) as before:
            assert (image.info["loop"], image.info["duration"]) == (before.info["loop"], before.info["duration"])


def test_an_extended_webp_stays_readable(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    image = Image.new("RGBA", (9, 7), (200, 20, 20, 90))
    image.save(tmp_path / "x.webp", lossless=True, exif=exif, xmp=b"<x>secret</x>")
    data = strip.stripped((tmp_path / "x.webp").read_bytes())
    assert b"secret" not in data
    (tmp_path / "y.webp").write_bytes(data)
    with Image.open(tmp_path / "y.webp") as plain:
        assert plain.getpixel((3, 3)) == image.getpixel((3, 3))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"x\.txt: is no PNG, JPEG, WebP, GIF or MP4 file"):
        strip.stripped(b"words", "x.txt")
    data = drawn(tmp_path / "x", "jpeg").read_bytes()
    with pytest.raises(OutputError, match=r"x\.jpg: is damaged"):
        strip.stripped(data[:3], "x.jpg")
    with pytest.raises(OutputError, match=r"x\.mp4: ffmpeg failed"):
        strip.stripped(b"\0\0\0\x20ftypisom", "x.mp4")
