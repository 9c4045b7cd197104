"""Stable Diffusion 3 and 3.5: text to image, image to image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import StableDiffusion3InpaintPipeline
from diffusers.utils.torch_utils import randn_tensor

from engine.models.base import BaseModel, like
from engine.types import State


class Model(BaseModel):
    """Stable Diffusion 3 on diffusers' own helpers; latents are (1, 16, height / 8, width / 8)."""

    stock = StableDiffusion3InpaintPipeline

    def encode(self, state: State) -> None:
        embeds, uncond_embeds, pooled, uncond_pooled = self.helpers.encode_prompt(
            prompt=state.request.prompt or "",
            prompt_2=None,
            prompt_3=None,
            negative_prompt=state.request.negative_prompt,
            do_classifier_free_guidance=self.guided(state),
            device=state.device,
            max_sequence_length=state.request.max_sequence_length,
        )
        state.cond = self._conditioning(embeds, pooled)
        if self.guided(state):
            state.uncond = self._conditioning(uncond_embeds, uncond_pooled)

    def _conditioning(self, embeds: torch.Tensor, pooled: torch.Tensor) -> dict[str, Any]:
        dtype = self.network.dtype
        return {"encoder_hidden_states": embeds.to(dtype), "pooled_projections": pooled.to(dtype)}

    def encode_image(self, state: State) -> None:
        state.image = self.input_image(state, self.helpers.image_processor)
        encoded = self.helpers._encode_vae_image(like(state.image, self.components["vae"]), state.generator)
        state.image_latents = encoded.to(self.network.dtype)

    def schedule(self, state: State) -> None:
        state.scheduler.set_timesteps(state.request.num_inference_steps, device=state.device)
        state.timesteps = state.scheduler.timesteps

    def noise(self, state: State) -> None:
        shape = (1, self.network.config.in_channels, *self.latent_size(state))
        state.noise = randn_tensor(shape, generator=state.generator, device=state.device, dtype=self.network.dtype)

    def predict(self, state: State, network: Any, cond: Mapping[str, Any]) -> torch.Tensor:
        assert state.timesteps is not None
        timestep = state.timesteps[state.step].expand(1)
        prediction: torch.Tensor = network(hidden_states=state.latents, timestep=timestep, return_dict=False, **cond)[0]
        return prediction
