"""Latents to pixels, cut to the size that was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from engine.errors import GenerationError
from engine.passes.vae import peak_bytes
from engine.stages import Stage
from engine.types import Model, State


def decode(model: Model, room: float | None = None) -> Stage:
    """Write `pixels`. A cancel takes effect before each call of the VAE's decoder, so between two tiles.

    With `room`, in bytes, the VAE decodes in tiles when its estimated peak is larger than that.
    """

    def run(state: State) -> None:
        vae = model.components.get("vae")
        tiles = None if room is None else peak_bytes(vae, state.grid, state.request.num_frames or 1) > room
        with _tiling(vae, tiles), cancellable(state, getattr(vae, "decoder", None)):
            model.decode(state)

    return Stage("decoding", ("vae",), run)


@contextmanager
def _tiling(vae: Any, wanted: bool | None) -> Iterator[None]:
    """Have a VAE use tiles or not, and then as before: an image that another run encodes is the same either way."""
    before = getattr(vae, "use_tiling", None)
    if wanted is None or before is None:
        yield
        return
    vae.use_tiling = wanted
    try:
        yield
    finally:
        vae.use_tiling = before


@contextmanager
def cancellable(state: State, *modules: torch.nn.Module | None) -> Iterator[None]:
    """Let a cancel take effect before every call of these modules."""
    hooks = [
        module.register_forward_pre_hook(lambda *_: state.control.check()) for module in modules if module is not None
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def to_frames(state: State) -> Any:
    """Return `pixels` as uint8 (frames, height, width, 3) on the CPU, without the padding of the grid.

    Raises GenerationError for pixels that are not numbers, which would be black ones.
    """
    assert state.pixels is not None
    height, width = state.request.height, state.request.width
    pixels = state.pixels[:, :height, :width].float()
    if not pixels.sum().isfinite():  # a sum takes no further memory
        raise GenerationError(
            "the model drew pixels that are not finite (NaN): try --dit-precision fp32 or --vae-precision fp32"
        )
    return (pixels * 255).round().to(torch.uint8).cpu().numpy()
