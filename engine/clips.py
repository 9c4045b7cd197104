"""Pictures of a finished video: a thumbnail, and a sheet of frames along it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from engine import video

THUMBNAIL_SIDE, CELL_SIDE = 512, 256
SHEET_FRAMES = 25


def thumbnail(path: Path, width: int, height: int, frames: int, side: int = THUMBNAIL_SIDE) -> bytes:
    """Return the first frame of an MP4 file as WebP, its longer side at most `side` pixels. Raises OutputError."""
    from PIL import Image

    (first,) = video.read_frames(path, [0], _bounded(width, height, side))
    stream = io.BytesIO()
    Image.fromarray(first).save(stream, "WEBP", quality=80)
    return stream.getvalue()


def spritesheet(path: Path, width: int, height: int, frames: int) -> bytes:
    """Return up to 25 frames of an MP4 file of so many, evenly spread from first to last, on a grid, as JPEG.

    They follow each other line by line; places that are left over stay black. Raises OutputError.
    """
    from PIL import Image

    count = min(frames, SHEET_FRAMES)
    wanted = [round(entry) for entry in np.linspace(0, frames - 1, count)]
    size = _bounded(width, height, CELL_SIDE)
    found = video.read_frames(path, wanted, size)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    cells = np.zeros((rows * columns, *size, 3), np.uint8)
    cells[: len(found)] = found
    sheet = cells.reshape(rows, columns, *size, 3).swapaxes(1, 2).reshape(rows * size[0], columns * size[1], 3)
    stream = io.BytesIO()
    Image.fromarray(sheet).save(stream, "JPEG", quality=80)
    return stream.getvalue()


# Name -> what makes it from a file, its width, height and frames; the media type; the suffix.
PICTURES: Mapping[str, tuple[Callable[[Path, int, int, int], bytes], str, str]] = {
    "thumbnail": (thumbnail, "image/webp", "webp"),
    "spritesheet": (spritesheet, "image/jpeg", "jpg"),
}


def _bounded(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the (height, width) of the same shape whose longer side is at most `side`."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(height * scale)), max(1, round(width * scale))
