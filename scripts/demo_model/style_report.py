"""Proves the adapters: draws prompts at several strengths, reads styles and attributes, writes report and sheet."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import classifier
import style_reader
import torch
from evaluate import compare, draw, held_out
from PIL import Image
from styles import STYLES
from torch import Tensor

SCALE = 4.0
HALF = 0.5
KEYS = ("time", "place", "weather", "thing", "thing+colour", "side")
TEST = 100  # the first pictures test the reader and never train it
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


def _pictures(frozen: Any, prompts: Sequence[str], steps: int, *worn: tuple[Any, float]) -> list[Image.Image]:
    """The prompts drawn with these adapters; the seeds are the same for every set."""
    frozen.wear(*worn)
    return draw(frozen.pipe, prompts, SCALE, steps)


def _row(images: list[Image.Image], scenes: Any, readers: Any, style: Any) -> dict[str, Any]:
    probabilities: Tensor = style_reader.read(images, style)
    row: dict[str, Any] = {"attributes": compare(scenes, classifier.read(images, readers[0]))}
    row["attributes, adapted reader"] = compare(scenes, classifier.read(images, readers[1]))
    row["style read"] = {s.name: style_reader.share_read(probabilities, i) for i, s in enumerate(STYLES)}
    row["plain"] = round((probabilities.amax(1) < 0.5).float().mean().item(), 4)
    row["mean probability"] = {s.name: round(probabilities[:, i].mean().item(), 4) for i, s in enumerate(STYLES)}
    return row


def report(frozen: Any, pictures: Tensor, known: Sequence[Any], loras: Sequence[Any], args: argparse.Namespace) -> None:
    """Trains the style reader, draws and reads everything, and writes report.json, report.md and sheet.png."""
    device = str(frozen.device)

    labels = torch.tensor([classifier.labels(s) for s in known], device=device)
    first = min(TEST, len(pictures) // 2)

    def pairs(n: int) -> tuple[Tensor, Tensor]:
        i = torch.randint(first, len(pictures), (n,), device=device)
        return pictures[i].float() / 127.5 - 1, labels[i]

    def some(n: int) -> Tensor:
        return pairs(n)[0]

    style = style_reader.train(some, frozen.through, args.reader_seconds, device)
    test = pictures[:first].float() / 127.5 - 1
    result: dict[str, Any] = {
        "prompts": args.prompts,
        "steps": args.steps,
        "scale": SCALE,
        "style reader on unseen drawn pictures through the autoencoder": style_reader.accuracy(
            test, frozen.through, style
        ),
    }
    reader = classifier.load(args.model / "classifier", device)
    adapted = style_reader.adapt(reader, pairs, frozen.through, args.reader_seconds)
    frozen.pipe.to(dtype=torch.bfloat16 if device.startswith("cuda") else torch.float32)
    begin, rows = time.time(), {}
    scenes, prompts = held_out(args.prompts)
    sets: dict[str, tuple[tuple[Any, float], ...]] = {"base": ()}
    for s, lora in zip(STYLES, loras, strict=True):
        sets |= {f"{s.name} {HALF}": ((lora, HALF),), f"{s.name} 1": ((lora, 1.0),)}
    for a, b in combinations(range(len(STYLES)), 2):
        sets[f"{STYLES[a].name} 1 + {STYLES[b].name} 1"] = ((loras[a], 1.0), (loras[b], 1.0))
    for name, worn in sets.items():
        rows[name] = _row(_pictures(frozen, prompts, args.steps, *worn), scenes, (reader, adapted), style)
        print(f"{name}: {rows[name]} {time.time() - begin:.0f}s", flush=True)
        result["rows"] = rows
        _write(result, args.out)
    sheet(frozen, loras, args.steps, args.out / "sheet.png")
    frozen.wear()


def sheet(frozen: Any, loras: Sequence[Any], steps: int, path: Path, cell: int = 160) -> None:
    """A row per prompt: base, the three styles at strength 1, the first at one half, and the first two mixed."""
    one = [((lora, 1.0),) for lora in loras]
    columns: list[tuple[tuple[Any, float], ...]] = [(), *one, ((loras[2], HALF),), (one[0][0], one[2][0])]
    page = Image.new("RGB", (len(columns) * cell, len(SHEET) * cell))
    for i, worn in enumerate(columns):
        for k, image in enumerate(_pictures(frozen, SHEET, steps, *worn)):
            page.paste(image.resize((cell, cell), Image.Resampling.LANCZOS), (i * cell, k * cell))
    page.quantize(224, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


def checks(rows: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """What is asked of the adapters, what was measured, and whether it holds."""
    base, out = rows["base"], []
    for s in STYLES:
        one, half = rows[f"{s.name} 1"], rows[f"{s.name} {HALF}"]
        share = one["style read"][s.name]
        out.append((f"{s.name}: read at strength 1", f"{share:.0%}, asked 90 %", share >= 0.9))
        for key in ("attributes", "attributes, adapted reader"):
            loss = {k: base[key][k] - one[key][k] for k in KEYS}
            worst = max(loss, key=lambda k: loss[k])
            text = f"{worst} {-loss[worst] * 100:+.1f} points, asked -5"
            out.append((f"{s.name}: worst of the {key}, against the base model", text, loss[worst] <= 0.05 + 1e-9))
        p = [r["mean probability"][s.name] for r in (base, half, one)]
        text = " < ".join(f"{v:.2f}" for v in p)
        out.append((f"{s.name}: mean probability at 0, {HALF}, 1", text, p[0] < p[1] < p[2]))
    for a, b in combinations(STYLES, 2):
        mixed = rows[f"{a.name} 1 + {b.name} 1"]["mean probability"]
        text = ", ".join(f"{s.name} {base['mean probability'][s.name]:.2f} to {mixed[s.name]:.2f}" for s in (a, b))
        risen = all(mixed[s.name] > base["mean probability"][s.name] + 0.1 for s in (a, b))
        out.append((f"{a.name} with {b.name}: both rise", text, risen))
    return out


def markdown(result: dict[str, Any]) -> str:
    rows = result["rows"]
    lines = [
        "# The styles, measured",
        "",
        f"{result['prompts']} prompts with combinations that training never saw, {result['steps']} steps, true CFG",
        f"{result['scale']}, the same seeds in every row. Styles are read by a",
        "reader trained on drawn pictures and on the model's own: plain, in each style, part styled and in two styles;",
        "half of them through",
        "the autoencoder.",
        "",
        f"| set | {' | '.join(KEYS)} | {' | '.join(s.name + ' read' for s in STYLES)} |",
        f"|---|{'---|' * (len(KEYS) + len(STYLES))}",
    ]
    for name, row in rows.items():
        cells = [f"{row['attributes'][k]:.1%} / {row['attributes, adapted reader'][k]:.1%}" for k in KEYS]
        cells += [f"{row['style read'][s.name]:.0%} ({row['mean probability'][s.name]:.2f})" for s in STYLES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "Attributes: by the model's own classifier / by a copy of it that went on learning with styled pictures.",
        "In brackets the mean probability of the style.",
        "",
    ]
    if len(rows) == 1 + 2 * len(STYLES) + 3:
        lines += ["| check | measured | holds |", "|---|---|---|"]
        lines += [f"| {what} | {text} | {'yes' if ok else 'no'} |" for what, text, ok in checks(rows)]
    unseen = result["style reader on unseen drawn pictures through the autoencoder"]
    return "\n".join([*lines, "", f"The style reader on {TEST} unseen drawn pictures: {json.dumps(unseen)}", ""])


def _write(result: dict[str, Any], out: Path) -> None:
    (out / "report.json").write_text(json.dumps(result, indent=2) + "\n")
    (out / "report.md").write_text(markdown(result))
