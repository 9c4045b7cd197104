"""Families whose network sees latents packed into tokens of 2x2: FLUX.1, FLUX.2 and Qwen-Image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor

from engine.models.base import BaseModel, dynamic_shift, like, unscale
from engine.types import State


class PackedModel(BaseModel):
    """A flow-matching family on diffusers' own helpers; latents are packed to (1, tokens, 4 * channels).

    A subclass writes `conditioning`; one with a VAE for clips also `to_latents` and `decode`.
    """

    def to_latents(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return (1, 3, H, W) in [-1, 1] as latents (1, channels, h, w) in the network's scale."""
        latents: torch.Tensor = self.helpers._encode_vae_image(pixels, generator)
        return latents

    def encode_image(self, state: State) -> None:
        state.image = self.input_image(state, self.helpers.image_processor)
        encoded = self.to_latents(like(state.image, self.components["vae"]), state.generator)
        state.image_latents = self.pack(encoded.to(self.network.dtype))
        if state.request.mask_path:
            mask = self.input_mask(state, self.helpers.mask_processor, encoded)
            state.mask = self.pack(like(mask, state.image_latents).repeat(1, encoded.shape[1], 1, 1))

    def mu(self, state: State, tokens: int, steps: int) -> float:
        """Return the shift of a schedule of so many steps for so many tokens."""
        return dynamic_shift(tokens, state.scheduler.config)

    def schedule(self, state: State) -> None:
        rows, columns = self.tokens(state)
        steps = state.request.num_inference_steps
        assert steps is not None
        mu = self.mu(state, rows * columns, steps)
        if steps == 1 and state.scheduler.config.get("shift_terminal"):  # one sigma, 1, cannot end below itself
            state.scheduler = type(state.scheduler).from_config(state.scheduler.config, shift_terminal=None)
        state.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), device=state.device, mu=mu)
        state.timesteps = state.scheduler.timesteps

    def noise(self, state: State) -> None:
        rows, columns = self.tokens(state)
        shape = (1, self.network.config.in_channels // 4, 2 * rows, 2 * columns)
        noise = randn_tensor(shape, generator=state.generator, device=state.device, dtype=self.network.dtype)
        state.noise = self.pack(noise)

    def predict(self, state: State, network: Any, cond: Mapping[str, Any]) -> torch.Tensor:
        assert state.timesteps is not None and state.latents is not None
        timestep = state.timesteps[state.step].expand(1).to(state.latents.dtype)
        tokens = state.latents if state.reference is None else torch.cat([state.latents, state.reference], dim=1)
        prediction: torch.Tensor = network(hidden_states=tokens, timestep=timestep / 1000, return_dict=False, **cond)[0]
        return prediction[:, : state.latents.shape[1]]

    def latent_image(self, state: State, latents: torch.Tensor) -> torch.Tensor:
        return unscale(self.unpack(state, latents), self.components["vae"])

    def guidance(self, state: State) -> torch.Tensor | None:
        """Return the guidance that a network takes as an input, if it was trained with it."""
        if not self.network.config.guidance_embeds:
            return None
        return torch.full([1], state.request.guidance_scale or 0.0, device=state.device, dtype=torch.float32)

    def tokens(self, state: State) -> tuple[int, int]:
        """Return the rows and columns of tokens."""
        side = self.helpers.vae_scale_factor * 2
        return state.grid[0] // side, state.grid[1] // side

    def pack(self, latents: torch.Tensor) -> torch.Tensor:
        """Return latents (1, channels, h, w) as (1, tokens, 4 * channels)."""
        packed: torch.Tensor = self.helpers._pack_latents(latents, *latents.shape)
        return packed

    def unpack(self, state: State, tokens: torch.Tensor) -> torch.Tensor:
        """Return (1, tokens, 4 * channels) as latents (1, channels, h, w)."""
        latents: torch.Tensor = self.helpers._unpack_latents(tokens, *state.grid, self.helpers.vae_scale_factor)
        return latents.view(1, -1, *latents.shape[-2:])
