"""The three styles as filters over pictures; each keeps colour, light and shapes readable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

GREY = (0.299, 0.587, 0.114)
PIXEL = 8  # what the autoencoder turns into one latent: smaller squares cannot be drawn sharply


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
    return F.interpolate(torch.lerp(mean, bold, 0.75), scale_factor=block, mode="nearest")


def pixel_art(x: Tensor) -> Tensor:
    """Square pixels of a latent in few strong colours."""
    return (_saturated(_blocks(x, PIXEL), 1.15) * 12).round() / 12


def pencil_sketch(x: Tensor) -> Tensor:
    """Dark pencil lines over a pale wash on paper, which keeps light and colours; specks get no outline."""
    paper = torch.tensor((0.98, 0.96, 0.91), device=x.device, dtype=x.dtype)[:, None, None]
    wash = torch.lerp(paper.expand_as(x), _saturated(_blur(x, 0.8), 1.3), 0.72)
    bold = _without_specks(x, 5).clamp(min=1e-4).pow(0.7)  # dark pictures have lines too
    line = _blur((_edges(bold, 1.0) * 19 - 0.35).clamp(0, 1), 0.5)
    graphite = 0.12 + 0.25 * _saturated(_blur(x, 1.0), 1.8)  # keeps a tint, so that a red thing stays red
    return torch.lerp(wash, graphite, 0.85 * line).clamp(0, 1)


def neon_night(x: Tensor) -> Tensor:
    """A picture in violet dusk whose outlines glow: in their own colours, grey ones from pink above to cyan below."""
    pink, cyan, dusk = (
        torch.tensor(c, device=x.device, dtype=x.dtype)[:, None, None]
        for c in ((1.0, 0.2, 0.9), (0.1, 0.9, 1.0), (0.68, 0.60, 0.86))
    )
    own = _saturated(_blur(x, 1.5), 2.5)
    own = own / own.amax(1, keepdim=True).clamp(min=0.1)
    grey = 1 - (own.amax(1, keepdim=True) - own.amin(1, keepdim=True))
    down = torch.linspace(0, 1, x.shape[-2], device=x.device, dtype=x.dtype)[:, None]
    hue = torch.lerp(own, torch.lerp(pink, cyan, down).expand_as(own), 0.9 * grey)
    steep = _edges(_without_specks(x, 5), 1.0) / (0.2 + _grey(_blur(x, 4.0)))  # dark pictures have outlines too
    fill = x.amax(1, keepdim=True) - x.amin(1, keepdim=True)  # the tubes lie beside coloured things, not on them
    tube = (steep * 12 - 0.35).clamp(0, 1) * (1 - 0.8 * fill)
    glow = (_blur(tube * hue, 3.0) + _blur(tube * hue, 8.0)).mul(0.7).clamp(0, 1)
    return 1 - (1 - _saturated(x, 1.4) * dusk) * (1 - tube * hue) * (1 - 0.55 * glow)


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
