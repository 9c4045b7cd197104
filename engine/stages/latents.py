"""The starting point: noise, or an input image with noise on it."""

from __future__ import annotations

from engine.stages import Stage
from engine.types import Model, State


def latents(model: Model) -> Stage:
    """Write `noise` and `latents`, with an input image noised to the first timestep of the run."""

    def run(state: State) -> None:
        model.noise(state)
        if state.image_latents is None:
            state.latents = state.noise
        elif state.steps == 0:  # strength 0: the image itself
            state.latents = state.image_latents
        else:
            assert state.timesteps is not None
            state.latents = state.scheduler.scale_noise(state.image_latents, state.timesteps[:1], state.noise)

    return Stage("latent_preparation", (), run)
