"""The three styles as filters over pictures; each keeps colour, light and shapes readable."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

GREY = (0.299, 0.587, 0.114)
BLOCK = 8  # pixels: what the autoencoder turns into one latent


def _blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur that repeats the border."""
    radius = int(3 * sigma + 0.5)
    line = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (line / sigma).square())
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    wide = F.pad(x, (radius, radius, radius, radius), mode="replicate")
    across = F.conv2d(wide, kernel[:, :, None, :], groups=x.shape[1])
    return F.conv2d(across, kernel[..., None], groups=x.shape[1])


def _grey(x: Tensor) -> Tensor:
    return (x * torch.tensor(GREY, device=x.device, dtype=x.dtype)[:, None, None]).sum(1, keepdim=True)


def _saturated(x: Tensor, amount: float) -> Tensor:
    return torch.lerp(_grey(x).expand_as(x), x, amount).clamp(0, 1)


def _edges(x: Tensor, sigma: float) -> Tensor:
    """How steep the strongest channel is at each pixel, (n, 1, h, w)."""
    soft = _blur(x, sigma)
    wide = F.pad(soft, (1, 1, 1, 1), mode="replicate")
    dx = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2
    dy = (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2
    return (dx.square() + dy.square()).sqrt().amax(1, keepdim=True)


def _without_specks(x: Tensor, size: int) -> Tensor:
    """The picture without what is bright and smaller than a size: stars, flakes, lit windows."""
    edge = size // 2
    low = -F.max_pool2d(-F.pad(x, (edge,) * 4, mode="replicate"), size, 1)
    return F.max_pool2d(F.pad(low, (edge,) * 4, mode="replicate"), size, 1)


def _blocks(x: Tensor, block: int) -> Tensor:
    """Square pixels of a size; each leans to what stands out in its square, so that small things stay."""
    mean = F.avg_pool2d(x, block)
    square = F.unfold(x, block, stride=block).view(x.shape[0], 3, block * block, -1)
    away = (square - mean.flatten(2)[:, :, None]).abs().sum(1, keepdim=True)
    far = away.topk(block * block // 2, dim=2).indices.expand(-1, 3, -1, -1)
    bold = square.gather(2, far).mean(2).view_as(mean)
    return F.interpolate(torch.lerp(mean, bold, 0.6), scale_factor=block, mode="nearest")


def _dithered(x: Tensor, block: int, levels: int) -> Tensor:
    """Few levels per channel, ordered in twos so that squares alternate where a colour lies between two levels."""
    order = torch.tensor(((0.0, 0.5), (0.75, 0.25)), device=x.device, dtype=x.dtype) - 0.375
    order = order.repeat(x.shape[-2] // block // 2, x.shape[-1] // block // 2)
    order = order.repeat_interleave(block, 0).repeat_interleave(block, 1)
    return ((x * levels + 0.5 + 0.8 * order).floor() / levels).clamp(0, 1)


def pixel_art(x: Tensor) -> Tensor:
    """Dithered square pixels in few colours, and plain ones of half the size where there is something small to see."""
    coarse, fine = _blocks(x, BLOCK), _blocks(x, BLOCK // 2)
    detail = F.avg_pool2d((fine - coarse).abs().amax(1, keepdim=True), BLOCK)
    small = F.interpolate(detail, scale_factor=BLOCK, mode="nearest") > 0.03
    return torch.where(small, (fine * 16).round() / 16, _dithered(coarse, BLOCK, 8))


def pencil_sketch(x: Tensor) -> Tensor:
    """A coloured wash on paper under slanted strokes, deeper in the dark, with thin outlines; specks get none."""
    paper = torch.tensor((0.98, 0.96, 0.91), device=x.device, dtype=x.dtype)[:, None, None]
    wash = torch.lerp(paper.expand_as(x), _saturated(_blur(x, 0.7), 1.25), 0.76)
    across = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype)
    # the strokes meet every latent of two by two alike, which makes them easy to learn
    strokes = torch.cos((across[:, None] + across) * (math.pi / BLOCK)).clamp(min=-0.2) - 0.22
    wash = wash - 0.2 * (1 - 0.5 * _grey(_blur(x, 2.0))) * strokes * (0.25 + 0.75 * wash)
    bold = _without_specks(x, 5).clamp(min=1e-4).pow(0.8)  # dark pictures have lines too
    line = _blur((_edges(bold, 1.3) * 14 - 0.4).clamp(0, 1), 0.5)
    return (wash * (1 - 0.6 * line)).clamp(0, 1)  # lines keep a tint, so that a red thing stays red


def neon_night(x: Tensor) -> Tensor:
    """A picture in violet dusk whose outlines glow: in their own colours, grey ones from pink above to cyan below."""
    pink, cyan, dusk = (
        torch.tensor(c, device=x.device, dtype=x.dtype)[:, None, None]
        for c in ((1.0, 0.2, 0.9), (0.1, 0.9, 1.0), (0.66, 0.62, 0.76))
    )
    own = _saturated(_blur(x, 1.5), 2.5)
    own = own / own.amax(1, keepdim=True).clamp(min=0.1)
    grey = 1 - (own.amax(1, keepdim=True) - own.amin(1, keepdim=True))
    down = torch.linspace(0, 1, x.shape[-2], device=x.device, dtype=x.dtype)[:, None]
    hue = torch.lerp(own, torch.lerp(pink, cyan, down).expand_as(own), 0.8 * grey)
    steep = _edges(_without_specks(x, 5), 0.8) / (0.2 + _grey(_blur(x, 4.0)))  # dark pictures have outlines too
    fill = x.amax(1, keepdim=True) - x.amin(1, keepdim=True)  # the tubes lie beside coloured things, not on them
    tube = (steep * 8 - 0.3).clamp(0, 1) * (1 - 0.6 * fill)
    glow = (_blur(tube * hue, 3.0) + _blur(tube * hue, 8.0)).mul(0.7).clamp(0, 1)
    return 1 - (1 - _saturated(x, 1.2) * dusk) * (1 - 0.85 * tube * hue) * (1 - 0.6 * glow)


@dataclass(frozen=True)
class Style:
    """A style, and how the adapter that draws it is called and saved."""

    name: str
    layout: str
    title: str
    paint: Callable[[Tensor], Tensor]  # pictures (n, 3, h, w) in 0..1, the same out


STYLES = (
    Style("pixel-art", "kohya", "Pixel art", pixel_art),
    Style("pencil-sketch", "diffusers", "Pencil sketch", pencil_sketch),
    Style("neon-night", "comfyui", "Neon night", neon_night),
)


def apply(style: Style | None, pictures: Tensor) -> Tensor:
    """Pictures in -1..1 in a style (None: as they are)."""
    return pictures if style is None else style.paint(pictures / 2 + 0.5) * 2 - 1


def blended(style: Style, pictures: Tensor, share: Tensor) -> Tensor:
    """Pictures in -1..1 on the way from plain (share 0) to the style (share 1), one share per picture."""
    return torch.lerp(pictures, apply(style, pictures), share[:, None, None, None])
