"""The timing file of a run, and raw frames."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import profiler, recipe, schema, storage
from engine.env import Environment
from engine.types import Output, Timings

if TYPE_CHECKING:
    import numpy as np


def content(
    outputs: Sequence[Output], request_id: str, environment: Environment, model: str, device: str
) -> dict[str, Any]:
    """Return the content of a perf file for all outputs of a run: their times add up, their steps follow each other."""
    first = outputs[0].request
    meta = {
        "prompt": first.prompt,
        "model": model,
        "device": device_name(device),
        "torch": recipe.versions()["torch"],
        "outputs": len(outputs),
        "request": {name: _without_bytes(value) for name, value in schema.plain(first).items()},
    }
    timings = together([output.timings for output in outputs])
    return profiler.perf_dump(
        timings, request_id=request_id, commit=environment.git_commit, tag="cli_generate", meta=meta
    )


def _without_bytes(value: Any) -> Any:
    """Return a field of a request, an input that holds its own bytes only by its kind."""
    if isinstance(value, list):
        return [_without_bytes(entry) for entry in value]
    is_data = isinstance(value, str) and value[:5].lower() == "data:"
    return value.partition(";")[0] if is_data else value


def together(timings: Sequence[Timings]) -> Timings:
    """Return the times of several outputs as those of one run."""
    stages: dict[str, float] = defaultdict(float)
    memory: dict[str, Mapping[str, float]] = {}
    for timing in timings:
        for name, duration in timing.stages:
            stages[name] += duration
        memory |= timing.memory
    return Timings(
        total_ms=sum(timing.total_ms for timing in timings),
        stages=tuple(stages.items()),
        denoise_steps=tuple(step for timing in timings for step in timing.denoise_steps),
        memory=memory,
        peak_memory_mb=max(timing.peak_memory_mb for timing in timings),
    )


def device_name(device: str) -> str:
    """Return the name of the GPU, or the device itself."""
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(device)


def write(path: Path, value: Mapping[str, Any] | np.ndarray[Any, Any]) -> None:
    """Write JSON, or frames as .npy: complete or not at all. Raises OutputError."""
    import numpy as np

    with storage.atomic(path) as part, part.open("wb") as file:
        if isinstance(value, np.ndarray):
            np.save(file, value)
        else:
            file.write(json.dumps(value, indent=2, ensure_ascii=False, default=str).encode())
