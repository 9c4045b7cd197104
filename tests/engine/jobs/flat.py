"""An engine that draws flat colours in this process, for what draws without a worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from engine.config import EngineConfig
from engine.engine import spec_of
from engine.env import Environment
from engine.errors import GenerationError
from engine.types import Output, Progress, Request, Timings

SIDE = 16
TIMINGS = Timings(1.0, (("denoising", 1.0),), (1.0,), {}, 10.0)


class FlatEngine:
    """Takes 3 steps for an output. "FAULT" in a prompt fails; "hold" waits before each step for `gate`."""

    gate = threading.Semaphore(0)

    def __init__(self, config: EngineConfig, environment: Environment) -> None:
        _, self.spec = spec_of(config, environment)
        self.recipe: dict[str, Any] = {"model": "flat", "precisions": {"transformer": "fp32", "vae": "fp32"}}
        self.device = "cpu"
        self.scheduler = SimpleNamespace(pipeline=SimpleNamespace(exclusive=False))
        self.loras = SimpleNamespace(networks={"transformer": 1}, cache={})
        self.closed = False
        self.left = 0  # drawings that were given up

    def events(self, resolved: Request, control: Any) -> Iterator[Progress | Output]:
        for index, request in enumerate(resolved.outputs()):
            for step in range(3):
                if "hold" in (request.prompt or ""):
                    assert self.gate.acquire(timeout=10)
                if "FAULT" in (request.prompt or ""):
                    raise GenerationError("a test asked for this error")
                picture = b"jpeg" if control.preview else None
                try:
                    yield Progress("denoising", step + 1, 3, 0.1, 0.1, index, picture)
                except GeneratorExit:
                    self.left += 1
                    raise
            frames = np.full((1, request.height or SIDE, request.width or SIDE, 3), 7 + index, np.uint8)
            recipe = {
                "sgdiff": 1,
                "request": {"prompt": request.prompt, "seed": request.seed},
                "engine": {},
                "inputs": {},
            }
            yield Output(frames, request, recipe, TIMINGS, index)

    def lora_refs(self) -> list[Any]:
        return []

    def list_loras(self) -> dict[str, Any]:
        return {"loaded_adapters": []}

    def close(self) -> None:
        self.closed = True
