"""The bundled model on this machine: from typing the command, warm, memory, and beside stock diffusers.

    .venv/bin/python scripts/bench/first_picture.py

Ours and stock diffusers take turns in one process, on the same folder of weights in the same precision.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
PROMPT = "A beautiful sunset over the mountains"
COMMANDS, REPETITIONS = 3, 7


def typed() -> tuple[list[float], float]:
    """Run the README's command; return seconds until it ends, and the peak memory of the process in MB."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(COMMANDS):
            start = time.perf_counter()
            words = [str(ROOT / "scripts/sgdiff"), "generate", "-q", "--prompt", PROMPT, "--output-path", folder]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - start)
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def warm() -> tuple[list[float], list[float]]:
    """Return seconds per picture of ours and of stock diffusers, taken in turns after one warm-up each."""
    import torch
    from diffusers import FluxPipeline

    from engine.engine import Engine
    from engine.types import Request

    engine = Engine.from_pretrained()
    request = engine.resolve(Request(prompt=PROMPT, seed=0))
    stock = FluxPipeline.from_pretrained(engine.source.folder, dtype=torch.float32)
    stock.set_progress_bar_config(disable=True)
    names = (
        "prompt",
        "negative_prompt",
        "true_cfg_scale",
        "height",
        "width",
        "num_inference_steps",
        "max_sequence_length",
    )
    fields: dict[str, Any] = {name: getattr(request, name) for name in names}
    ours, theirs = [], []
    for repetition in range(REPETITIONS + 1):
        start = time.perf_counter()
        list(engine.run(request))
        middle = time.perf_counter()
        stock(**fields, generator=torch.Generator().manual_seed(0))
        end = time.perf_counter()
        if repetition:
            ours.append(middle - start)
            theirs.append(end - middle)
    return ours, theirs


def main() -> None:
    """Measure, print and store."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import common

    command, memory = typed()
    ours, stock = warm()
    mine, other = common.spread(ours), common.spread(stock)
    common.store(
        "first_picture",
        {
            "prompt": PROMPT,
            "from_typing": common.spread(command),
            "peak_memory_mb": round(memory),
            "warm": mine,
            "stock_diffusers_warm": other,
            "ours_over_stock": round(mine["median_s"] / other["median_s"], 3),
        },
    )


if __name__ == "__main__":
    main()
