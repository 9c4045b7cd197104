"""Latents to pixels, cut to the size that was asked for."""

from __future__ import annotations

from typing import Any

import torch

from engine.stages import Stage
from engine.types import Model, State

# Feature maps of a VAE decoder that are alive together at its widest full-resolution layer, measured on FLUX's.
LIVE_MAPS = 4


def decode(model: Model, auto_tiling: bool = False) -> Stage:
    """Write `pixels`. A cancel takes effect before each call of the VAE's decoder, so between two tiles.

    With `auto_tiling` the VAE decodes in tiles when its estimated peak does not fit in the free device memory.
    """

    def run(state: State) -> None:
        vae = model.components.get("vae")
        if auto_tiling and state.device.type == "cuda" and vae is not None and hasattr(vae, "use_tiling"):
            vae.use_tiling = _peak_bytes(vae, state.grid) > torch.cuda.mem_get_info(state.device)[0]
        decoder = getattr(vae, "decoder", None)
        hook: Any = decoder.register_forward_pre_hook(lambda *_: state.control.check()) if decoder is not None else None
        try:
            model.decode(state)
        finally:
            if hook is not None:
                hook.remove()

    return Stage("decoding", ("vae",), run)


def _peak_bytes(vae: Any, grid: tuple[int, int]) -> int:
    channels = getattr(vae.config, "block_out_channels", (128, 256))
    return int(grid[0] * grid[1] * max(channels[:2]) * vae.dtype.itemsize * LIVE_MAPS)


def to_frames(state: State) -> Any:
    """Return `pixels` as uint8 (frames, height, width, 3) on the CPU, without the padding of the grid."""
    assert state.pixels is not None
    height, width = state.request.height, state.request.width
    pixels = state.pixels[:, :height, :width].float()
    return (pixels * 255).round().to(torch.uint8).cpu().numpy()
