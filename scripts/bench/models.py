"""Every model of the list at its real size with random weights: whole pipeline, default size and frames, two steps.

    python3 scripts/bench/models.py
    python3 scripts/bench/models.py --models FLUX.1-dev Wan-AI/Wan2.2-TI2V-5B-Diffusers --frames 33
    .venv/bin/python scripts/bench/models.py --models /tmp/tiny-flux /tmp/tiny-wan --size 64x64 --device cpu

Each model has a process of its own, with a time limit, so that memory is clean and a failure stops nothing. Rows are
printed as they come, and the result file is written after each; models measured before stay in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
GIB = 2**30
PROMPT = 'A lighthouse on a cliff above the sea at dusk, with a sign that says "open"'
COLUMNS = ("model", "shape", "peak GiB", "load s", "encode ms", "ms per step", "decode ms", "finite")
# Small ones first: what goes wrong for all is seen early.
MODELS = (
    "stabilityai/stable-diffusion-xl-base-1.0",
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    "FastVideo/FastWan2.1-T2V-1.3B-Diffusers",
    "black-forest-labs/FLUX.2-klein-4B",
    "black-forest-labs/FLUX.2-klein-base-4B",
    "Tongyi-MAI/Z-Image-Turbo",
    "Tongyi-MAI/Z-Image",
    "AIDC-AI/Ovis-Image-7B",
    "black-forest-labs/FLUX.1-schnell",
    "black-forest-labs/FLUX.1-dev",
    "zai-org/GLM-Image",
    "Qwen/Qwen-Image",
    "Qwen/Qwen-Image-2512",
    "Qwen/Qwen-Image-Edit",
    "Qwen/Qwen-Image-Edit-2509",
    "Qwen/Qwen-Image-Edit-2511",
    "black-forest-labs/FLUX.2-dev",
    "FastVideo/FastWan2.2-TI2V-5B-FullAttn-Diffusers",
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    "FastVideo/FastHunyuan-diffusers",
    "hunyuanvideo-community/HunyuanVideo",
    "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    "Wan-AI/Wan2.1-T2V-14B-Diffusers",
    "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
    "Wan-AI/Wan2.2-I2V-A14B-Diffusers",
)


def main() -> int:
    """Measure every model that is asked for, or one of them in this process."""
    arguments = _arguments()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments)))
        return 0
    import common

    folder = Path(os.environ["OUT"]) if os.environ.get("OUT") else common.RESULTS
    path = arguments.result or folder / "models.json"
    rows = {row["model"]: row for row in (json.loads(path.read_text())["rows"] if path.exists() else [])}
    print("| " + " | ".join(COLUMNS) + " |", "| --- " * len(COLUMNS) + "|", sep="\n", flush=True)
    for model in arguments.models:
        row = _in_own_process(model, arguments)
        print(f"| {row['model']} | " + " | ".join(_cells(row)) + " |", flush=True)
        # A failure does not replace what was measured before.
        if "error" not in row or "error" in rows.get(model, {"error": ""}):
            rows[model] = row
        result = {"benchmark": "models", **common.machine(), "steps": arguments.steps, "rows": list(rows.values())}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")
    return int(any("error" in rows[model] for model in arguments.models))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, help="hub ids, names of assets/configs, or folders")
    parser.add_argument("--skip", nargs="+", default=(), help="models that are left out")
    parser.add_argument("--size", help="WxH; default: of each model")
    parser.add_argument("--frames", type=int, help="default: of each model")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--limit", type=float, default=280.0, help="seconds for one model")
    parser.add_argument("--result", type=Path, help="file; default: models.json in $OUT, else in results/")
    parser.add_argument("--settings", type=json.loads, default={}, help="further engine settings, as JSON")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.models = [model for model in arguments.models if model not in arguments.skip]
    return arguments


def _in_own_process(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    words = [sys.executable, __file__, "--one", model, "--steps", str(arguments.steps), "--device", arguments.device]
    words += ["--settings", json.dumps(arguments.settings)]
    words += ["--size", arguments.size] if arguments.size else []
    words += ["--frames", str(arguments.frames)] if arguments.frames else []
    started = time.perf_counter()
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=arguments.limit)
    except subprocess.TimeoutExpired:
        return {"model": model, "error": f"took longer than {arguments.limit:.0f} s"}
    wall = round(time.perf_counter() - started, 1)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
        print(*lines[-25:], sep="\n", file=sys.stderr, flush=True)
        return {"model": model, "error": lines[-1][:300], "wall_s": wall}
    return {**json.loads(done.stdout.splitlines()[-1]), "wall_s": wall}


def _cells(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return [row["error"], *[""] * (len(COLUMNS) - 2)]
    shape = "x".join(map(str, row["shape"]))
    numbers = (f"{row[key]:.1f}" for key in ("peak_gib", "load_s", "encode_ms", "step_ms", "decode_ms"))
    return [shape, *numbers, "yes" if row["finite"] else "NO"]


def measure(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Load a model with random weights, draw one output and return what was measured."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    from engine.engine import Engine

    started = time.perf_counter()
    settings = {"device": arguments.device, "load_format": "dummy", **arguments.settings}
    with Engine.from_pretrained(model, **settings) as engine:
        loaded = time.perf_counter() - started
        finite = _watch(engine)
        with tempfile.TemporaryDirectory() as place:
            output = next(iter(engine.run(request(engine, arguments, Path(place)))))
        timings, cuda = output.timings, engine.device.startswith("cuda")
        stages = dict(timings.stages)
        return {
            "model": model,
            "shape": list(output.frames.shape),
            "right_shape": list(output.frames.shape) == _expected(output.request),
            "finite": all(finite) and bool(finite) and float(output.frames.std()) > 0,
            "peak_gib": (torch.cuda.max_memory_allocated() / GIB) if cuda else timings.peak_memory_mb / 1024,
            "reserved_gib": torch.cuda.max_memory_reserved() / GIB if cuda else None,
            "load_s": loaded,
            "encode_ms": sum(duration for name, duration in stages.items() if "encod" in name),
            "step_ms": timings.denoise_steps[-1] if timings.denoise_steps else stages.get("denoising", 0.0),
            "steps_ms": list(timings.denoise_steps),
            "decode_ms": sum(duration for name, duration in stages.items() if "decod" in name),
            "stages_ms": stages,
            "offloaded": _offloaded(engine),
            "settings": arguments.settings,
        }


def request(engine: Any, arguments: argparse.Namespace, place: Path) -> Any:
    """Return the model's default request with few steps, and with an input picture where the model needs one."""
    from engine.types import Request

    fields: dict[str, Any] = {"prompt": PROMPT, "seed": 0, "num_inference_steps": arguments.steps}
    if arguments.size:
        fields["width"], fields["height"] = map(int, arguments.size.lower().split("x"))
    if arguments.frames and engine.spec.is_video:
        fields["num_frames"] = arguments.frames
    if "boundary_ratio" in engine.spec.uses:
        fields["boundary_ratio"] = 0.95  # so that of two steps each expert takes one
    if not any(task.startswith("T") for task in engine.spec.tasks):
        fields["image_path"] = (str(_picture(place / "input.png", engine.spec)),)
    return engine.resolve(Request(**fields))


def _picture(path: Path, spec: Any) -> Path:
    """Write an input picture of the model's default size, which the output then has too."""
    import numpy as np
    from PIL import Image

    rows, columns = np.mgrid[0 : spec.defaults["height"], 0 : spec.defaults["width"]]
    channels = (columns % 256, rows % 256, (rows + columns) % 256)
    Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).save(path)
    return path


def _expected(request: Any) -> list[int]:
    return [request.num_frames or 1, request.height, request.width, 3]


def _watch(engine: Any) -> list[bool]:
    """Look at the latents before they are decoded; of a stock call, at what each pass of its denoiser returns."""
    import torch

    from engine.passes.precision import DENOISERS

    pipeline = engine.executor.scheduler.pipeline
    seen: list[bool] = []
    finish = pipeline.finish

    def look(state: Any) -> Any:
        if state.latents is not None:
            seen.append(bool(torch.isfinite(state.latents).all()))
        return finish(state)

    def hook(module: Any, inputs: Any, result: Any) -> None:
        tensors = result if isinstance(result, (tuple, list)) else tuple(getattr(result, "values", tuple)())
        seen.extend(bool(torch.isfinite(part).all()) for part in tensors if isinstance(part, torch.Tensor))

    pipeline.finish = look
    if engine.spec.family == "passthrough":
        for name, part in pipeline.model.components.items():
            if name.startswith(DENOISERS):
                part.register_forward_hook(hook)
    return seen


def _offloaded(engine: Any) -> list[str]:
    residency = engine.executor.scheduler.pipeline.residency
    return sorted(getattr(residency, "offloaded", ()))


if __name__ == "__main__":
    sys.exit(main())
