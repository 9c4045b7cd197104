"""Z-Image and Z-Image-Turbo: text to image, image to image, inpainting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ZImageInpaintPipeline
from diffusers.pipelines.z_image.pipeline_z_image import get_default_z_image_sigmas
from diffusers.pipelines.z_image.pipeline_z_image_inpaint import retrieve_latents
from diffusers.utils.torch_utils import randn_tensor

from engine.models.base import BaseModel, dynamic_shift, like, scale
from engine.types import State


class Model(BaseModel):
    """Z-Image on diffusers' own helpers; latents are (1, 16, height / 8, width / 8) in fp32.

    The network takes and returns lists of pictures of one frame, and its caption features have no padding. The stock
    call hands it both branches of guidance as one list; one by one they are never padded to each other's length, and so
    need no mask in the attention. The two ways differ by rounding alone.
    """

    stock = ZImageInpaintPipeline

    def encode(self, state: State) -> None:
        request = state.request
        positive, negative = self.helpers.encode_prompt(
            prompt=request.prompt or "",
            negative_prompt=request.negative_prompt,
            do_classifier_free_guidance=self.guided(state),
            device=state.device,
            max_sequence_length=request.max_sequence_length,
        )
        state.cond = {"cap_feats": [features.to(self.network.dtype) for features in positive]}
        if negative:
            state.uncond = {"cap_feats": [features.to(self.network.dtype) for features in negative]}

    def encode_image(self, state: State) -> None:
        vae = self.components["vae"]
        state.image = self.input_image(state, self.helpers.image_processor)
        encoded = retrieve_latents(vae.encode(like(state.image, vae)), generator=state.generator)
        state.image_latents = scale(encoded, vae).to(torch.float32)
        if state.request.mask_path:
            mask = self.input_mask(state, self.helpers.mask_processor, encoded)
            state.mask = like(mask, state.image_latents)

    def schedule(self, state: State) -> None:
        scheduler, steps = state.scheduler, state.request.num_inference_steps
        assert steps is not None and state.request.flow_shift is not None
        scheduler.set_shift(state.request.flow_shift)
        height, width = self.latent_size(state)
        mu = dynamic_shift(height * width // 4, scheduler.config)
        scheduler.set_timesteps(sigmas=get_default_z_image_sigmas(steps), device=state.device, mu=mu)
        state.timesteps = scheduler.timesteps

    def noise(self, state: State) -> None:
        shape = (1, self.network.in_channels, *self.latent_size(state))
        state.noise = randn_tensor(shape, generator=state.generator, device=state.device, dtype=torch.float32)

    def predict(self, state: State, network: Any, cond: Mapping[str, Any]) -> torch.Tensor:
        assert state.timesteps is not None and state.latents is not None
        time = (1000 - state.timesteps[state.step].expand(1)) / 1000  # 0 is noise here, 1 the picture
        pictures = [latents[:, None] for latents in like(state.latents, network)]
        (direction,) = network(x=pictures, t=time, return_dict=False, **cond)[0]
        velocity: torch.Tensor = -direction.float().squeeze(1)[None]
        return velocity

    def guide(self, state: State, cond: torch.Tensor, uncond: torch.Tensor | None) -> torch.Tensor:
        """Classifier-free guidance counted from the conditional side, its norm capped at `cfg_normalization` times."""
        if uncond is None:
            return cond
        guided = cond + (state.request.guidance_scale or 0.0) * (cond - uncond)
        cap = state.request.cfg_normalization
        if not cap:
            return guided
        norm, limit = torch.linalg.vector_norm(guided), torch.linalg.vector_norm(cond) * cap
        return torch.where(norm > limit, guided * (limit / norm), guided)
