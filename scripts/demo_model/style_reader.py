"""Reads how much of each style a picture shows: one probability per style, for plain, half and mixed pictures too."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import classifier
import torch
import torch.nn.functional as F
from classifier import to_tensor
from graph import Step
from styles import STYLES, apply, blended
from torch import Tensor, nn

ADAPT = 4e-4  # the rate at which the reader of attributes goes on learning
STEEP = (0.004, 0.012, 0.03, 0.06, 0.12, 0.25)  # bounds of how much neighbouring pixels differ


def _spread(x: Tensor, bounds: Sequence[float]) -> Tensor:
    """The share of the values (n, ...) above each bound."""
    return torch.stack([(x > b).float().flatten(1).mean(1) for b in bounds], 1)


def statistics(x: Tensor) -> Tensor:
    """What is counted in pictures in -1..1: light, colour, how steep at which column and row, what stands out."""
    x = (x + 1) / 2
    grey, strong = x.mean(1), x.amax(1) - x.amin(1)
    tenths = [i / 12 for i in range(1, 12)]
    out = [_spread(grey, tenths), _spread(strong, tenths), x.mean((2, 3)), x.std((2, 3))]
    for axis in (1, 2):
        step = grey.diff(dim=axis).abs()
        lines = step.mean(3 - axis)
        lines = F.pad(lines, (0, 1)).unflatten(1, (-1, 16)).mean(1)  # squares of 8 and 16 pixels begin at these
        out += [(lines + 1e-3).log(), _spread(step, STEEP)]
    for size in (1, 2, 4):
        small = F.avg_pool2d(grey[:, None], size)
        around = F.avg_pool2d(F.pad(small, (2, 2, 2, 2), mode="replicate"), 5, 1)
        out += [_spread(small - around, STEEP[1:]), _spread(around - small, STEEP[1:])]
        edge = (small - around).abs()
        colour = F.avg_pool2d(strong[:, None], size)
        out += [torch.stack([(edge * v).mean((1, 2, 3)) / (edge.mean((1, 2, 3)) + 1e-3) for v in (small, colour)], 1)]
    flat = F.avg_pool2d(grey[:, None].square(), 8) - F.avg_pool2d(grey[:, None], 8).square()
    out += [_spread(flat.clamp(min=0).sqrt(), STEEP), _spread(F.avg_pool2d(strong[:, None], 8), tenths)]
    return torch.cat(out, 1)


class StyleReader(nn.Module):
    """A small network over what `statistics` counts in 256x256 pictures in -1..1; one logit per style."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        count = statistics(torch.zeros(1, 3, 256, 256)).shape[1]
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("spread", torch.ones(count))
        self.net = nn.Sequential(nn.Linear(count, width), nn.GELU(), nn.Dropout(0.2), nn.Linear(width, width))
        self.head = nn.Sequential(nn.GELU(), nn.Dropout(0.2), nn.Linear(width, len(STYLES)))

    def fit(self, counted: Tensor) -> None:
        """Takes the scale of the inputs from those of the training pictures."""
        self.mean.copy_(counted.mean(0))
        self.spread.copy_(counted.std(0).clamp(min=1e-3))

    def judge(self, counted: Tensor) -> Tensor:
        return self.head(self.net(((counted - self.mean) / self.spread).clamp(-5, 5)))

    def forward(self, x: Tensor) -> Tensor:
        return self.judge(statistics(x))


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


@dataclass
class Examples:
    """Pictures (n, 3, 256, 256) as uint8, how much of each style they show, and the labels of their scenes."""

    pictures: Tensor
    shares: Tensor
    labels: Tensor
    decoded: int  # the first ones went through the autoencoder, which takes most of the time without a GPU

    def some(self, n: int) -> Tensor:
        """Indices of a random batch, half of it decoded pictures: what is generated looks like them. See `prepare`."""
        device, count = self.pictures.device, len(self.pictures)
        decoded = torch.randint(0, self.decoded, (n // 2,), device=device)
        return torch.cat([decoded, torch.randint(self.decoded, count, (n - n // 2,), device=device)])


@torch.no_grad()
def prepare(pictures: Tensor, labels: Tensor, through: Callable[[Tensor], Tensor], decoded: int) -> Examples:
    """Styles pictures as `examples` does: some of them through the autoencoder and back, then all of them twice."""
    torch.manual_seed(4)
    size = 50 if pictures.is_cuda else 10
    decoded = min(decoded, len(pictures)) // size * size
    order = torch.cat([torch.arange(decoded), *[torch.arange(len(pictures))] * 2])
    styled, shares = [], []
    for k, part in enumerate(order.split(size)):
        x, share = examples(pictures[part].float() / 127.5 - 1)
        x = through(x) if k * size < decoded else x
        styled.append((x * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8))
        shares.append(share)
    return Examples(torch.cat(styled), torch.cat(shares), labels[order], decoded)


def train(source: Examples, steps: int, batch: int = 256) -> StyleReader:
    """Trains on what is counted in all the examples, decoded ones as often as others."""
    torch.manual_seed(5)
    device = source.pictures.device
    counted = torch.cat([statistics(part.float() / 127.5 - 1) for part in source.pictures.split(50)])
    model = StyleReader().to(device)
    model.fit(counted)
    opt = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.05)
    for step in range(steps):
        i = source.some(batch)
        inputs = counted[i] + 0.05 * model.spread * torch.randn(batch, counted.shape[1], device=device)
        opt.param_groups[0]["lr"] = 2e-3 * min(1.0, (step + 1) / 30) * (1 - step / steps)
        loss = F.binary_cross_entropy_with_logits(model.judge(inputs), source.shares[i])
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        if step % 500 == 499:
            print(f"style reader step {step + 1} loss {loss.item():.4f}", flush=True)
    return model.eval()


def adapt(reader: classifier.Reader, source: Examples, seconds: float, batch: int) -> classifier.Reader:
    """A copy of a reader of attributes that goes on learning with styled pictures."""
    torch.manual_seed(6)
    reader = copy.deepcopy(reader).train()
    kept = copy.deepcopy(reader).requires_grad_(False)
    weights, averaged = list(reader.parameters()), list(kept.parameters())
    fast, device = source.pictures.is_cuda, source.pictures.device
    opt = torch.optim.AdamW(weights, torch.tensor(ADAPT, device=device), weight_decay=0.02, capturable=fast)
    opt.param_groups[0]["peak"] = ADAPT
    begin, step, trainer = time.time(), 0, Step(weights, [opt], fast)

    def loss() -> Tensor:
        i = source.some(batch)
        return classifier.loss(reader(source.pictures[i].float() / 127.5 - 1), source.labels[i])

    backward, value = trainer.backward(loss)
    while (done := (time.time() - begin) / seconds) < 1:
        trainer(backward, min(1.0, (step + 1) / 30) * (1 - done))
        with torch.no_grad():
            torch._foreach_lerp_(averaged, weights, max(0.005, 1 / (step + 1)))
        step += 1
        if step % 250 == 0:
            print(f"attribute reader step {step} loss {value.item():.4f}", flush=True)
    print(f"attribute reader: {step} steps in {time.time() - begin:.0f}s", flush=True)
    return kept.eval()


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
def unseen(
    pictures: Tensor,
    labels: Tensor,
    through: Callable[[Tensor], Tensor],
    model: StyleReader,
    readers: dict[str, classifier.Reader],
) -> dict[str, dict[str, dict[str, float]]]:
    """How often each reader is right about styled pictures it never saw, decoded: the style; things with colours."""
    out: dict[str, dict[str, dict[str, float]]] = {
        "style reader": {"style": {}},
        "thing+colour": {k: {} for k in readers},
    }
    for i, style in enumerate((None, *STYLES)):
        x = torch.cat([through(apply(style, part)) for part in pictures.split(10)])
        p, key = model(x).sigmoid().cpu(), style.name if style else "plain"
        right = share_read(p, i - 1) if style else round((p.amax(1) < 0.5).float().mean().item(), 4)
        out["style reader"]["style"][key] = right
        for name, reader in readers.items():
            found = classifier.scores(reader(x), labels)["thing+colour"]
            out["thing+colour"][name][key] = round(found.float().mean().item(), 4)
    return out
