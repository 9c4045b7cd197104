"""One denoising step: predict, guide, step, and put the unmasked part of an input image back."""

from __future__ import annotations

import torch

from engine.types import Model, State


def step(model: Model, state: State) -> None:
    """Advance `latents` by one step. The only caller of `predict` and `guide`."""
    assert state.timesteps is not None and state.latents is not None
    timestep = state.timesteps[state.step]
    network = model.components[model.denoiser(state)]
    cond = model.predict(state, network, state.cond)
    uncond = None if state.uncond is None else model.predict(state, network, state.uncond)
    prediction = model.guide(state, cond, uncond)
    if state.wants_x0:
        state.x0 = model.clean(state, prediction)
    state.latents = state.scheduler.step(prediction, timestep, state.latents, return_dict=False)[0]
    if state.mask is not None:
        state.latents = _keep_unmasked(state)
    state.step += 1


def _keep_unmasked(state: State) -> torch.Tensor:
    """Return the latents with the part outside the mask replaced by the input image at the next noise level."""
    assert state.timesteps is not None and state.mask is not None and state.latents is not None
    original = state.image_latents
    assert original is not None
    if state.step + 1 < state.steps:
        original = state.scheduler.scale_noise(original, state.timesteps[state.step + 1][None], state.noise)
    return (1 - state.mask) * original + state.mask * state.latents
