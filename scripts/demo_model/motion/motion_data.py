"""Renders clips on all cores and keeps them as flat files: pictures, captions, labels."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
from pathlib import Path

import numpy as np
from motion_words import caption
from world import FRAMES, HEIGHT, LABELS, WIDTH, labels, sample

CAPTIONS = 8  # a clip
CHUNK = 16
HELD_SEED = 10_000_000  # where the seeds of held-out clips begin


def arrays(folder: Path, count: int, mode: str = "r") -> dict[str, np.memmap]:
    """The files of a set of `count` clips: "clips" (count, 33, 128, 192, 3) uint8 and "labels" as world.LABELS."""
    shapes = {"clips": ((count, FRAMES, HEIGHT, WIDTH, 3), np.uint8), "labels": ((count, len(LABELS)), np.int8)}
    return {k: np.memmap(Path(folder) / f"{k}.bin", dtype=t, mode=mode, shape=s) for k, (s, t) in shapes.items()}


def texts(folder: Path) -> list[list[str]]:
    """The captions of each clip."""
    return json.loads((Path(folder) / "texts.json").read_text())


def progress(folder: Path) -> tuple[int, int]:
    """(clips ready, clips in all); (0, 0) before rendering began."""
    path = Path(folder) / "progress.json"
    if not path.exists():
        return 0, 0
    state = json.loads(path.read_text())
    return state["ready"], state["count"]


def _seed(index: int, held: bool) -> int:
    return index + (HELD_SEED if held else 0)


def _describe(job: tuple[int, int, bool]) -> list[tuple[list[int], list[str]]]:
    """Labels and captions of a range of clips."""
    start, stop, held = job
    out = []
    for i in range(start, stop):
        motion, rng = sample(_seed(i, held), held), random.Random(_seed(i, held) * 31 + 5)
        out.append((labels(motion), [caption(motion, rng) for _ in range(CAPTIONS)]))
    return out


def _render_chunk(job: tuple[str, int, int, int, bool]) -> int:
    from clips import clip

    folder, start, stop, count, held = job
    out = arrays(Path(folder), count, "r+")["clips"]
    for i in range(start, stop):
        out[i] = clip(sample(_seed(i, held), held))
    return stop


def render(folder: Path, count: int, held: bool = False, workers: int = 0) -> None:
    """Draws `count` clips into `folder`. Captions and labels are whole before the first clip counts as ready;
    progress.json counts the clips that are ready, in order, so that training can begin early."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "progress.json").unlink(missing_ok=True)
    out = arrays(folder, count, "w+")
    with multiprocessing.get_context("fork").Pool(workers or os.cpu_count()) as pool:
        ranges = [(s, min(s + 256, count), held) for s in range(0, count, 256)]
        said = [row for part in pool.imap(_describe, ranges) for row in part]
        out["labels"][:] = np.array([row[0] for row in said], dtype=np.int8)
        _write(folder / "texts.json", [row[1] for row in said])
        jobs = [(str(folder), s, min(s + CHUNK, count), count, held) for s in range(0, count, CHUNK)]
        for done, stop in enumerate(pool.imap(_render_chunk, jobs), 1):
            if done % 16 == 0 or done == len(jobs):
                _write(folder / "progress.json", {"count": count, "ready": stop})


def _write(path: Path, value: object) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value))
    part.replace(path)
