"""Reads a clip back: time of day, place, thing and colour from one frame, movement from the first and the last."""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from classifier import Block
from motion_data import arrays, progress
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from world import COLOURS, FRAMES, HEIGHT, KINDS, LABELS, NONE, WIDTH

SEEN = (0, FRAMES // 2, FRAMES - 1)  # the frames that are looked at
STILL = ("time", "place", "thing", "colour")
MOVING = ("direction", "sky")
COLUMN = {name: i for i, name in enumerate(LABELS)}
TIME_OF = [COLUMN["first"], COLUMN["time"], COLUMN["last"]]  # which label says the time of day of each such frame
WIDTHS = (24, 32, 48, 48, 48)

Through = Callable[[Tensor], Tensor]
Arrays = Mapping[str, np.ndarray]


class _Eye(nn.Module):
    """A small convolutional network that keeps apart where it saw what."""

    def __init__(self, channels: int, heads: Sequence[str]) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(channels, WIDTHS[0], 5, stride=2, padding=2),
            nn.GroupNorm(8, WIDTHS[0]),
            nn.GELU(),
        ]
        for a, b in itertools.pairwise(WIDTHS):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(8, b), Block(b), Block(b)]
        self.trunk = nn.Sequential(*layers)  # (n, 48, 4, 6)
        self.squeeze = nn.Conv2d(WIDTHS[-1], 24, 1)
        self.neck = nn.Linear(24 * 24 + 2 * WIDTHS[-1], 64)
        self.heads = nn.ModuleDict({k: nn.Linear(64, len(LABELS[k])) for k in heads})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        f = self.trunk(x)
        parts = [self.squeeze(f).flatten(1), f.mean((2, 3)), f.amax((2, 3))]
        h = F.gelu(self.neck(torch.cat(parts, 1)))
        return {k: head(h) for k, head in self.heads.items()}


class Reader(nn.Module):
    """`still` reads one frame (n, 3, 128, 192) in -1..1, `moving` the first and the last one stacked."""

    def __init__(self) -> None:
        super().__init__()
        self.still, self.moving = _Eye(3, STILL), _Eye(6, MOVING)


def _frames(clips: np.ndarray) -> np.ndarray:
    """First, middle and last frame of each clip, whatever its length."""
    last = clips.shape[1] - 1
    return np.stack([clips[:, i] for i in (0, last // 2, last)], 1)


def _float(frames: Tensor) -> Tensor:
    """uint8 (..., h, w, 3) as (..., 3, h, w) in -1..1."""
    return frames.movedim(-1, -3).float() / 127.5 - 1.0


@torch.no_grad()
def _passed(clips: np.ndarray, through: Through, device: str, seconds: float, batch: int = 8) -> Tensor:
    """The frames of as many clips as go through in that time."""
    out: list[Tensor] = []
    begin = time.time()
    for i in range(0, len(clips), batch):
        x = _float(torch.from_numpy(np.ascontiguousarray(clips[i : i + batch])).to(device))
        y = through(x.transpose(1, 2).contiguous())[:, :, list(SEEN)].float().clamp(-1, 1)
        out.append(((y + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 4, 1))
        if time.time() - begin > seconds:
            break
    return torch.cat(out)


def _worn(x: Tensor) -> Tensor:
    """(n, k, h, w) a little brighter, duller, softer and noisier, as what a model draws may be."""
    n = x.shape[0]

    def rand(low: float, high: float) -> Tensor:
        return torch.empty((n, 1, 1, 1), device=x.device).uniform_(low, high)

    x = x * rand(0.88, 1.1) + rand(-0.08, 0.08)
    soft = F.interpolate(F.avg_pool2d(x, 2), x.shape[-2:], mode="bilinear", align_corners=False)
    x = torch.lerp(x, soft, rand(0, 1) * (rand(0, 1) < 0.4))
    return x + torch.randn_like(x) * rand(0, 0.06)


def _loss(reader: Reader, frames: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of all heads, on one of the three frames for what a frame shows."""
    n = frames.shape[0]
    pick = torch.tensor((0, 1, 1, 2), device=frames.device)[torch.randint(4, (n,), device=frames.device)]
    rows = torch.arange(n, device=frames.device)
    out = reader.still(_worn(_float(frames[rows, pick])))
    times = labels[:, TIME_OF][rows, pick]
    total = F.cross_entropy(out["time"].float(), times)
    for k in STILL[1:]:
        total = total + F.cross_entropy(out[k].float(), labels[:, COLUMN[k]])
    moved = reader.moving(_worn(_float(frames[:, [0, 2]]).flatten(1, 2)))
    for k in MOVING:
        total = total + F.cross_entropy(moved[k].float(), labels[:, COLUMN[k]])
    return total


def _pool(
    sets: Sequence[Arrays], device: str, through: Through | None, seconds: float, most: int
) -> tuple[Tensor, ...]:
    """Frames and labels on the device; a share of the clips comes a second time as `through` gives it back."""
    frames, labels = [], []
    for data in sets:
        clips, y = data["clips"][:most], torch.from_numpy(np.array(data["labels"][:most])).long()
        frames.append(torch.from_numpy(_frames(clips)).to(device))
        labels.append(y)
        if through is not None:
            again = _passed(clips, through, device, seconds / len(sets))
            repeat = max(1, len(clips) // (2 * len(again)))  # about a third of all that is seen
            frames.append(again.repeat(repeat, 1, 1, 1, 1))
            labels.append(y[: len(again)].repeat(repeat, 1))
    return torch.cat(frames), torch.cat(labels).to(device)


def train(
    arrays: Arrays | Sequence[Arrays],
    seconds: float,
    device: str = "cpu",
    through: Through | None = None,
    batch: int = 128,
    most: int = 12000,
) -> Reader:
    """A reader trained for so long on clips with labels, of one set or several; `through` takes and gives back
    (n, 3, 33, 128, 192) in -1..1, such as an autoencoder does, and may use up to a third of the time."""
    torch.manual_seed(0)
    begin = time.time()
    sets = [arrays] if isinstance(arrays, Mapping) else list(arrays)
    frames, labels = _pool(sets, device, through, seconds / 3, most)
    reader = Reader().to(device).train()
    opt = torch.optim.AdamW(reader.parameters(), lr=2e-3, weight_decay=0.02)
    seconds, begin, step = max(seconds - (time.time() - begin), seconds / 3), time.time(), 0
    while (elapsed := time.time() - begin) < seconds:
        opt.param_groups[0]["lr"] = 2e-3 * min(1.0, (step + 1) / 100) * max(0.01, 1 - elapsed / seconds)
        index = torch.randint(len(frames), (batch,), device=device)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled="cuda" in device):
            loss = _loss(reader, frames[index], labels[index])
        opt.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        opt.step()
        if step % 200 == 0:
            print(f"reader step {step} {elapsed:.0f}s loss {loss.item():.3f}", flush=True)
        step += 1
    return reader.eval()


def save(reader: Reader, folder: Path) -> None:
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().half().cpu().contiguous() for k, v in reader.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"labels": LABELS}, indent=2) + "\n")


def load(folder: Path, device: str = "cpu") -> Reader:
    """The trained reader, in float32."""
    reader = Reader()
    reader.load_state_dict({k: v.float() for k, v in load_file(Path(folder) / "model.safetensors").items()})
    return reader.eval().to(device)


def _colour(logits: Tensor, thing: str) -> str:
    """The likeliest of the colours that such a thing comes in."""
    choices = KINDS.get(thing, ())
    return max(choices, key=lambda c: float(logits[1 + COLOURS.index(c)]), default=NONE)


@torch.no_grad()
def read(clips: Sequence[Any] | np.ndarray, reader: Reader, batch: int = 32) -> list[dict[str, str]]:
    """What each clip of uint8 (frames, h, w, 3) shows, by the names of world.LABELS: time, place, thing and colour
    in the middle frame, direction of the thing, what the sky does, time of day in the first and the last frame."""
    device = next(reader.parameters()).device
    out: list[dict[str, str]] = []
    for i in range(0, len(clips), batch):
        frames = _float(torch.from_numpy(_frames(np.stack([np.asarray(c) for c in clips[i : i + batch]]))).to(device))
        if frames.shape[-2:] != (HEIGHT, WIDTH):
            frames = F.interpolate(frames.flatten(0, 1), (HEIGHT, WIDTH), mode="area").unflatten(0, (-1, 3))
        still = {k: v.float().cpu() for k, v in reader.still(frames.flatten(0, 1)).items()}
        moving = reader.moving(frames[:, [0, 2]].flatten(1, 2))
        for n in range(len(frames)):
            first, middle, last = 3 * n, 3 * n + 1, 3 * n + 2
            said = {k: LABELS[k][int(still[k][middle].argmax())] for k in ("time", "place", "thing")}
            said["colour"] = _colour(still["colour"][middle], said["thing"])
            said |= {k: LABELS[k][int(moving[k][n].argmax())] for k in MOVING}
            said |= {k: LABELS["time"][int(still["time"][at].argmax())] for k, at in (("first", first), ("last", last))}
            out.append(said)
    return out


def scores(data: Arrays, reader: Reader) -> dict[str, float]:
    """Shares of clips that are read as they are labelled."""
    seen = read(data["clips"], reader)
    truth = [{k: LABELS[k][row[i]] for k, i in COLUMN.items()} for row in data["labels"]]
    return {k: round(sum(s[k] == t[k] for s, t in zip(seen, truth, strict=True)) / len(truth), 4) for k in LABELS}


def autoencoder(folder: Path, device: str) -> Through:
    """Clips through a saved autoencoder and back."""
    from diffusers import AutoencoderKLWan

    vae = AutoencoderKLWan.from_pretrained(folder, torch_dtype=torch.float32).to(device).eval()

    @torch.no_grad()
    def through(x: Tensor) -> Tensor:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled="cuda" in device):
            return vae.decode(vae.encode(x).latent_dist.mode()).sample

    return through


def _open(folder: Path, begin: float = 0.0, end: float = 1.0) -> dict[str, np.ndarray]:
    """A part of the clips of a folder that are ready."""
    ready, count = progress(folder)
    return {k: v[int(ready * begin) : int(ready * end)] for k, v in arrays(folder, count).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True, help="folder of rendered clips")
    parser.add_argument("--held", type=Path, required=True, help="folder of held-out clips: four fifths are learnt too")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--most", type=int, default=12000, help="clips of each folder at most")
    parser.add_argument("--vae", type=Path, help="folder of an autoencoder: clips that went through it are learnt too")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    through = autoencoder(args.vae, device) if args.vae else None
    sets = [_open(args.train), _open(args.held, 0.0, 0.8)]
    reader = train(sets, args.seconds, device, through, most=args.most)
    save(reader, args.out)
    test = {k: v[:512] for k, v in _open(args.held, 0.8).items()}
    report = {"unseen rendered clips": len(test["labels"]), "scores": scores(test, reader)}
    if through is not None:
        some = test["clips"][:128]
        frames = _passed(some, through, device, 60).cpu().numpy()
        report["scores through the autoencoder"] = scores(
            {"clips": frames, "labels": test["labels"][: len(frames)]}, reader
        )
    (args.out / "scores.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2), flush=True)


if __name__ == "__main__":
    main()
