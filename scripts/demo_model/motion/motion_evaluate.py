"""Draws clips of prompts whose combinations training never saw, reads them back, and writes the report."""

from __future__ import annotations

import argparse
import io
import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import motion_reader
import motion_words
import numpy as np
import torch
from clips import clip
from motion_layout import TEXT_TOKENS
from PIL import Image
from world import FPS, FRAMES, HEIGHT, LABELS, NIGHT_FALLS, NONE, SUN_SETS, WIDTH, Motion, labels, sample

FIRST_SEED = 20_000_000  # apart from every seed that training or the reader's own test drew
CALIBRATION = 10_000_000  # as far from there are the seeds that steps and scale are chosen with
TARGETS = {"time": 0.9, "place": 0.9, "thing": 0.8, "direction": 0.9}
LIMIT = 500_000  # bytes of a sample clip
SHEET = (
    "a red sailboat sails to the left on the sea at sunset",
    "a blue sailboat sailing right on the sea by day",
    "the sun sets over the mountains",
    "snow falls in the forest at night",
    "a yellow hot-air balloon rises over the desert at dawn",
    "birds fly to the right over the hills at sunset",
    "day turns to night in the city",
    "clouds drift to the left over the mountains by day",
)

Draw = Callable[[Sequence[str], int], np.ndarray]  # prompts and the first one's seed to (n, frames, h, w, 3) uint8


def pipeline(folder: Path, device: str, steps: int, scale: float, batch: int) -> Draw:
    """Draws with a saved WanPipeline, each clip from a seed of its own."""
    from diffusers import WanPipeline

    pipe = WanPipeline.from_pretrained(folder, torch_dtype=torch.float32).to(device)
    pipe.set_progress_bar_config(disable=True)

    def draw(prompts: Sequence[str], seed: int) -> np.ndarray:
        out: list[np.ndarray] = []
        for i in range(0, len(prompts), batch):
            part = list(prompts[i : i + batch])
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled="cuda" in device):
                frames = pipe(
                    prompt=part,
                    negative_prompt=[""] * len(part),
                    height=HEIGHT,
                    width=WIDTH,
                    num_frames=FRAMES,
                    num_inference_steps=steps,
                    guidance_scale=scale,
                    max_sequence_length=TEXT_TOKENS,
                    generator=[torch.Generator("cpu").manual_seed(seed + i + k) for k in range(len(part))],
                    output_type="np",
                ).frames
            out += [(np.asarray(f, dtype=np.float32).clip(0, 1) * 255).round().astype(np.uint8) for f in frames]
            print(f"drawn {len(out)} of {len(prompts)}", flush=True)
        return np.stack(out)

    return draw


def held_out(count: int, first: int = FIRST_SEED) -> tuple[list[Motion], list[str]]:
    """Clips with a combination that training never saw, and a caption that says all of each."""
    motions = [sample(first + i, held=True) for i in range(count)]
    return motions, [motion_words.full(m, random.Random(m.seed)) for m in motions]


def _asked(motion: Motion) -> dict[str, str]:
    return {k: LABELS[k][i] for k, i in zip(LABELS, labels(motion), strict=True)}


def compare(motions: Sequence[Motion], readings: Sequence[dict[str, str]]) -> dict[str, float | int]:
    """Shares read as asked. Time, place and thing count in every clip (no thing asked is right when none is read),
    except that time leaves out clips in which day turns to night, whose hour lies between; "night falls" instead is
    the share of those that begin by day and end by night. "named thing", "colour" and "direction" count where the
    prompt names a thing, a colour, a direction; "movement" is the direction or, where the sky alone moves, the sky."""
    rows: dict[str, list[bool]] = {}

    def count(name: str, hit: bool) -> None:
        rows.setdefault(name, []).append(hit)

    for motion, seen in zip(motions, readings, strict=True):
        asked = _asked(motion)
        hit = {k: seen[k] == asked[k] for k in LABELS}
        if motion.sky != NIGHT_FALLS:
            count("time", hit["time"])
        else:
            count("night falls", hit["first"] and hit["last"])
        count("place", hit["place"])
        count("thing", hit["thing"])
        if motion.thing:
            count("named thing", hit["thing"])
        if asked["colour"] != NONE:
            count("colour", hit["thing"] and hit["colour"])
        if motion.direction:
            count("direction", hit["direction"])
        if motion.direction in ("left", "right"):  # a balloon can only rise
            count("left or right", hit["direction"])
        if motion.sky:
            count("sky", hit["sky"])
        count("movement", hit["direction"] if motion.direction else hit["sky"])
    order = (
        "time",
        "place",
        "thing",
        "named thing",
        "colour",
        "direction",
        "left or right",
        "sky",
        "movement",
        "night falls",
    )
    shares: dict[str, float | int] = {k: round(sum(rows[k]) / len(rows[k]), 4) for k in order if k in rows}
    return shares | {f"{k} counted": len(rows[k]) for k in order if k in rows}


def still_rows(motion: Motion) -> slice | None:
    """The rows in which nothing moves, whatever the seed: above a boat where the sky is at rest, else the foreground
    below clouds, birds and a rising balloon; none where the light changes or something falls."""
    if motion.sky in (SUN_SETS, NIGHT_FALLS, "rain", "snow"):
        return None
    if motion.thing == "sailboat":
        return None if motion.sky else slice(0, HEIGHT * 30 // 100)
    return slice(HEIGHT * 80 // 100, HEIGHT)


def flicker(motions: Sequence[Motion], clips: np.ndarray) -> float:
    """Mean absolute difference of successive frames on the still rows, in levels of 0..255."""
    found = []
    for motion, frames in zip(motions, clips, strict=True):
        rows = still_rows(motion)
        if rows is not None:
            part = frames[:, rows].astype(np.float32)
            found.append(float(np.abs(part[1:] - part[:-1]).mean()))
    return round(sum(found) / max(len(found), 1), 4)


def through_autoencoder(clips: np.ndarray, through: motion_reader.Through, device: str, batch: int = 8) -> np.ndarray:
    out = []
    for i in range(0, len(clips), batch):
        x = torch.from_numpy(np.ascontiguousarray(clips[i : i + batch])).to(device)
        y = through(x.permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0).float().clamp(-1, 1)
        out.append(((y + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 4, 1).cpu().numpy())
    return np.concatenate(out)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean([np.mean((x.astype(np.float32) - y.astype(np.float32)) ** 2) for x, y in zip(a, b, strict=True)])
    return round(float(10 * np.log10(255**2 / max(error, 1e-9))), 2)


def webp(frames: np.ndarray, path: Path, grow: int = 1) -> int:
    """Saves a clip as an animation of at most LIMIT bytes and says how many it has."""
    images = [Image.fromarray(f) for f in frames]
    if grow > 1:
        images = [im.resize((im.width * grow, im.height * grow), Image.Resampling.LANCZOS) for im in images]
    for quality in (88, 80, 70, 60, 45, 30):
        data = io.BytesIO()
        images[0].save(
            data,
            "WEBP",
            save_all=True,
            append_images=images[1:],
            duration=round(1000 / FPS),
            loop=0,
            quality=quality,
            method=6,
        )
        if data.tell() <= LIMIT:
            break
    path.write_bytes(data.getvalue())
    return data.tell()


def sheet(clips: np.ndarray, path: Path, columns: int = 5) -> None:
    """One row a clip, frames from first to last."""
    at = np.linspace(0, clips.shape[1] - 1, columns).round().astype(int)
    rows = [np.concatenate([frames[i] for i in at], 1) for frames in clips]
    Image.fromarray(np.concatenate(rows, 0)).save(path, optimize=True)


def markdown(report: dict[str, Any]) -> str:
    made, drawn = report["generated"], report["rendered"]
    coded = report.get("rendered, through the autoencoder", {})
    lines = [
        "# Evaluation",
        "",
        (
            f"{report['prompts']} prompts with held-out combinations, {report['steps']} steps, guidance "
            f"{report['scale']}, seeds fixed. A reader looks at the first, middle and last frame of each clip."
        ),
        "",
        "| attribute | clips counted | generated | target | rendered | rendered, through the autoencoder |",
        "|---|---|---|---|---|---|",
    ]
    for k in [k for k in made if f"{k} counted" in made]:
        goal = f"{TARGETS[k]:.0%}" if k in TARGETS else "-"
        other = f"{coded[k]:.1%}" if k in coded else "-"
        lines.append(f"| {k} | {made[f'{k} counted']} | {made[k]:.1%} | {goal} | {drawn[k]:.1%} | {other} |")
    lines += [
        "",
        "Flicker: the mean absolute difference of successive frames, in levels of 0..255, over rows in which nothing",
        "moves (the sky above a boat on a day without clouds; the foreground below clouds, birds and balloons).",
        "",
        "| clips | flicker |",
        "|---|---|",
        *[f"| {k} | {v} |" for k, v in report["flicker"].items()],
        "",
    ]
    if "psnr of the autoencoder" in report:
        lines += [f"The autoencoder gives rendered clips back at {report['psnr of the autoencoder']} dB.", ""]
    return "\n".join(lines)


def calibrate(draw: Draw, reader: motion_reader.Reader, out: Path, count: int, settings: dict[str, Any]) -> None:
    """What is read in clips of prompts that no report draws, to choose steps and scale with: calibration.md, .json."""
    out.mkdir(parents=True, exist_ok=True)
    motions, prompts = held_out(count, FIRST_SEED + CALIBRATION)
    shares = compare(motions, motion_reader.read(draw(prompts, CALIBRATION), reader))
    (out / "calibration.json").write_text(
        json.dumps(settings | {"prompts": count, "generated": shares}, indent=2) + "\n"
    )
    said = ", ".join(f"{k} {v:.1%}" for k, v in shares.items() if f"{k} counted" in shares)
    text = f"Calibration, {count} prompts, {settings['steps']} steps, guidance {settings['scale']}: {said}\n"
    (out / "calibration.md").write_text(text)
    print(text, flush=True)


def evaluate(
    draw: Draw,
    reader: motion_reader.Reader,
    out: Path,
    count: int = 150,
    through: motion_reader.Through | None = None,
    settings: dict[str, Any] | None = None,
    offset: int = 0,
) -> dict[str, Any]:
    """Draws, reads, compares, and writes report.json, report.md, sheet.png and sample clips into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    device = str(next(reader.parameters()).device)
    motions, prompts = held_out(count, FIRST_SEED + offset)
    begin = time.time()
    made = draw(prompts, offset)
    seconds = time.time() - begin
    drawn = np.stack([clip(m) for m in motions])
    readings = motion_reader.read(made, reader)
    report: dict[str, Any] = {"prompts": count, **(settings or {}), "seconds a clip": round(seconds / count, 2)}
    report["generated"] = compare(motions, readings)
    report["rendered"] = compare(motions, motion_reader.read(drawn, reader))
    report["flicker"] = {"generated": flicker(motions, made), "rendered": flicker(motions, drawn)}
    if through is not None:
        coded = through_autoencoder(drawn, through, device)
        report["rendered, through the autoencoder"] = compare(motions, motion_reader.read(coded, reader))
        report["flicker"]["rendered, through the autoencoder"] = flicker(motions, coded)
        report["psnr of the autoencoder"] = psnr(drawn, coded)
    report["clips"] = [
        {"prompt": p, "asked": _asked(m), "read": r} for p, m, r in zip(prompts, motions, readings, strict=True)
    ]
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    (out / "report.md").write_text(markdown(report))
    sheet(made[:: max(1, count // 8)][:8], out / "held-out.png")
    samples = draw(SHEET, 40)
    sheet(samples, out / "sheet.png")
    for i, frames in enumerate(samples):
        webp(frames, out / f"sample-{i}.webp")
    (out / "samples.json").write_text(json.dumps(SHEET, indent=2) + "\n")
    print(markdown(report), flush=True)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a WanPipeline")
    parser.add_argument("--reader", type=Path, required=True, help="folder of the reader")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=150)
    parser.add_argument("--seed-offset", type=int, default=0, help="how far from the report's seeds: other prompts")
    parser.add_argument("--calibrate", type=int, default=0, help="first read so many prompts that no report draws")
    parser.add_argument("--steps", type=int, nargs="+", default=[24], help="several: one report for each pair")
    parser.add_argument("--scale", type=float, nargs="+", default=[5.0])
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reader = motion_reader.load(args.reader, device)
    through = motion_reader.autoencoder(args.model / "vae", device)
    pairs = [(steps, scale) for steps in args.steps for scale in args.scale]
    for steps, scale in pairs:
        draw = pipeline(args.model, device, steps, scale, args.batch)
        out = args.out if len(pairs) == 1 else args.out / f"steps{steps}-scale{scale:g}"
        settings = {"steps": steps, "scale": scale}
        if args.calibrate:
            calibrate(draw, reader, out, args.calibrate, settings)
        if args.prompts:
            evaluate(draw, reader, out, args.prompts, through, settings, args.seed_offset)


if __name__ == "__main__":
    main()
