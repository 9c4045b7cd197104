"""81 frames of 832x480 to mp4: ours beside diffusers' export_to_video, taking turns.

    .venv/bin/python scripts/bench/encode_video.py

Both write what they write by default. Diffusers gets PIL images, the kind of frames that costs it the least.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
FRAMES, HEIGHT, WIDTH, FPS = 81, 480, 832, 16
REPETITIONS = 9


def scene() -> Image.Image:
    """Return a picture larger than the frames, with detail down to the single pixel: octaves of smoothed noise."""
    from PIL import Image

    side, random = 1536, np.random.default_rng(0)
    sunset = (
        Image.open(ROOT / "assets/examples/sunset.png").convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    )
    detail = np.zeros((side, side))
    for cells, strength in ((24, 24.0), (96, 12.0), (384, 8.0), (side, 4.0)):
        octave = Image.fromarray(random.standard_normal((cells, cells)).astype(np.float32))
        detail += strength * np.asarray(octave.resize((side, side), Image.Resampling.BICUBIC))
    return Image.fromarray((np.asarray(sunset) + detail[..., None]).clip(0, 255).astype(np.uint8))


def clip() -> np.ndarray[Any, Any]:
    """Return uint8 frames of a camera that pans over a scene and turns while a ball flies through."""
    from PIL import Image

    picture = scene()
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    frames = np.empty((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    for index in range(FRAMES):
        left, top = 300 + 3 * index, 500 + index
        turned = picture.rotate(index / 20, Image.Resampling.BICUBIC, center=(768, 768))
        frames[index] = np.asarray(turned.crop((left, top, left + WIDTH, top + HEIGHT)))
        ball = (rows - 100 - (index - 40) ** 2 / 8) ** 2 + (columns - 10 * index) ** 2 < 40**2
        frames[index, ball] = (220, 40, 40)
    return frames


def ours(frames: np.ndarray[Any, Any], path: Path) -> None:
    from engine import media
    from engine.types import Request

    request = Request(prompt="a ball over the sea", fps=FPS)
    media.encode(frames, path, "mp4", request, {"sgdiff": 1, "request": {"prompt": request.prompt}})


def psnr(frames: np.ndarray[Any, Any], path: Path) -> float:
    """Return how near the decoded video is to its frames, in dB."""
    from engine import video

    command = [video.executable(), "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    decoded = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8)
    error = np.mean(
        [((a.astype(np.float32) - b) ** 2).mean() for a, b in zip(decoded.reshape(frames.shape), frames, strict=True)]
    )
    return float(10 * np.log10(255**2 / error))


def main() -> None:
    """Measure, print and store."""
    import common
    from diffusers.utils import export_to_video
    from PIL import Image

    frames = clip()
    images = [Image.fromarray(frame) for frame in frames]
    with tempfile.TemporaryDirectory() as folder:
        mine, other = Path(folder) / "ours.mp4", Path(folder) / "diffusers.mp4"
        seconds: tuple[list[float], list[float]] = ([], [])
        for repetition in range(REPETITIONS + 1):
            start = time.perf_counter()
            ours(frames, mine)
            middle = time.perf_counter()
            export_to_video(images, str(other), fps=FPS)
            end = time.perf_counter()
            if repetition:
                seconds[0].append(middle - start)
                seconds[1].append(end - middle)
        sides = {
            name: {
                **common.spread(taken),
                "kilobytes": path.stat().st_size // 1000,
                "psnr_db": round(psnr(frames, path), 1),
            }
            for name, taken, path in (("ours", seconds[0], mine), ("diffusers", seconds[1], other))
        }
    ratio = round(sides["ours"]["median_s"] / sides["diffusers"]["median_s"], 3)
    shape = {"frames": FRAMES, "width": WIDTH, "height": HEIGHT, "repetitions": REPETITIONS}
    common.store("encode_video", {**shape, **sides, "ours_over_diffusers": ratio})


if __name__ == "__main__":
    main()
