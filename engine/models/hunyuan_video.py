"""HunyuanVideo and FastHunyuan: text to video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import HunyuanVideoPipeline

from engine.catalog import ModelSpec
from engine.models.base import BaseModel
from engine.types import State


class Model(BaseModel):
    """HunyuanVideo on diffusers' own helpers; latents are (1, channels, frames, height, width) in fp32."""

    stock = HunyuanVideoPipeline

    def __init__(self, spec: ModelSpec, components: dict[str, Any]) -> None:
        super().__init__(spec, components)
        # Its network always passes a mask over the text's padding. Half precision has kernels that are faster and take
        # none, so there the padding is cut off; in fp32, which has no such kernel, it stays, to the last bit as stock.
        self.masked = self.network.dtype == torch.float32

    def conditioning(self, state: State, prompt: str) -> dict[str, Any]:
        embeds, pooled, mask = self.helpers.encode_prompt(
            prompt=prompt, device=state.device, max_sequence_length=state.request.max_sequence_length
        )
        if not self.masked:
            length = int(mask.sum())  # padding is on the right
            embeds, mask = embeds[:, :length], mask[:, :length]
        dtype = self.network.dtype
        scale = state.request.embedded_cfg_scale or 0.0
        return {
            "encoder_hidden_states": embeds.to(dtype),
            "encoder_attention_mask": mask.to(dtype),
            "pooled_projections": pooled.to(dtype),
            "guidance": torch.full([1], scale, device=state.device, dtype=dtype) * 1000.0,
        }

    def schedule(self, state: State) -> None:
        steps, shift = state.request.num_inference_steps, state.request.flow_shift
        assert steps is not None and shift is not None
        state.scheduler.set_shift(shift)
        state.scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1], device=state.device)
        state.timesteps = state.scheduler.timesteps

    def noise(self, state: State) -> None:
        state.noise = self.helpers.prepare_latents(
            1,
            self.network.config.in_channels,
            *state.grid,
            state.request.num_frames,
            dtype=torch.float32,
            device=state.device,
            generator=state.generator,
        )

    def predict(self, state: State, network: Any, cond: Mapping[str, Any]) -> torch.Tensor:
        assert state.timesteps is not None and state.latents is not None
        prediction: torch.Tensor = network(
            hidden_states=state.latents.to(network.dtype),
            timestep=state.timesteps[state.step].expand(1).to(state.latents.dtype),
            return_dict=False,
            **cond,
        )[0]
        return prediction

    def decode(self, state: State) -> None:
        assert state.latents is not None
        state.pixels = self.decode_clip(state.latents, self.helpers.video_processor)
