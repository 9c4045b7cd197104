"""Pictures that the base model draws itself: what its adapters learn from keeps its own content."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import captions
import classifier
import torch
from layout import SHIFT, TEXT_TOKENS
from scenes import Scene, sample
from torch import Tensor

FIRST_SEED = 40_000_000  # scenes of the training split that nothing else drew
SCALE = 3.0  # a little below the shipping 4.0: the adapter is guided once more when it draws


@dataclass
class Drawn:
    """Pictures (n, 3, 256, 256) as uint8, the noise each one started from, and what it was asked to show."""

    pictures: Tensor
    noise: Tensor
    scenes: list[Scene]


def sources() -> Iterator[Scene]:
    """Scenes to draw; only half as many without any thing as the world has."""
    seed = FIRST_SEED
    while True:
        scene = sample(seed)
        if scene.things or seed % 2:
            yield scene
        seed += 1


def sigmas(steps: int) -> list[float]:
    """The noise levels of the model's own scheduler, with the final zero."""
    line = [1 - i * (1 - 1 / steps) / max(steps - 1, 1) for i in range(steps)]
    return [SHIFT * s / (1 + (SHIFT - 1) * s) for s in line] + [0.0]


@torch.no_grad()
def draw(frozen: Any, prompts: list[str], steps: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures of the prompts as uint8, and their starting noise."""
    n, device = len(prompts), frozen.device
    noise = torch.randn(n, 256, 64, device=device, generator=torch.Generator(device).manual_seed(seed))
    words, pooled = frozen.texts([*prompts, ""])
    order = torch.cat([torch.arange(n, device=device), torch.full((n,), n, device=device)])
    words, pooled = words[order].float(), pooled[order].float()
    common = {
        "encoder_hidden_states": words,
        "pooled_projections": pooled,
        "txt_ids": torch.zeros(TEXT_TOKENS, 3, device=device),
        "img_ids": frozen.ids,
        "return_dict": False,
    }
    x, levels = noise.clone(), sigmas(steps)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        for now, after in pairwise(levels):
            t = torch.full((2 * n,), now, device=device)
            told, untold = frozen.net(hidden_states=torch.cat([x, x]), timestep=t, **common)[0].float().chunk(2)
            x = x + (after - now) * torch.lerp(untold, told, SCALE)
    return frozen.decode(x), noise


@torch.no_grad()
def right(reader: classifier.Reader, pictures: Tensor, scenes: list[Scene]) -> Tensor:
    """Whether the reader sees in each picture just what was asked for."""
    out = reader(pictures.float() / 127.5 - 1)
    y = torch.tensor([classifier.labels(s) for s in scenes], device=pictures.device)
    good = torch.ones(len(y), dtype=torch.bool, device=y.device)
    for i, k in enumerate(("time", "place", "weather")):
        good &= out[k].argmax(-1) == y[:, i]
    things = y[:, 3:].view(len(y), -1, 3)
    good &= ((out["present"] > 0).long() == things[..., 0]).all(1)
    for i, k in ((1, "colour"), (2, "side")):
        good &= ((out[k].argmax(-1) == things[..., i]) | (things[..., i] < 0)).all(1)
    return good


def collect(frozen: Any, model: Path, seconds: float, steps: int, batch: int, most: int) -> Drawn:
    """Draws for a time and keeps what came out as asked; where next to nothing does, everything is kept."""
    reader = classifier.load(model / "classifier", str(frozen.device))
    begin, source, rng, total, kept = time.time(), sources(), random.Random(9), 0, 0
    parts: list[tuple[Tensor, Tensor, list[Scene], Tensor]] = []
    while not parts or (time.time() - begin < seconds and kept < most):
        scenes = [next(source) for _ in range(batch)]
        pictures, noise = draw(frozen, [captions.full(s, rng) for s in scenes], steps, len(parts))
        good = right(reader, pictures, scenes)
        parts.append((pictures, noise.to(torch.bfloat16), scenes, good))
        total, kept = total + batch, kept + int(good.sum())
    print(f"drew {total} pictures in {time.time() - begin:.0f}s, {kept} as asked", flush=True)
    good = torch.cat([p[3] for p in parts])
    if kept < 0.1 * total:
        print("too few pictures are as asked: all are kept", flush=True)
        good = torch.ones_like(good)
    pictures, noise = (torch.cat([p[i] for p in parts])[good] for i in (0, 1))
    everything = [s for p in parts for s in p[2]]
    return Drawn(pictures, noise, [s for s, ok in zip(everything, good.tolist(), strict=True) if ok])


def paraphrases(scenes: list[Scene], count: int) -> list[str]:
    """Training captions, `count` of each scene."""
    rng = random.Random(13)
    return [captions.caption(s, rng) for s in scenes for _ in range(count)]
