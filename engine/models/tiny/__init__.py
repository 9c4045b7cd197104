"""Tiny random-weight models in the folder layout of the real ones, made in seconds and without network."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

from engine import log
from engine.errors import UsageError, listed, suggest
from engine.models.tiny.parts import Seeds

# Family -> module and function that builds its stock pipeline from Seeds.
FAMILIES = {
    "flux": "flux:dev",
    "glm-image": "glm_image:glm_image",
    "flux-schnell": "flux:schnell",
    "flux2": "flux2:dev",
    "flux2-klein": "flux2:klein",
    "flux2-klein-base": "flux2:klein_base",
    "hunyuan-video": "hunyuan_video:t2v",
    "fast-hunyuan": "hunyuan_video:fast",
    "ovis": "stock:ovis",
    "qwen-image": "qwen_image:t2i",
    "qwen-image-edit": "qwen_image:edit",
    "qwen-image-edit-2509": "qwen_image:edit_2509",
    "qwen-image-edit-2511": "qwen_image:edit_2511",
    "wan": "wan:t2v",
    "wan-a14b": "wan:t2v_experts",
    "wan-i2v": "wan:i2v",
    "wan-i2v-a14b": "wan:i2v_experts",
    "wan-ti2v": "wan:ti2v",
    "fastwan": "wan:fast",
    "fastwan-ti2v": "wan:fast_ti2v",
    "sd3": "sd3:large",
    "sdxl": "stock:sdxl",
    "z-image": "z_image:base",
    "z-image-turbo": "z_image:turbo",
}


def make(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a random-weight model of `family` to `folder` and return it; the same seed gives the same weights.

    The folder appears complete or not at all. Raises UsageError for an unknown family or a folder that is in use.
    """
    if family not in FAMILIES:
        raise UsageError(f"family: '{family}' is not known{suggest(family, FAMILIES)}; known: {listed(FAMILIES)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: exists and is not an empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    import torch

    log.quiet_libraries()
    with torch.random.fork_rng(devices=[]):
        pipeline = _recipe(family)(Seeds(seed))
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
        built = Path(place) / "model"
        pipeline.save_pretrained(str(built), safe_serialization=True)
        try:
            built.rename(folder)
        except OSError:
            if not (folder / "model_index.json").is_file():  # otherwise another process was faster
                raise
    return folder


def _recipe(family: str) -> Any:
    module, function = FAMILIES[family].split(":")
    return getattr(importlib.import_module(f"engine.models.tiny.{module}"), function)
