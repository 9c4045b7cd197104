"""The bundled models on this machine: from typing the command, warm, memory, and beside stock diffusers.

    .venv/bin/python scripts/bench/first_picture.py

Ours and stock diffusers take turns in one process, on the same folder of weights in the same precision.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
PROMPT = "A beautiful sunset over the mountains"
CLIP = "a red sailboat sails to the left on the sea at sunset"
COMMANDS, REPETITIONS = 3, 7


def typed(*words: str) -> tuple[list[float], float]:
    """Run `generate` with these words; return seconds until it ends, and the peak memory of a process in MB."""
    seconds, memory = [], 0
    with tempfile.TemporaryDirectory() as folder:
        command = [str(ROOT / "scripts/sgdiff"), "generate", "-q", *words, "--output-path", folder]
        for _ in range(COMMANDS):
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds.append(time.perf_counter() - start)
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, command)
            memory = max(memory, used.ru_maxrss)
    return seconds, memory / 1024


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

    command, memory = typed("--prompt", PROMPT)
    clip, clip_memory = typed("--model-path", "tiny-motion", "--prompt", CLIP)
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
            "clip_prompt": CLIP,
            "clip_from_typing": common.spread(clip),
            "clip_peak_memory_mb": round(clip_memory),
            "ours_over_stock": round(mine["median_s"] / other["median_s"], 3),
        },
    )


if __name__ == "__main__":
    main()
