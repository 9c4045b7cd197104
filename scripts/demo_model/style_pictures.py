"""The drawn pictures that the readers of styles learn from, in one small file: only packing them needs skia."""

from __future__ import annotations

import io
import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scenes import sample
from torch import Tensor

FIRST_SEED = 30_000_000  # scenes that neither the model's training nor its evaluation drew
QUALITY = 78


def pack(work: Path, count: int) -> None:
    """Draws pictures into one small file: skia runs where this runs, and a bare GPU machine needs none of it."""
    work.mkdir(parents=True, exist_ok=True)
    ends, blob = [], io.BytesIO()
    with multiprocessing.get_context("fork").Pool() as pool:
        for picture in pool.imap(_picture, range(FIRST_SEED, FIRST_SEED + count), 16):
            blob.write(picture)
            ends.append(blob.tell())
    (work / "pictures.bin").write_bytes(blob.getvalue())
    (work / "pictures.json").write_text(json.dumps({"ends": ends}) + "\n")
    print(f"{count} pictures, {blob.tell() / 1e6:.1f} MB")


def _picture(seed: int) -> bytes:
    from draw import draw

    Image.fromarray(draw(sample(seed))).save(out := io.BytesIO(), "WEBP", quality=QUALITY, method=4)
    return out.getvalue()


def unpack(work: Path, device: str, most: int = 0) -> Tensor:
    """The drawn pictures (n, 3, 256, 256) as uint8 on the device."""
    index, blob = json.loads((work / "pictures.json").read_text()), (work / "pictures.bin").read_bytes()
    ends = index["ends"][: most or None]
    parts = [blob[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda p: np.asarray(Image.open(io.BytesIO(p)).convert("RGB")), parts))
    return torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2)


def clean(pictures: Tensor) -> Tensor:
    """uint8 pictures as floats in -1..1."""
    return pictures.float() / 127.5 - 1
