"""FLUX.1-dev with each kind of offload: milliseconds per step, peak device memory, and whether the pixels are the same.

    python3 scripts/bench/offload.py
    .venv/bin/python scripts/bench/offload.py --model-path /tmp/tiny-flux --device cpu --sizes 64 --dry

Random weights of the real size (`--load-format dummy`), unless `--model-path` is a folder. A configuration that fails
is reported in its row, and the others still run. `--dry` prints the result and stores nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
PROMPT = "A lighthouse on a cliff above the sea at dusk, oil on canvas"
GIB, WARM_UP = 2**30, 2

# Tiles make no difference at the first size; at the second one the decode would take more than the weights do.
SHARED = {"vae_tiling": True}
WHOLE = {"performance_mode": "manual"}
STREAMED = {**WHOLE, "dit_layerwise_offload": True}
ROWS: dict[str, dict[str, Any]] = {
    "resident": WHOLE,
    "dit-cpu-offload": {**WHOLE, "dit_cpu_offload": True},
    "text-encoder-cpu-offload": {**WHOLE, "text_encoder_cpu_offload": True},
    "vae-cpu-offload": {**WHOLE, "vae_cpu_offload": True},
    "dit-layerwise-offload": STREAMED,
    "dit-layerwise-offload, layerwise-offload-components default": {
        **STREAMED,
        "layerwise_offload_components": ["default"],
    },
    "performance-mode memory": {"performance_mode": "memory"},
}
# What this row needs is shown by giving it no more.
LIMITED, LIMIT = "dit-layerwise-offload, layerwise-offload-components default", 8e9
LARGE_ROWS = ("resident", *(name for name in ROWS if name.startswith("dit-layerwise")))


def main() -> None:
    """Measure every row, print and store."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import common

    arguments = _arguments()
    frames: dict[int, Any] = {}
    rows: list[dict[str, Any]] = []
    started = time.perf_counter()
    for name, settings in ROWS.items():
        sizes = [size for index, size in enumerate(arguments.sizes) if not index or name in LARGE_ROWS]
        rows += measure(name, settings, sizes, arguments, frames)
        print(f"{time.perf_counter() - started:6.1f} s", *rows[-len(sizes) :], sep="\n  ", file=sys.stderr, flush=True)
    result = {
        "model": arguments.model_path,
        "steps": arguments.steps,
        "prompt": PROMPT,
        "shared_settings": SHARED,
        "host_to_device_gb_per_s": bandwidth(),
        "rows": compared(rows),
    }
    if arguments.dry:
        print(json.dumps(result, indent=2))
    else:
        common.store("offload", result)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model-path", default="black-forest-labs/FLUX.1-dev")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--dry", action="store_true")
    return parser.parse_args()


def measure(
    name: str, settings: dict[str, Any], sizes: list[int], arguments: argparse.Namespace, frames: dict[int, Any]
) -> list[dict[str, Any]]:
    """Return one row per size. `frames` keeps the pictures of the first row, which the others are held against."""
    from engine.engine import Engine

    row: dict[str, Any] = {"name": name, "settings": settings}
    form = "auto" if Path(arguments.model_path).is_dir() else "dummy"
    start = time.perf_counter()
    try:
        given = {"load_format": form, "device": arguments.device, **SHARED, **settings}
        engine = Engine.from_pretrained(arguments.model_path, **given)
    except Exception as error:  # noqa: BLE001 - a row that fails is a result
        return [{**row, "size": size, "error": _told(error)} for size in sizes]
    row["build_s"] = round(time.perf_counter() - start, 1)
    rows = [{**row, "size": size, **_draw(name, engine, size, arguments.steps, frames)} for size in sizes]
    engine.close()
    del engine
    _clean()
    return rows


def _draw(name: str, engine: Any, size: int, steps: int, frames: dict[int, Any]) -> dict[str, Any]:
    limited = name == LIMITED and engine.device.startswith("cuda")
    try:
        found = _measured(engine, size, steps, frames, LIMIT if limited else None)
    except Exception as error:  # noqa: BLE001 - as above
        found = {"error": _told(error)}
    return {**found, "limit_gb": LIMIT / 1e9} if limited else found


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _measured(engine: Any, size: int, steps: int, frames: dict[int, Any], limit: float | None) -> dict[str, Any]:
    """Draw one picture, from prompt to pixels, in `limit` bytes; return its times and the peak of device memory."""
    import torch

    cuda = engine.device.startswith("cuda")
    _clean()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, (limit or whole) / whole))
    (output,) = engine.generate(PROMPT, height=size, width=size, seed=0, num_inference_steps=steps)
    found: dict[str, Any] = {
        "ms_per_step": round(statistics.median(output.timings.denoise_steps[min(WARM_UP, steps - 1) :]), 2),
        "steps_ms": [round(step, 2) for step in output.timings.denoise_steps],
        "stages_ms": {stage: round(duration, 1) for stage, duration in output.timings.stages},
        "same_pixels": bool((frames.setdefault(size, output.frames) == output.frames).all()),
    }
    if cuda:
        found["peak_gib"] = round(torch.cuda.max_memory_allocated() / GIB, 2)
        found["peak_reserved_gib"] = round(torch.cuda.max_memory_reserved() / GIB, 2)
    return found


def _clean() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows, each with its time per step over that of the resident weights at its size."""
    resident = {row["size"]: row["ms_per_step"] for row in rows if row["name"] == "resident" and "ms_per_step" in row}
    return [
        row | {"over_resident": round(row["ms_per_step"] / resident[row["size"]], 3)}
        if "ms_per_step" in row and row["size"] in resident
        else row
        for row in rows
    ]


def bandwidth(size: int = GIB, repetitions: int = 5) -> float | None:
    """Return how many GB per second page-locked host memory is copied to the device with; None without one."""
    import torch

    if not torch.cuda.is_available():
        return None
    host = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    there = torch.empty(size, dtype=torch.uint8, device="cuda")
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    there.copy_(host, non_blocking=True)
    begin.record()
    for _ in range(repetitions):
        there.copy_(host, non_blocking=True)
    end.record()
    end.synchronize()
    return round(size * repetitions / begin.elapsed_time(end) / 1e6, 1)


if __name__ == "__main__":
    main()
