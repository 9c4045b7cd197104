"""Reads a picture back: time of day, place, weather, and each thing with its colour and side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from scenes import COLOURS, KINDS, PLACES, SIDES, TIMES, WEATHERS, Scene
from torch import Tensor, nn

NAMES = tuple(KINDS)
HEADS = {"time": len(TIMES), "place": len(PLACES), "weather": len(WEATHERS), "present": len(NAMES)}
HEADS |= {"colour": len(NAMES) * len(COLOURS), "side": len(NAMES) * len(SIDES)}


def labels(scene: Scene) -> list[int]:
    """Time, place, weather, then per kind: present (0/1), colour index or -1, side index or -1."""
    out = [TIMES.index(scene.time), PLACES.index(scene.place), WEATHERS.index(scene.weather)]
    things = {t.kind: t for t in scene.things}
    for kind in NAMES:
        t = things.get(kind)
        out.append(int(t is not None))
        out.append(COLOURS.index(t.colour) if t and t.colour else -1)
        out.append(SIDES.index(t.side) if t and t.side else -1)
    return out


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.deep = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.GroupNorm(8, width)
        self.up, self.down = nn.Conv2d(width, width * 2, 1), nn.Conv2d(width * 2, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm(self.deep(x)))))


class Reader(nn.Module):
    """A small convolutional network over 256x256 pictures in -1..1."""

    def __init__(self) -> None:
        super().__init__()
        widths = (24, 40, 64, 80)
        layers: list[nn.Module] = [
            nn.Conv2d(3, widths[0], 5, stride=2, padding=2),
            nn.GroupNorm(8, widths[0]),
            nn.GELU(),
        ]
        for a, b in zip(widths, (*widths[1:], widths[-1]), strict=True):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(8, b), Block(b), Block(b)]
        self.trunk = nn.Sequential(*layers)  # (n, 80, 8, 8)
        self.neck = nn.Linear(widths[-1] * 16, 96)
        self.heads = nn.ModuleDict({k: nn.Linear(96, n) for k, n in HEADS.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits per head; colour and side as (n, kinds, choices)."""
        f = self.trunk(x)
        columns = torch.cat([f.mean(2), f.amax(2)], 1).flatten(1)  # columns are kept apart: sides must be told
        h = F.gelu(self.neck(columns))
        out = {k: head(h) for k, head in self.heads.items()}
        n = x.shape[0]
        out["colour"] = out["colour"].view(n, len(NAMES), len(COLOURS))
        out["side"] = out["side"].view(n, len(NAMES), len(SIDES))
        return out


def loss(out: dict[str, Tensor], y: Tensor) -> Tensor:
    """Cross entropy over all heads; colour and side count where there is one."""
    things = y[:, 3:].view(-1, len(NAMES), 3).long()
    total = sum(F.cross_entropy(out[k].float(), y[:, i].long()) for i, k in enumerate(("time", "place", "weather")))
    total = total + 4 * F.binary_cross_entropy_with_logits(out["present"].float(), things[..., 0].float())
    for k, i in (("colour", 1), ("side", 2)):
        total = total + F.cross_entropy(out[k].float().flatten(0, 1), things[..., i].flatten(), ignore_index=-1)
    return total


@torch.no_grad()
def scores(out: dict[str, Tensor], y: Tensor) -> dict[str, Tensor]:
    """Per picture or per thing, whether each head is right."""
    things = y[:, 3:].view(-1, len(NAMES), 3).long()
    res = {k: out[k].argmax(-1) == y[:, i] for i, k in enumerate(("time", "place", "weather"))}
    seen = (out["present"] > 0).long()
    res["things"] = (seen == things[..., 0]).all(1)
    here = things[..., 0] == 1
    found, colour = seen == 1, out["colour"].argmax(-1)
    res["thing+colour"] = (found & ((things[..., 1] < 0) | (colour == things[..., 1])))[here]
    sided = here & (things[..., 2] >= 0)
    res["side"] = (out["side"].argmax(-1) == things[..., 2])[sided]
    return res


def save(model: Reader, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().half().cpu().contiguous() for k, v in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"heads": HEADS}, indent=2) + "\n")


def load(folder: Path, device: str = "cpu") -> Reader:
    """The trained reader, in float32."""
    model = Reader()
    model.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
    return model.eval().to(device)


def to_tensor(images: Sequence[Any]) -> Tensor:
    """PIL pictures or (h, w, 3) uint8 arrays as (n, 3, 256, 256) in -1..1."""
    stack = torch.stack([torch.from_numpy(np.array(im)[..., :3].copy()) for im in images]).permute(0, 3, 1, 2)
    x = stack.float() / 127.5 - 1.0
    return x if x.shape[-2:] == (256, 256) else F.interpolate(x, (256, 256), mode="area")


@torch.no_grad()
def read(images: Sequence[Any], model: Reader) -> list[dict[str, Any]]:
    """What each picture shows: {"time", "place", "weather", "things": [{"kind", "colour", "side"}, ...]}."""
    device = next(model.parameters()).device
    out = {k: v.float().cpu() for k, v in model(to_tensor(images).to(device)).items()}
    readings = []
    for i in range(len(images)):
        things = []
        for k, kind in enumerate(NAMES):
            if out["present"][i, k] > 0:
                colour = max(KINDS[kind], key=lambda c, i=i, k=k: out["colour"][i, k, COLOURS.index(c)], default="")
                side = SIDES[int(out["side"][i, k].argmax())] if kind not in ("bridge", "flowers") else ""
                things.append({"kind": kind, "colour": colour, "side": side})
        readings.append(
            {
                "time": TIMES[int(out["time"][i].argmax())],
                "place": PLACES[int(out["place"][i].argmax())],
                "weather": WEATHERS[int(out["weather"][i].argmax())],
                "things": things,
            }
        )
    return readings
