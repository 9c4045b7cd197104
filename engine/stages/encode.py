"""Prompt and input images to what the network is conditioned on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engine.stages import Stage
from engine.types import Model, Request, State

if TYPE_CHECKING:
    from PIL.Image import Image


def text(model: Model) -> Stage:
    """Write `cond`, and `uncond` when the request uses classifier-free guidance."""
    uses = tuple(name for name in model.components if name.startswith("text_encoder"))
    return Stage("text_encoding", uses, model.encode)


def image(model: Model) -> Stage:
    """Write `image` and `image_latents` when the request has an input image."""

    def run(state: State) -> None:
        if state.request.image_path:
            model.encode_image(state)

    return Stage("image_encoding", ("vae", "image_encoder"), run)


def fit(image: Image, request: Request, grid: tuple[int, int]) -> Image:
    """Return `image` scaled to the request's size, its edges repeated up to the grid, so that nothing shifts."""
    from PIL import Image as images

    assert request.height is not None and request.width is not None
    sized = image.resize((request.width, request.height), images.Resampling.LANCZOS)
    below, right = grid[0] - request.height, grid[1] - request.width
    if not below and not right:
        return sized
    padding = ((0, below), (0, right), (0, 0))[: np.ndim(sized)]
    return images.fromarray(np.pad(np.asarray(sized), padding, mode="edge"))
