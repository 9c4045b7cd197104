"""A preview looks like the picture: colours come from a map fitted on the VAE."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from engine.stages import preview


class _Averaging(torch.nn.Module):
    """A stand-in for a VAE whose latents are a mix of the colours of 8x8 pixels."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Identity()
        self.mix = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0], [0.3, 0.0, 2.0], [1.0, 1.0, 1.0]])
        self.fits = 0

    def encode(self, pixels: torch.Tensor) -> Any:
        self.fits += 1
        latents = torch.einsum("lc,bchw->blhw", self.mix, torch.nn.functional.avg_pool2d(pixels, 8)) + 0.25
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))


def test_a_preview_shows_the_colours_and_the_map_is_fitted_once() -> None:
    vae = _Averaging()
    colours = torch.tensor([[[0.9, 0.1, 0.1], [0.1, 0.2, 0.8]]]).permute(2, 0, 1)[None]  # red left, blue right
    pixels = torch.nn.functional.interpolate(colours, size=(64, 128))
    latents = vae.encode(pixels * 2 - 1).latent_dist.mode()
    vae.fits = 0
    for _ in range(2):
        assert preview.fit(vae)
        picture = Image.open(io.BytesIO(preview.jpeg(vae, latents)))
    assert vae.fits == 1
    assert picture.format == "JPEG"
    assert picture.size == (256, 128)
    shown = np.asarray(picture).astype(int)
    np.testing.assert_allclose(shown[64, 32], [230, 26, 26], atol=12)
    np.testing.assert_allclose(shown[64, 224], [26, 51, 204], atol=12)


def test_no_preview_without_an_encoder() -> None:
    vae = _Averaging()
    vae.encoder = None  # type: ignore[assignment]
    assert not preview.fit(vae)
    assert not preview.fit(None)


def test_a_vae_of_clips_is_fitted_on_clips_of_one_frame() -> None:
    pictures, clips = _Averaging(), _Averaging()
    clips.encoder = torch.nn.Conv3d(1, 1, 1)  # type: ignore[assignment]
    of_picture = clips.encode

    def encode(pixels: torch.Tensor) -> Any:
        assert pixels.shape[1:3] == (3, 1)
        latents = of_picture(pixels[:, :, 0]).latent_dist.mode()[:, :, None]
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))

    clips.encode = encode  # type: ignore[method-assign]
    latents = torch.rand(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    assert preview.fit(pictures)
    assert preview.fit(clips)
    assert preview.jpeg(clips, latents) == preview.jpeg(pictures, latents)
