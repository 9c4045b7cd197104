"""Pictures round the editor: what it shows, the mask that was painted in it, and a picture beside its result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.processing_utils import save_pil_to_cache
from PIL import Image

from engine import media
from engine.errors import InputError

CANVAS_SIDE = 1024  # the longer side of what is painted on; masks are enlarged to the picture
PAINT = "rgba(99, 102, 241, 0.6)"
TOUCHED = 32  # of 255: strokes have soft edges, which would change what nobody meant


def checked(path: str) -> Image.Image:
    """Return a picture that came from the browser, upright. Raises InputError that names the file as its owner does."""
    try:
        return media.open_image(path)
    except InputError as error:
        message = error.message.removeprefix("image_path: ").replace(path, Path(path).name)
        raise InputError(message, code=error.code, param=error.param) from error


def canvas(picture: Image.Image) -> dict[str, Any]:
    """Return the value of an editor that shows a picture with nothing painted on it."""
    shown = picture.copy()
    shown.thumbnail((CANVAS_SIDE, CANVAS_SIDE))
    return {"background": shown, "layers": [], "composite": None}


def painted(value: Mapping[str, Any] | None, size: tuple[int, int]) -> Image.Image | None:
    """Return the mask of what was painted (mode L, 255 = change) for a picture of `size`; None if nothing was."""
    layers = [layer.convert("RGBA").getchannel("A") for layer in (value or {}).get("layers") or () if layer is not None]
    found = [np.asarray(layer) >= TOUCHED for layer in layers if layer.size == layers[0].size]
    touched = np.logical_or.reduce(found) if found else np.zeros((1, 1), bool)
    if not touched.any():
        return None
    return Image.fromarray(touched.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)


def saved(mask: Image.Image, editor: gr.ImageEditor) -> str:
    """Return the path of a mask as a PNG file in the page's cache, from where a job copies it."""
    return str(save_pil_to_cache(mask, editor.GRADIO_CACHE, "mask", "png"))


def before(path: str, size: tuple[int, int]) -> Image.Image | None:
    """Return an input picture as it lies under a result of `size` (width, height); None once it is gone."""
    try:
        picture = media.open_image(path)
    except InputError:
        return None
    return media.fit(picture, (size[1], size[0]), (size[1], size[0]))
