"""Small pictures of a run under way: a latent-to-RGB matrix, fitted once per VAE."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from diffusers.pipelines.flux.pipeline_flux_img2img import retrieve_latents

from engine import media

LONGER_SIDE = 256
SAMPLES, SIDE, COLOURS = 8, 128, 4

_matrices: WeakKeyDictionary[torch.nn.Module, torch.Tensor] = WeakKeyDictionary()


def jpeg(vae: Any, latents: torch.Tensor) -> bytes:
    """Return latents (1, channels, height, width), as the VAE takes them, as a JPEG: one pixel per latent, scaled up.

    The colours are a linear map of the latents, so detail below the VAE's factor is not shown. Call `fit` first.
    """
    flat = latents[0].float().flatten(1).T
    flat = torch.cat([flat, flat.new_ones(len(flat), 1)], dim=1)
    height, width = latents.shape[-2:]
    rgb = (flat @ _matrices[vae].to(flat.device)).clamp(0, 1).reshape(height, width, 3)
    scale = LONGER_SIDE / max(height, width)
    sized = torch.nn.functional.interpolate(
        rgb.permute(2, 0, 1)[None], size=(round(height * scale), round(width * scale)), mode="bicubic"
    )
    pixels = (sized[0].permute(1, 2, 0).clamp(0, 1) * 255).byte()
    picture: bytes = media.jpeg_preview(pixels.cpu().numpy())
    return picture


def fit(vae: Any) -> bool:
    """Fit the map of a VAE, once; return whether there can be previews: its encoder must be there."""
    if vae is None or getattr(vae, "encoder", None) is None:
        return False
    if vae not in _matrices:
        _matrices[vae] = _map(vae)
    return True


def _takes_clips(vae: Any) -> bool:
    return any(isinstance(module, torch.nn.Conv3d) for module in vae.modules())


def _map(vae: Any) -> torch.Tensor:
    """Return the (channels + 1, 3) least-squares map from latents of smooth colour fields to their colours."""
    generator = torch.Generator().manual_seed(0)  # a generator of its own: a preview changes no picture
    coarse = torch.rand(SAMPLES, 3, COLOURS, COLOURS, generator=generator)
    fields = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear")
    with torch.no_grad():
        pictures = (fields * 2 - 1).to(vae.device, vae.dtype)
        if _takes_clips(vae):  # a picture is a clip of one frame
            latents = vae.encode(pictures[:, :, None]).latent_dist.mode()[:, :, 0]
        else:
            latents = retrieve_latents(vae.encode(pictures), sample_mode="argmax")  # a tiny VAE knows no distribution
    small = torch.nn.functional.interpolate(fields, size=latents.shape[-2:], mode="area")
    inputs = latents.float().cpu().permute(0, 2, 3, 1).flatten(0, 2)
    inputs = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], dim=1)
    targets = small.permute(0, 2, 3, 1).flatten(0, 2)
    solution: torch.Tensor = torch.linalg.lstsq(inputs, targets, driver="gelsd").solution
    return solution
