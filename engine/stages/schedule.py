"""The timesteps of a run, on a scheduler of its own."""

from __future__ import annotations

from engine.stages import Stage
from engine.types import Model, State


def schedule(model: Model) -> Stage:
    """Write `scheduler`, `timesteps` and `steps`; with an input image, keep the last `strength` share of the steps."""

    def run(state: State) -> None:
        shared = model.components["scheduler"]
        state.scheduler = type(shared).from_config(shared.config)  # schedulers keep state of a run
        model.schedule(state)
        first = _first_step(state)
        assert state.timesteps is not None
        state.timesteps = state.timesteps[first * state.scheduler.order :]
        state.steps = len(state.timesteps)
        if hasattr(state.scheduler, "set_begin_index"):  # spares a device sync at the first step
            state.scheduler.set_begin_index(first * state.scheduler.order)

    return Stage("timestep_preparation", (), run)


def _first_step(state: State) -> int:
    """Return how many steps an input image of this strength skips (as diffusers' img2img pipelines count)."""
    if state.image is None or state.request.strength is None:
        return 0
    steps = state.request.num_inference_steps
    assert steps is not None
    return int(max(steps - min(steps * state.request.strength, steps), 0))
