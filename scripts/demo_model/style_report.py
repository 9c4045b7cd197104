"""Proves the adapters: draws prompts at several strengths, reads styles and attributes, writes report and sheets."""

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
from safetensors import safe_open
from safetensors.torch import save_file
from style_page import HALF, KEYS, MIXED, card, markdown, pair
from styles import STYLES, apply
from torch import Tensor

SCALE = 4.0
READERS = "readers.safetensors"
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
PREVIEW = 0  # which of them a preview shows
Worn = tuple[tuple[Any, float], ...]


@dataclass
class Readers:
    """Of styles; of attributes, as it ships; of attributes, after learning with styled pictures."""

    style: style_reader.StyleReader
    plain: classifier.Reader
    adapted: classifier.Reader
    facts: dict[str, Any]


def load(file: Path, model: Path, device: str = "cpu") -> Readers:
    """The readers that a file holds, and that of a model folder."""
    with safe_open(file, "pt") as held:
        facts = json.loads(held.metadata()["facts"])
        tensors = {key: held.get_tensor(key).float() for key in held.keys()}  # noqa: SIM118
    readers = Readers(style_reader.StyleReader(), classifier.load(model / "classifier"), classifier.Reader(), facts)
    for name, module in (("style", readers.style), ("adapted", readers.adapted)):
        module.load_state_dict({k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")})
        module.eval()
    for module in (readers.style, readers.plain, readers.adapted):
        module.to(device)
    return readers


def save(readers: Readers, file: Path) -> None:
    """Write the two readers that were trained; that of attributes in fp16, as the model's own."""
    tensors = {f"style.{k}": v.cpu().contiguous() for k, v in readers.style.state_dict().items()}
    tensors |= {f"adapted.{k}": v.half().cpu().contiguous() for k, v in readers.adapted.state_dict().items()}
    part = file.with_suffix(".part")
    save_file(tensors, part, metadata={"facts": json.dumps(readers.facts)})
    part.replace(file)


def learn(frozen: Any, pictures: Tensor, scenes: Sequence[Any], args: argparse.Namespace) -> Readers:
    """Trains the readers on drawn pictures, into --state."""
    device, count = str(frozen.device), args.test
    plain = classifier.load(args.model / "classifier", device)
    labels = torch.tensor([classifier.labels(s) for s in scenes], device=device)
    source = style_reader.prepare(pictures[count:], labels[count:], frozen.through, args.decoded)
    style = style_reader.train(source, args.style_steps)
    adapted = style_reader.adapt(plain, source, args.reader_seconds, args.reader_batch)
    test, truth = pictures[:count].float() / 127.5 - 1, labels[:count]
    kinds = {"the model's own": plain, "adapted": adapted}
    facts = {"count": count, "right": style_reader.unseen(test, truth, frozen.through, style, kinds)}
    print(json.dumps(facts["right"]), flush=True)
    readers = Readers(style, plain, adapted, facts)
    save(readers, args.state / READERS)
    return readers


def _pictures(frozen: Any, prompts: Sequence[str], steps: int, *worn: tuple[Any, float]) -> list[Image.Image]:
    """The prompts drawn with these adapters; the seeds are the same for every set."""
    if frozen.device.type == "cuda":
        frozen.pipe.to(dtype=torch.bfloat16)
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
    return mean, math.sqrt(sum((v - mean) ** 2 for v in d) / max(len(d) - 1, 1) / len(d))


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


def brief(row: dict[str, Any]) -> str:
    """A row in a line: what the adapted reader reads, and the styles."""
    cells = [f"{k} {row['attributes, adapted reader'][k]:.1%}" for k in KEYS]
    return ", ".join(cells + [f"{s.name} {row['style read'][s.name]:.0%}" for s in STYLES])


class Rows:
    """Draws sets of adapters and reads them against the base model; pictures drawn once are kept."""

    def __init__(
        self, frozen: Any, readers: Readers, args: argparse.Namespace, first: int, files: Sequence[Path]
    ) -> None:
        self.frozen, self.readers, self.steps, self.first = frozen, readers, args.steps, first
        self.sha256 = {p.name: sha256(p.read_bytes()).hexdigest() for p in files}
        self.drawn = args.work / f"drawn-{sha256(json.dumps(self.sha256).encode()).hexdigest()[:12]}-{args.steps}"
        self.drawn.mkdir(parents=True, exist_ok=True)
        self.base: list[bool] = []
        self.rows: dict[str, Any] = {}

    def pictures(self, name: str, prompts: Sequence[str], worn: Worn) -> list[Image.Image]:
        path = self.drawn / f"{name}, {len(prompts)}.npy"
        if not path.exists():
            np.save(path, np.stack([np.asarray(im) for im in _pictures(self.frozen, prompts, self.steps, *worn)]))
        return [Image.fromarray(a) for a in np.load(path)]

    def keep(self, report: Path) -> None:
        """Take over what an earlier report of the same files by the same readers says: only what it lacks is drawn."""
        told = json.loads(report.read_text()) if report.exists() else {}
        same = {"sha256": self.sha256, "steps": self.steps, "readers": self.readers.facts}
        if {key: told.get(key) for key in same} == same:
            self.rows |= told["rows"]

    def add(self, name: str, count: int, worn: Worn, filtered: Any = None) -> None:
        """One more row: the pictures of this set, or of the base model through a filter."""
        if self.rows.get(name, {}).get("prompts") == count:
            return
        scenes, prompts = held_out(count, self.first)
        if not self.base:
            base = self.pictures("base", prompts, ())
            self.base = _found(scenes, classifier.read(base, self.readers.adapted))
        images = self.pictures("base" if filtered else name, prompts, worn)
        row, found = _row(_painted(images, filtered) if filtered else images, scenes, self.readers)
        mean, error = paired(self.base[: len(found)], found)
        row |= {"prompts": count, "thing+colour, paired": {"difference": round(mean, 4), "error": round(error, 4)}}
        row["device"] = self.frozen.device.type
        print(f"{name}: {brief(row)}", flush=True)
        self.rows[name] = row


def report(frozen: Any, loras: Sequence[Any], readers: Readers, told: dict[str, Any], args: argparse.Namespace) -> None:
    """Draws and reads everything, and writes report.json, report.md, README.md and sheet.png."""
    rows = Rows(frozen, readers, args, FIRST_SEED, sorted(args.out.glob("*.safetensors")))
    rows.keep(args.out / "report.json")
    n, few = args.prompts, args.fewer or args.prompts
    rows.add("base", n, ())
    for s in STYLES:
        rows.add(f"base through the filter of {s.name}", n, (), s)
    for strength, count in ((1, n), (HALF, few)):
        for s, lora in zip(STYLES, loras, strict=True):
            rows.add(f"{s.name} {strength}", count, ((lora, float(strength)),))
    for strength in (1.0, MIXED):
        for (s, a), (t, b) in combinations(zip(STYLES, loras, strict=True), 2):
            rows.add(pair(s.name, t.name, strength), few, ((a, strength), (b, strength)))
    result = {"prompts": n, "steps": args.steps, "scale": SCALE, "readers": readers.facts, "rows": rows.rows}
    result |= {"sha256": rows.sha256, "gains": {k: v["gain"] for k, v in told.items()}, "trained": told}
    result["ranks"] = {s.name: lora.rank for s, lora in zip(STYLES, loras, strict=True)}
    (args.out / "report.json").write_text(json.dumps(result, indent=2) + "\n")
    (args.out / "report.md").write_text(markdown(result))
    (args.out / "README.md").write_text(card(result))
    sheet(rows, loras, args.out / "sheet.png")
    frozen.wear()


def sheet(rows: Rows, loras: Sequence[Any], path: Path, cell: int = 160) -> None:
    """A row per prompt: base, the three styles at strength 1, the last at one half, and the first and last mixed."""
    one = [((lora, 1.0),) for lora in loras]
    columns: list[Worn] = [(), *one, ((loras[2], HALF),), ((loras[0], MIXED), (loras[2], MIXED))]
    page = Image.new("RGB", (len(columns) * cell, len(SHEET) * cell))
    for i, worn in enumerate(columns):
        for k, image in enumerate(rows.pictures(f"sheet {i}", SHEET, worn)):
            page.paste(image.resize((cell, cell), Image.Resampling.LANCZOS), (i * cell, k * cell))
    _packed(page).save(path, optimize=True)
    for i, s in enumerate(STYLES, 1):  # what pages show of each adapter
        shown = page.crop((i * cell, PREVIEW * cell, (i + 1) * cell, (PREVIEW + 1) * cell))
        _packed(shown).save(path.with_name(f"{s.name}.png"), optimize=True)


def _packed(image: Image.Image) -> Image.Image:
    return image.quantize(224, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG)
