"""Pictures of a video show its frames, in order and in their colours."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import clips, video
from engine.errors import OutputError

HEIGHT, WIDTH = 32, 48


def clip(path: Path, frames: int, height: int = HEIGHT, width: int = WIDTH) -> Path:
    """A clip whose frame i is red 0 to 240 from first to last, and blue."""
    pixels = np.zeros((frames, height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 240, frames, dtype=np.uint8)[:, None, None]
    pixels[..., 2] = 90
    video.write_mp4(pixels, path, fps=8, crf=4, preset="fast", tags={})
    return path


def picture(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize(
    ("height", "width", "size"), [(32, 48, (48, 32)), (300, 1024, (512, 150)), (1040, 16, (8, 512))]
)
def test_a_thumbnail_is_the_first_frame_with_at_most_512_pixels_a_side(
    height: int, width: int, size: tuple[int, int], tmp_path: Path
) -> None:
    image = picture(clips.thumbnail(clip(tmp_path / "a", 3, height, width), width, height, 3))
    assert (image.format, image.size) == ("WEBP", size)
    assert np.asarray(image.convert("RGB")).mean((0, 1)) == pytest.approx([0, 0, 90], abs=5)


@pytest.mark.parametrize(("frames", "columns", "rows"), [(1, 1, 1), (5, 3, 2), (25, 5, 5), (81, 5, 5)])
def test_a_sheet_has_up_to_25_frames_from_first_to_last(frames: int, columns: int, rows: int, tmp_path: Path) -> None:
    image = picture(clips.spritesheet(clip(tmp_path / "a", frames), WIDTH, HEIGHT, frames))
    assert (image.format, image.size) == ("JPEG", (columns * WIDTH, rows * HEIGHT))
    cells = np.asarray(image).reshape(rows, HEIGHT, columns, WIDTH, 3).mean((1, 3)).reshape(-1, 3)
    shown = min(frames, 25)
    assert cells[:shown, 0] == pytest.approx(
        np.linspace(0, 240, frames)[np.linspace(0, frames - 1, shown).round().astype(int)], abs=6
    )
    assert cells[shown:].max(initial=0) < 6


def test_a_large_clip_gives_small_cells(tmp_path: Path) -> None:
    image = picture(clips.spritesheet(clip(tmp_path / "a", 4, 64, 1024), 1024, 64, 4))
    assert image.size == (2 * 256, 2 * 16)


def test_what_is_no_video_is_an_error_that_names_the_file_alone(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("hello")
    with pytest.raises(OutputError, match=r"^a\.mp4: ffmpeg failed: ") as caught:
        clips.thumbnail(tmp_path / "a.mp4", 32, 32, 1)
    assert str(tmp_path) not in caught.value.message
