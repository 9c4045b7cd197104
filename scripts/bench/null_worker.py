"""The worker of the server with a model that computes nothing: black pictures after one step. For bench/serve.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from engine import pipeline, worker
from engine.lora.manager import LoraManager
from engine.profiler import Profile
from engine.types import Progress, Timings


class NullPipeline:
    """What the scheduler needs of a pipeline, at no cost."""

    def __init__(self) -> None:
        self.device, self.exclusive, self.attention = torch.device("cpu"), False, "none"
        self.loras, self.denoises_at_once = LoraManager({}, self.device), False

    def begin(self, request: Any, control: Any, index: int = 0) -> Any:
        """Start a run of one step."""

        class State:
            step, steps, profile = 0, 1, Profile(torch.device("cpu"))

        State.request, State.control, State.index = request, control, index  # type: ignore[attr-defined]
        return State

    def advance(self, state: Any) -> bool:
        """Take the step, and tell of it."""
        state.step += 1
        state.control.tell(Progress("denoising", 1, 1, state.profile.elapsed_s(), 0.0, state.index))
        return False

    def finish(self, state: Any) -> tuple[Any, Timings]:
        """Give a black picture."""
        frames = np.zeros((1, state.request.height, state.request.width, 3), np.uint8)
        return frames, Timings(state.profile.elapsed_s() * 1000, (), (), {}, 0.0, {"text": 1, "image": 0, "latents": 1})


pipeline.build = lambda *_: NullPipeline()  # type: ignore[assignment,return-value]

if __name__ == "__main__":
    worker.main(int(sys.argv[1]))
