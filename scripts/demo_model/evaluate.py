"""Draws prompts whose combinations training never saw, has a classifier read the pictures, and writes the report."""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import captions
import classifier
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
from layout import TEXT_TOKENS, load
from PIL import Image
from scenes import KINDS, Scene, sample

FIRST_SEED = 20_000_000  # apart from every seed that training or the classifier's own test drew
SHEET = (
    "A beautiful sunset over the mountains",
    "a red house by a lake at night, on the left, with pine trees",
    "sunset",
    "A sailboat on the sea at dawn",
    "city skyline at night",
    "a purple hot-air balloon over the desert",
    "snowy forest",
    "A lighthouse by the sea at sunset, birds on the left",
    "meadow with pink flowers",
    "a rainbow over green hills",
    "foggy mountains in the morning",
    "a rainy night in the city",
    "A tropical beach with palm trees",
    "a snowman in the snow",
    "a yellow tent in the forest at night",
    "windmill on a hill, cloudy day",
    "a red bridge over the sea at sunset",
    "desert at night with a cactus",
    "a blue umbrella on the beach",
    "misty lake at dawn",
    "snow falling on the mountains at night",
    "a white sailboat and a red balloon",
    "pine trees",
    "moonlit sea",
    "a cottage in a meadow, golden hour",
    "skyscrapers at sunset with clouds",
    "winter landscape at dawn",
    "hot air balloon",
    "rain over the hills",
    "palm trees at sunset on the beach",
    "an orange tent by the lake, mountains, clear night",
    "a dreamy forest path in the fog",
    "birds over the ocean at dusk",
    "red flowers in a field under a rainbow",
    "a bridge in the city at dawn",
    "night",
)
STRANGE = (
    "zorblax quantum",
    "a dragon eating pizza",
    "my cat Felix",
    "!!!",
    "cyberpunk neon samurai",
    "你好",
    "e = mc2",
    "grandmother's kitchen",
    "asdf qwer zxcv",
    "spaceship",
    "portrait of an old man",
    "🎈",
)


def draw(
    pipe: FluxPipeline,
    prompts: Sequence[str],
    scale: float,
    steps: int,
    negative: str = "",
    seed: int = 0,
    batch: int = 100,
) -> list[Image.Image]:
    """One picture per prompt, each from its own seed."""
    out: list[Image.Image] = []
    for i in range(0, len(prompts), batch):
        part = list(prompts[i : i + batch])
        noise = [torch.Generator("cpu").manual_seed(seed + i + k) for k in range(len(part))]
        out += pipe(
            prompt=part,
            negative_prompt=[negative] * len(part),
            true_cfg_scale=scale,
            num_inference_steps=steps,
            height=256,
            width=256,
            max_sequence_length=TEXT_TOKENS,
            generator=noise,
        ).images
    return out


def held_out(count: int, first: int = FIRST_SEED) -> tuple[list[Scene], list[str]]:
    """Scenes with a combination that training never saw, and a caption that says all of each."""
    scenes = [sample(first + i, held=True) for i in range(count)]
    return scenes, [captions.full(s, random.Random(s.seed)) for s in scenes]


def compare(scenes: Sequence[Scene], readings: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Shares read as asked: per picture for time, place, weather; per thing for the rest."""
    hits: Counter[str] = Counter()
    things = sided = extra = 0
    for scene, seen in zip(scenes, readings, strict=True):
        for k in ("time", "place", "weather"):
            hits[k] += seen[k] == getattr(scene, k)
        found = {t["kind"]: t for t in seen["things"]}
        for t in scene.things:
            things += 1
            hit = found.get(t.kind)
            hits["thing"] += hit is not None
            hits["thing+colour"] += hit is not None and hit["colour"] == t.colour
            if t.side:
                sided += 1
                hits["side"] += hit is not None and hit["side"] == t.side
        extra += len(set(found) - {t.kind for t in scene.things})
    n = len(scenes)
    shares = {k: hits[k] / n for k in ("time", "place", "weather")}
    shares |= {k: hits[k] / max(things, 1) for k in ("thing", "thing+colour")}
    shares |= {"side": hits["side"] / max(sided, 1), "uninvited things per picture": extra / n}
    return {k: round(v, 4) for k, v in shares.items()}


def sweep(pipe: FluxPipeline, reader: classifier.Reader, count: int) -> list[dict[str, Any]]:
    """Accuracy over guidance scales, step counts and shifts."""
    scenes, prompts = held_out(count)
    rows = []
    for scale, steps, shift in (
        (1.0, 20, 2.0),
        (2.0, 20, 2.0),
        (3.0, 20, 2.0),
        (4.0, 20, 2.0),
        (5.0, 20, 2.0),
        (6.0, 20, 2.0),
        (4.0, 20, 1.0),
        (4.0, 20, 3.0),
        (4.0, 12, 2.0),
        (4.0, 16, 2.0),
        (4.0, 28, 2.0),
    ):
        pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
        row = {"scale": scale, "steps": steps, "shift": shift}
        row |= compare(scenes, classifier.read(draw(pipe, prompts, scale, steps), reader))
        print(row, flush=True)
        rows.append(row)
    return rows


def _share(readings: Sequence[dict[str, Any]], key: str, value: str) -> float:
    return round(sum(r[key] == value for r in readings) / len(readings), 4)


def negative(
    pipe: FluxPipeline, reader: classifier.Reader, scale: float, steps: int, count: int = 80
) -> dict[str, Any]:
    """How often snow (falling, or a snowy place) is read where the prompt says nothing, without and with it negated."""

    def snow(text: str) -> float:
        readings = classifier.read(draw(pipe, [""] * count, scale, steps, text, 1000, batch=20), reader)
        return round(sum("snow" in (r["place"], r["weather"]) for r in readings) / count, 4)

    what = f"any snow, empty prompt, {steps} steps, {count} pictures"
    return {what: snow(""), f"{what}, negative 'snow'": snow("snow")}


def extras(pipe: FluxPipeline, reader: classifier.Reader, scale: float, steps: int) -> dict[str, Any]:
    """Negative prompt, empty prompt, words never seen."""

    def look(prompts: Sequence[str], negative: str = "", seed: int = 500) -> list[dict[str, Any]]:
        return classifier.read(draw(pipe, prompts, scale, steps, negative, seed), reader)

    plain = [f"{w} {p}" for p in ("forest", "mountains", "hills", "meadow", "lake") for w in ("a", "a quiet")] * 10
    snowy = [f"snowy {p}" for p in ("forest", "mountains", "hills", "meadow", "lake")] * 20
    rng = random.Random(9)
    scenes, texts = held_out(100)
    odd = [f"{' '.join(rng.choice(STRANGE).split()[:2])} {t}" for t in texts]
    empty = look([""] * 100)
    strange = look(list(STRANGE) * 4)
    return {
        "snow read, 'snowy ...'": _share(look(snowy), "weather", "snow"),
        "snow read, 'snowy ...', negative 'snow'": _share(look(snowy, "snow"), "weather", "snow"),
        "snow read, prompts that name a place only": _share(look(plain), "weather", "snow"),
        "snow read, the same, negative 'snow'": _share(look(plain, "snow"), "weather", "snow"),
        "empty prompt, places": dict(Counter(r["place"] for r in empty)),
        "unseen words alone, places": dict(Counter(r["place"] for r in strange)),
        "unseen words before 100 of the prompts": compare(scenes, look(odd, seed=0)),
        **negative(pipe, reader, scale, steps),
    }


def sheet(pipe: FluxPipeline, scale: float, steps: int, path: Path, cell: int = 256, colours: int = 0) -> None:
    """Six by six pictures of the prompts above; with `colours`, as a palette PNG."""
    images = draw(pipe, SHEET, scale, steps, seed=40)
    page = Image.new("RGB", (6 * cell, 6 * cell))
    for i, im in enumerate(images):
        page.paste(im.resize((cell, cell), Image.Resampling.LANCZOS), (i % 6 * cell, i // 6 * cell))
    if colours:
        page = page.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG)
    page.save(path, optimize=True)


def markdown(report: dict[str, Any]) -> str:
    made, drawn = report["generated"], report["classifier on drawn pictures"]
    lines = [
        "# Evaluation",
        "",
        (
            f"{report['prompts']} prompts with held-out combinations, {report['steps']} steps, "
            f"true CFG {report['scale']}, seeds fixed. A classifier reads the pictures."
        ),
        "",
        "| attribute | generated | target | classifier on held-out drawn pictures |",
        "|---|---|---|---|",
    ]
    for k, target in (("time", 0.9), ("place", 0.9), ("weather", 0.8), ("thing+colour", 0.8), ("side", None)):
        goal = f"{target:.0%}" if target else "-"
        lines.append(f"| {k} | {made[k]:.1%} | {goal} | {drawn.get(k, float('nan')):.1%} |")
    lines += ["", "| check | result |", "|---|---|"]
    lines += [f"| {k} | {v if not isinstance(v, dict) else json.dumps(v)} |" for k, v in report["extras"].items()]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--classifier", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--scale", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sweep", type=int, default=0, help="compare settings on so many prompts")
    parser.add_argument("--negative-only", action="store_true", help="measure that alone, into the report in --out")
    parser.add_argument("--drawn", type=Path, help="JSON with the classifier's accuracy on drawn pictures")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = load(args.model, torch.bfloat16 if device == "cuda" else torch.float32, device)
    shift = pipe.scheduler.config.shift
    reader = classifier.load(args.classifier, device)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.negative_only:
        report = json.loads((args.out / "report.json").read_text())
        report["extras"] |= negative(pipe, reader, args.scale, args.steps)
        return _write(report, args.out)
    sheet(pipe, args.scale, args.steps, args.out / "sheet-large.png")
    sheet(pipe, args.scale, args.steps, args.out / "sheet.png", cell=144, colours=224)
    begin = time.time()
    scenes, prompts = held_out(args.prompts)
    readings = classifier.read(draw(pipe, prompts, args.scale, args.steps), reader)
    report = {
        "prompts": args.prompts,
        "scale": args.scale,
        "steps": args.steps,
        "shift": shift,
        "generated": compare(scenes, readings),
        "classifier on drawn pictures": json.loads(args.drawn.read_text()) if args.drawn else {},
        "extras": extras(pipe, reader, args.scale, args.steps),
        "things": dict.fromkeys(KINDS, 0),
    }
    by_kind: dict[str, list[bool]] = {k: [] for k in KINDS}
    for scene, seen in zip(scenes, readings, strict=True):
        pairs = {(t["kind"], t["colour"]) for t in seen["things"]}
        for t in scene.things:
            by_kind[t.kind].append((t.kind, t.colour) in pairs)
    report["things"] = {k: f"{sum(v)}/{len(v)}" for k, v in by_kind.items()}
    if args.sweep:
        report["sweep"] = sweep(pipe, reader, args.sweep)
    print(f"{time.time() - begin:.0f}s")
    return _write(report, args.out)


def _write(report: dict[str, Any], out: Path) -> None:
    (out / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    (out / "report.md").write_text(markdown(report))
    print(markdown(report), flush=True)


if __name__ == "__main__":
    main()
