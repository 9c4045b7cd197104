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
PARTIAL = 0.35  # share of the prompts that leave something unsaid
SCALE = 3.0  # a little below the shipping 4.0: the adapter is guided once more when it draws


@dataclass
class Drawn:
    """Pictures (n, 3, 256, 256) as uint8, starting noise, prompts, and the scenes of prompts that say everything."""

    pictures: Tensor
    noise: Tensor
    prompts: list[str]
    scenes: list[Scene | None]


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


@dataclass(frozen=True)
class Asked:
    """A prompt of a scene, and whether it says everything; what goes unsaid is the model's own choice."""

    scene: Scene
    prompt: str
    whole: bool


def _asked(source: Iterator[Scene], rng: random.Random) -> Asked:
    scene, whole = next(source), rng.random() >= PARTIAL
    return Asked(scene, captions.full(scene, rng) if whole else captions.caption(scene, rng), whole)


def collect(frozen: Any, model: Path, seconds: float, steps: int, batch: int, most: int) -> Drawn:
    """Draws for a time. Of pictures whose prompts say everything those that came out as asked are kept, if some did."""
    reader = classifier.load(model / "classifier", str(frozen.device))
    begin, source, rng = time.time(), sources(), random.Random(9)
    parts: list[tuple[Tensor, Tensor]] = []
    asked: list[Asked] = []
    good: list[bool] = []
    while not parts or (time.time() - begin < seconds and sum(good) < most):
        new = [_asked(source, rng) for _ in range(batch)]
        pictures, noise = draw(frozen, [a.prompt for a in new], steps, len(parts))
        parts.append((pictures, noise.to(torch.bfloat16)))
        found = right(reader, pictures, [a.scene for a in new]).tolist()
        good += [ok or not a.whole for ok, a in zip(found, new, strict=True)]
        asked += new
    whole = [ok for ok, a in zip(good, asked, strict=True) if a.whole]
    print(
        f"drew {len(asked)} pictures in {time.time() - begin:.0f}s, {sum(whole)} of {len(whole)} as asked", flush=True
    )
    if sum(whole) < 0.1 * len(whole):
        print("too few pictures are as asked: all are kept", flush=True)
        good = [True] * len(asked)
    chosen = [i for i, ok in enumerate(good) if ok]
    pictures, noise = (torch.cat([p[k] for p in parts])[chosen] for k in (0, 1))
    kept = [asked[i] for i in chosen]
    return Drawn(pictures, noise, [a.prompt for a in kept], [a.scene if a.whole else None for a in kept])


def phrased(drawn: Drawn, count: int) -> list[str]:
    """Captions, `count` of each picture: its prompt, then others of its scene where the prompt said everything."""
    rng, out = random.Random(13), []
    for prompt, scene in zip(drawn.prompts, drawn.scenes, strict=True):
        out += [prompt, *(captions.caption(scene, rng) if scene else prompt for _ in range(count - 1))]
    return out
