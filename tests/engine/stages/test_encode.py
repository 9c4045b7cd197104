"""An input image fits the request without moving."""

from __future__ import annotations

import numpy as np
from PIL import Image

from engine.stages.encode import fit
from engine.types import Request


def test_scaled_to_the_size_and_padded_to_the_grid() -> None:
    pixels = np.zeros((30, 40, 3), dtype=np.uint8)
    pixels[:, 20:] = 200
    fitted = np.asarray(fit(Image.fromarray(pixels), Request(height=60, width=80), (64, 96)))
    assert fitted.shape == (64, 96, 3)
    assert (fitted[:, :32] == 0).all()
    assert (fitted[:, 48:] == 200).all(), "the edge is repeated, not stretched"


def test_a_mask_keeps_its_one_channel() -> None:
    mask = Image.new("L", (16, 16), 255)
    assert np.asarray(fit(mask, Request(height=16, width=16), (16, 32))).shape == (16, 32)


def test_a_fitting_image_is_untouched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 3), dtype=np.uint8)
    fitted = fit(Image.fromarray(pixels), Request(height=16, width=32), (16, 32))
    np.testing.assert_array_equal(np.asarray(fitted), pixels)
