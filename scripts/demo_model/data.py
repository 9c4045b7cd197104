"""Renders the training set on all cores and keeps it as flat arrays: pictures, caption tokens, labels."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
from pathlib import Path

import numpy as np
import torch
from captions import caption
from classifier import labels
from scenes import sample
from transformers import CLIPTokenizer, T5Tokenizer

CAPTIONS = 6  # per picture and per mirror image
CHUNK = 250
HELD_SEED = 10_000_000  # where the seeds of held-out pictures begin


def arrays(folder: Path, count: int, mode: str = "r") -> dict[str, np.memmap]:
    """The files of a set of `count` scenes; axis 1 of tokens and labels is (as drawn, mirrored)."""
    shapes = {
        "pictures": ((count, 256, 256, 3), np.uint8),
        "clip": ((count, 2, CAPTIONS, 77), np.int16),
        "t5": ((count, 2, CAPTIONS, 64), np.int16),
        "labels": ((count, 2, len(labels(sample(0)))), np.int8),
    }
    return {k: np.memmap(folder / f"{k}.bin", dtype=t, mode=mode, shape=s) for k, (s, t) in shapes.items()}


def _render_chunk(job: tuple[str, str, int, int, bool]) -> int:
    from draw import draw

    folder, tokenizers, start, count, held = job
    clip = CLIPTokenizer.from_pretrained(f"{tokenizers}/tokenizer")
    t5 = T5Tokenizer.from_pretrained(f"{tokenizers}/tokenizer_2")
    out = arrays(Path(folder), count, "r+")
    for i in range(start, min(start + CHUNK, count)):
        seed = i + (HELD_SEED if held else 0)
        scene, rng = sample(seed, held), random.Random(seed * 31 + 5)
        out["pictures"][i] = draw(scene)
        views = (scene, scene.mirrored())
        out["labels"][i] = np.array([labels(s) for s in views], dtype=np.int8)
        texts = [caption(s, rng) for s in views for _ in range(CAPTIONS)]
        for name, tok, length in (("clip", clip, 77), ("t5", t5, 64)):
            ids = tok(texts, padding="max_length", max_length=length, truncation=True).input_ids
            out[name][i] = np.array(ids, dtype=np.int16).reshape(2, CAPTIONS, length)
    return start


def render(folder: Path, tokenizers: Path, count: int, held: bool = False, workers: int = 0) -> None:
    """Draws `count` scenes into `folder`; progress.json counts what is ready, so that training can begin early."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays(folder, count, "w+")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    jobs = [(str(folder), str(tokenizers), s, count, held) for s in range(0, count, CHUNK)]
    with multiprocessing.get_context("fork").Pool(workers or os.cpu_count()) as pool:
        for done, start in enumerate(pool.imap(_render_chunk, jobs), 1):
            if done % 20 == 0 or done == len(jobs):
                _write(folder / "progress.json", {"count": count, "ready": min(start + CHUNK, count)})


def _write(path: Path, value: dict[str, int]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value))
    part.replace(path)


def progress(folder: Path) -> tuple[int, int]:
    """(pictures ready, pictures in all); (0, 0) before rendering began."""
    path = folder / "progress.json"
    if not path.exists():
        return 0, 0
    state = json.loads(path.read_text())
    return state["ready"], state["count"]


class Pictures:
    """Pictures held as uint8 in the device's memory, filled as the renderer gets on."""

    def __init__(self, folder: Path, count: int, device: str) -> None:
        self.source = arrays(folder, count)["pictures"]
        self.store = torch.empty((count, 256, 256, 3), dtype=torch.uint8, device=device)
        self.folder, self.filled = folder, 0

    def fill(self, most: int = 4000) -> int:
        """Takes over at most `most` pictures that are ready and says how many there are now."""
        ready = min(progress(self.folder)[0], self.filled + most)
        if ready > self.filled:
            self.store[self.filled : ready] = torch.from_numpy(
                np.ascontiguousarray(self.source[self.filled : ready])
            ).to(self.store.device)
            self.filled = ready
        return self.filled

    def batch(self, index: torch.Tensor) -> torch.Tensor:
        """Pictures as (n, 3, 256, 256) in -1..1."""
        x = self.store[index].permute(0, 3, 1, 2).float() / 127.5 - 1.0
        return x.contiguous(memory_format=torch.channels_last)
