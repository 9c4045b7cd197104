"""Latents to pixels, cut to the size that was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from engine.stages import Stage
from engine.types import Model, State

# Feature maps of a VAE decoder that are alive together at its widest full-resolution layer, measured on FLUX's.
LIVE_MAPS = 4


def decode(model: Model, room: float | None = None) -> Stage:
    """Write `pixels`. A cancel takes effect before each call of the VAE's decoder, so between two tiles.

    With `room`, in bytes, the VAE decodes in tiles when its estimated peak is larger than that.
    """

    def run(state: State) -> None:
        vae = model.components.get("vae")
        if room is not None and vae is not None and hasattr(vae, "use_tiling"):
            vae.use_tiling = _peak_bytes(vae, state) > room
        with cancellable(state, getattr(vae, "decoder", None)):
            model.decode(state)

    return Stage("decoding", ("vae",), run)


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


def _peak_bytes(vae: Any, state: State) -> int:
    channels = getattr(vae.config, "block_out_channels", (128, 256))
    pixels = state.grid[0] * state.grid[1] * (state.request.num_frames or 1)
    return int(pixels * max(channels[:2]) * vae.dtype.itemsize * LIVE_MAPS)


def to_frames(state: State) -> Any:
    """Return `pixels` as uint8 (frames, height, width, 3) on the CPU, without the padding of the grid."""
    assert state.pixels is not None
    height, width = state.request.height, state.request.width
    pixels = state.pixels[:, :height, :width].float()
    return (pixels * 255).round().to(torch.uint8).cpu().numpy()
