"""Proves the adapters: draws prompts at several strengths, reads styles and attributes, writes report and sheet."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import Any

import classifier
import numpy as np
import style_reader
import torch
from classifier import to_tensor
from evaluate import FIRST_SEED, compare, draw, held_out
from PIL import Image
from style_page import card, markdown
from styles import STYLES, apply
from torch import Tensor

SCALE = 4.0
HALF = 0.5
CALIBRATION = FIRST_SEED + 1_000_000  # the strengths are settled on prompts and seeds that the report never draws
TEST = 40  # the first pictures test the reader and never train it
SHEET = (
    "A beautiful sunset over the mountains",
    "a red house by a lake at night, with pine trees",
    "A sailboat on the sea at dawn",
    "a tropical beach with palm trees",
    "snowy forest with a yellow tent",
    "city skyline at night",
    "a purple hot-air balloon over the desert",
    "a rainbow over green hills, with a windmill",
)
Worn = tuple[tuple[Any, float], ...]


@dataclass
class Readers:
    """Of styles; of attributes, as it ships; of attributes, after learning with styled pictures."""

    style: style_reader.StyleReader
    plain: classifier.Reader
    adapted: classifier.Reader
    facts: dict[str, Any]


def learn(frozen: Any, pictures: Tensor, scenes: Sequence[Any], args: argparse.Namespace) -> Readers:
    """Trains the readers on drawn pictures, or takes those that --state holds."""
    device, path = str(frozen.device), args.state / "readers.pt"
    plain = classifier.load(args.model / "classifier", device)
    if path.exists():
        held = torch.load(path, map_location=device)
        readers = Readers(style_reader.StyleReader().to(device), plain, classifier.Reader().to(device), held["facts"])
        readers.style.load_state_dict(held["style"])
        readers.adapted.load_state_dict(held["adapted"])
        readers.style.eval()
        readers.adapted.eval()
        return readers
    labels = torch.tensor([classifier.labels(s) for s in scenes], device=device)
    source = style_reader.prepare(pictures[TEST:], labels[TEST:], frozen.through)
    style = style_reader.train(source)
    adapted = style_reader.adapt(plain, source, args.reader_seconds)
    test, truth = pictures[:TEST].float() / 127.5 - 1, labels[:TEST]
    kinds = {"the model's own": plain, "adapted": adapted}
    facts = {"count": TEST, "right": style_reader.unseen(test, truth, frozen.through, style, kinds)}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"style": style.state_dict(), "adapted": adapted.state_dict(), "facts": facts}, path)
    return Readers(style, plain, adapted, facts)


def _pictures(frozen: Any, prompts: Sequence[str], steps: int, *worn: tuple[Any, float]) -> list[Image.Image]:
    """The prompts drawn with these adapters; the seeds are the same for every set."""
    frozen.wear(*worn)
    return draw(frozen.pipe, prompts, SCALE, steps, batch=100 if frozen.device.type == "cuda" else 10)


def _found(scenes: Sequence[Any], readings: Sequence[dict[str, Any]]) -> list[bool]:
    """For each thing asked for, whether it is read with its colour."""
    seen = [{(t["kind"], t["colour"]) for t in r["things"]} for r in readings]
    return [(t.kind, t.colour) in pairs for s, pairs in zip(scenes, seen, strict=True) for t in s.things]


def paired(base: Sequence[bool], other: Sequence[bool]) -> tuple[float, float]:
    """The mean difference from the base, thing by thing, and its standard error."""
    d = [int(b) - int(a) for a, b in zip(base, other, strict=True)]
    mean = sum(d) / len(d)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in d) / (len(d) - 1) / len(d))


def _row(images: list[Image.Image], scenes: Any, readers: Readers) -> tuple[dict[str, Any], list[bool]]:
    """What is read in the pictures, and thing by thing whether the adapted reader finds it."""
    probabilities: Tensor = style_reader.read(images, readers.style)
    seen = classifier.read(images, readers.adapted)
    row: dict[str, Any] = {"attributes": compare(scenes, classifier.read(images, readers.plain))}
    row["attributes, adapted reader"] = compare(scenes, seen)
    row["style read"] = {s.name: style_reader.share_read(probabilities, i) for i, s in enumerate(STYLES)}
    row["plain"] = round((probabilities.amax(1) < 0.5).float().mean().item(), 4)
    row["mean probability"] = {s.name: round(probabilities[:, i].mean().item(), 4) for i, s in enumerate(STYLES)}
    return row, _found(scenes, seen)


def _painted(images: Sequence[Image.Image], style: Any) -> list[Image.Image]:
    """Pictures through a style's own filter: all that they show is kept, so what is lost is lost in the reading."""
    x = torch.cat([apply(style, part) for part in to_tensor(images).split(10)])
    return [Image.fromarray(a) for a in (x * 127.5 + 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()]


class Rows:
    """Draws sets of adapters and reads them against the base model, which comes first; pictures drawn once are kept."""

    def __init__(self, frozen: Any, readers: Readers, args: argparse.Namespace, first: int, name: str) -> None:
        self.frozen, self.readers, self.steps, self.first = frozen, readers, args.steps, first
        files = sorted(args.out.glob("*.safetensors"))
        self.sha256 = {p.name: sha256(p.read_bytes()).hexdigest() for p in files}
        self.drawn = args.state / f"{name}-{sha256(json.dumps(self.sha256).encode()).hexdigest()[:12]}-{args.steps}"
        self.drawn.mkdir(parents=True, exist_ok=True)
        self.base: list[bool] = []
        self.rows: dict[str, Any] = {}

    def pictures(self, name: str, prompts: Sequence[str], worn: Worn) -> list[Image.Image]:
        path = self.drawn / f"{name}.npy"
        if not path.exists():
            np.save(path, np.stack([np.asarray(im) for im in _pictures(self.frozen, prompts, self.steps, *worn)]))
        return [Image.fromarray(a) for a in np.load(path)[: len(prompts)]]

    def add(self, name: str, count: int, worn: Worn, filtered: Any = None) -> None:
        """One more row: the pictures of this set, or of the base model through a filter."""
        scenes, prompts = held_out(count, self.first)
        images = self.pictures("base" if filtered else name, prompts, worn)
        row, found = _row(_painted(images, filtered) if filtered else images, scenes, self.readers)
        self.base = self.base or found
        mean, error = paired(self.base[: len(found)], found)
        row |= {"prompts": count, "thing+colour, paired": {"difference": round(mean, 4), "error": round(error, 4)}}
        print(f"{name}: {row}", flush=True)
        self.rows[name] = row


def calibrate(frozen: Any, loras: Sequence[Any], readers: Readers, args: argparse.Namespace) -> None:
    """Reads every adapter at the strengths of --gains, on prompts of its own: what `styles.py` calls gain."""
    rows = Rows(frozen, readers, args, CALIBRATION, "calibration")
    rows.add("base", args.prompts, ())
    for gain in args.gains:
        for s, lora in zip(STYLES, loras, strict=True):
            rows.add(f"{s.name} {gain}", args.prompts, ((lora, gain),))
            (args.out / "calibration.json").write_text(json.dumps(rows.rows, indent=2) + "\n")


def report(frozen: Any, loras: Sequence[Any], readers: Readers, args: argparse.Namespace) -> None:
    """Draws and reads everything, and writes report.json, report.md and sheet.png."""
    frozen.pipe.to(dtype=torch.bfloat16 if frozen.device.type == "cuda" else torch.float32)
    rows = Rows(frozen, readers, args, FIRST_SEED, "report")
    n, few = args.prompts, args.fewer or args.prompts
    rows.add("base", n, ())
    for s in STYLES:
        rows.add(f"base through the filter of {s.name}", n, (), s)
    for strength, count in ((1, n), (HALF, few)):
        for s, lora in zip(STYLES, loras, strict=True):
            rows.add(f"{s.name} {strength}", count, ((lora, float(strength)),))
    for a, b in combinations(range(len(STYLES)), 2):
        rows.add(f"{STYLES[a].name} 1 + {STYLES[b].name} 1", few, ((loras[a], 1.0), (loras[b], 1.0)))
    result = {"prompts": n, "steps": args.steps, "scale": SCALE, "readers": readers.facts, "rows": rows.rows}
    result |= {"sha256": rows.sha256, "gains": {s.name: s.gain for s in STYLES}}
    result["ranks"] = {s.name: lora.rank for s, lora in zip(STYLES, loras, strict=True)}
    (args.out / "report.json").write_text(json.dumps(result, indent=2) + "\n")
    (args.out / "report.md").write_text(markdown(result))
    (args.out / "README.md").write_text(card(result))
    sheet(rows, loras, args.out / "sheet.png")
    frozen.wear()


def sheet(rows: Rows, loras: Sequence[Any], path: Path, cell: int = 160) -> None:
    """A row per prompt: base, the three styles at strength 1, the last at one half, and the first and last mixed."""
    one = [((lora, 1.0),) for lora in loras]
    columns: list[Worn] = [(), *one, ((loras[2], HALF),), (one[0][0], one[2][0])]
    page = Image.new("RGB", (len(columns) * cell, len(SHEET) * cell))
    for i, worn in enumerate(columns):
        for k, image in enumerate(rows.pictures(f"sheet {i}", SHEET, worn)):
            page.paste(image.resize((cell, cell), Image.Resampling.LANCZOS), (i * cell, k * cell))
    page.quantize(224, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
