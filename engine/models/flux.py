"""FLUX.1 dev and schnell: text to image, image to image, inpainting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import FluxInpaintPipeline
from diffusers.utils.torch_utils import randn_tensor

from engine.catalog import ModelSpec
from engine.models.base import BaseModel, assemble, dynamic_shift, like, unscale
from engine.types import State


class Model(BaseModel):
    """FLUX.1 on diffusers' own helpers; latents are packed to (1, tokens, 64), one token per 16x16 pixels."""

    def __init__(self, spec: ModelSpec, components: dict[str, Any]) -> None:
        super().__init__(spec, components)
        self.helpers = assemble(
            FluxInpaintPipeline, components, spec.settings
        )  # its parts are used, its __call__ never

    @property
    def network(self) -> Any:
        return self.components["transformer"]

    def encode(self, state: State) -> None:
        request = state.request
        state.cond = self._conditioning(state, request.prompt or "")
        # As diffusers: guidance needs a scale above 1 and a negative prompt, of which "" is one.
        if self.guided(state) and request.negative_prompt is not None:
            state.uncond = self._conditioning(state, request.negative_prompt)

    def _conditioning(self, state: State, prompt: str) -> dict[str, Any]:
        embeds, pooled, text_ids = self.helpers.encode_prompt(
            prompt=prompt, device=state.device, max_sequence_length=state.request.max_sequence_length
        )
        dtype = self.network.dtype
        rows, columns = self._tokens(state)
        image_ids = self.helpers._prepare_latent_image_ids(1, rows, columns, state.device, dtype)
        guidance = None
        if self.network.config.guidance_embeds:
            guidance = torch.full([1], state.request.guidance_scale or 0.0, device=state.device, dtype=torch.float32)
        return {
            "encoder_hidden_states": embeds.to(dtype),
            "pooled_projections": pooled.to(dtype),
            "txt_ids": text_ids.to(dtype),
            "img_ids": image_ids,
            "guidance": guidance,
        }

    def encode_image(self, state: State) -> None:
        state.image = self.input_image(state, self.helpers.image_processor)
        encoded = self.helpers._encode_vae_image(like(state.image, self.components["vae"]), state.generator)
        state.image_latents = self._pack(encoded.to(self.network.dtype))
        if state.request.mask_path:
            mask = self.input_mask(state, self.helpers.mask_processor, encoded)
            state.mask = self._pack(like(mask, state.image_latents).repeat(1, encoded.shape[1], 1, 1))

    def schedule(self, state: State) -> None:
        rows, columns = self._tokens(state)
        steps = state.request.num_inference_steps
        assert steps is not None
        mu = dynamic_shift(rows * columns, state.scheduler.config)
        state.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), device=state.device, mu=mu)
        state.timesteps = state.scheduler.timesteps

    def noise(self, state: State) -> None:
        rows, columns = self._tokens(state)
        shape = (1, self.network.config.in_channels // 4, 2 * rows, 2 * columns)
        noise = randn_tensor(shape, generator=state.generator, device=state.device, dtype=self.network.dtype)
        state.noise = self._pack(noise)

    def predict(self, state: State, network: Any, cond: Mapping[str, Any]) -> torch.Tensor:
        assert state.timesteps is not None and state.latents is not None
        timestep = state.timesteps[state.step].expand(1).to(state.latents.dtype)
        prediction: torch.Tensor = network(
            hidden_states=state.latents, timestep=timestep / 1000, return_dict=False, **cond
        )[0]
        return prediction

    def decode(self, state: State) -> None:
        vae = self.components["vae"]
        assert state.latents is not None
        latents = self.latent_image(state, state.latents)
        image = vae.decode(like(latents, vae), return_dict=False)[0]
        pixels = self.helpers.image_processor.postprocess(image, output_type="pt")
        state.pixels = pixels.permute(0, 2, 3, 1)

    def latent_image(self, state: State, latents: torch.Tensor) -> torch.Tensor:
        unpacked: torch.Tensor = self.helpers._unpack_latents(latents, *state.grid, self.helpers.vae_scale_factor)
        return unscale(unpacked, self.components["vae"])

    def _tokens(self, state: State) -> tuple[int, int]:
        """Return the rows and columns of tokens."""
        side = self.helpers.vae_scale_factor * 2
        return state.grid[0] // side, state.grid[1] // side

    def _pack(self, latents: torch.Tensor) -> torch.Tensor:
        packed: torch.Tensor = self.helpers._pack_latents(latents, *latents.shape)
        return packed
