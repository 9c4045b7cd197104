"""Reads how much of each style a picture shows: one probability per style, for plain, half and mixed pictures too."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import classifier
import torch
import torch.nn.functional as F
from classifier import to_tensor
from styles import STYLES, apply, blended
from torch import Tensor, nn


class StyleReader(nn.Module):
    """A small convolutional network over 256x256 pictures in -1..1; one logit per style."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for a, b, stride in ((3, 24, 2), (24, 32, 2), (32, 48, 2), (48, 64, 2)):
            parts += [nn.Conv2d(a, b, 5, stride=stride, padding=2), nn.GroupNorm(8, b), nn.GELU()]
        self.trunk, self.head = nn.Sequential(*parts), nn.Linear(64, len(STYLES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x).mean((2, 3)))


def examples(x: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures in -1..1 and, per style, how much of it they are given: none, one, a share of one, two in a row."""
    target = torch.zeros(len(x), len(STYLES), device=x.device)
    out = x.clone()
    for i, style in enumerate(STYLES):
        chosen = torch.rand(len(x), device=x.device) < 0.4
        if chosen.any():
            # a third of the given styles come at part strength
            share = torch.where(torch.rand(len(x), device=x.device) < 0.33, torch.rand(len(x), device=x.device), 1.0)
            out[chosen] = blended(style, out[chosen], share[chosen])
            target[chosen, i] = share[chosen]
    return out, target


def train(
    pictures: Callable[[int], Tensor], through: Callable[[Tensor], Tensor], seconds: float, device: str, batch: int = 64
) -> StyleReader:
    """Trains for a time; `pictures(n)` gives plain ones, `through` sends some through the autoencoder and back."""
    torch.manual_seed(5)
    model = StyleReader().to(device)
    opt, begin, step = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.01), time.time(), 0
    while (done := (time.time() - begin) / seconds) < 1:
        x, target = examples(pictures(batch))
        half = len(x) // 2  # drawn pictures and decoded ones: what is generated looks like the latter
        x = torch.cat([x[:half], through(x[half:])])
        x = x + 0.03 * torch.rand(1).item() * torch.randn_like(x)
        opt.param_groups[0]["lr"] = 3e-3 * min(1.0, (step + 1) / 30) * (1 - done)
        loss = F.binary_cross_entropy_with_logits(model(x), target)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        step += 1
        if step % 50 == 0:
            print(f"style reader step {step} loss {loss.item():.4f}", flush=True)
    print(f"style reader: {step} steps in {time.time() - begin:.0f}s", flush=True)
    return model.eval()


def adapt(
    reader: classifier.Reader,
    batches: Callable[[int], tuple[Tensor, Tensor]],
    through: Callable[[Tensor], Tensor],
    seconds: float,
    batch: int = 64,
) -> classifier.Reader:
    """A reader of attributes that goes on learning with styled pictures; `batches(n)` gives plain ones and labels."""
    torch.manual_seed(6)
    reader = copy.deepcopy(reader).train()
    opt, begin, step = torch.optim.AdamW(reader.parameters(), lr=0.0, weight_decay=0.02), time.time(), 0
    while (done := (time.time() - begin) / seconds) < 1:
        x, y = batches(batch)
        x = examples(x)[0]
        half = len(x) // 2
        x = torch.cat([x[:half], through(x[half:])])
        opt.param_groups[0]["lr"] = 5e-4 * min(1.0, (step + 1) / 30) * (1 - done)
        loss = classifier.loss(reader(x), y)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        step += 1
    print(f"attribute reader: {step} steps in {time.time() - begin:.0f}s", flush=True)
    return reader.eval()


@torch.no_grad()
def read(images: Sequence[Any], model: StyleReader) -> Tensor:
    """Probabilities (n, styles) of PIL pictures."""
    device = next(model.parameters()).device
    return model(to_tensor(images).to(device)).sigmoid().cpu()


def share_read(probabilities: Tensor, style: int) -> float:
    """Share of the pictures where this style is the likeliest and more likely than not."""
    best = probabilities.argmax(1) == style
    return round((best & (probabilities[:, style] > 0.5)).float().mean().item(), 4)


@torch.no_grad()
def accuracy(pictures: Tensor, through: Callable[[Tensor], Tensor], model: StyleReader) -> dict[str, float]:
    """How often the reader is right about pictures it never saw, decoded from the autoencoder."""
    out = {}
    for i, style in enumerate((None, *STYLES)):
        p = model(through(apply(style, pictures))).sigmoid().cpu()
        key = style.name if style else "plain"
        out[key] = share_read(p, i - 1) if style else round((p.amax(1) < 0.5).float().mean().item(), 4)
    return out
