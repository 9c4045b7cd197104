"""Wan 2.1 and 2.2, and the distilled FastWan: text to video, image to video, one denoiser or two experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import WanImageToVideoPipeline, WanPipeline

from engine import media
from engine.catalog import ModelSpec
from engine.models.base import BaseModel, assemble
from engine.models.wan_dmd import DMDScheduler
from engine.types import State

TEXT_TOKENS = 512  # where the length of the text is no setting: the attention to an image counts on it
EXPERT_2 = "transformer_2"


class Model(BaseModel):
    """Wan on diffusers' own helpers; latents are (1, channels, frames, height, width) in fp32.

    With two experts, `transformer` draws while the noise is high and `transformer_2` below `boundary_ratio`. With
    `expand_timesteps` (2.2 5B) every token has a timestep of its own, and an input image is the clean first frame of
    the latents; otherwise it comes as further channels of the network's input.
    """

    stock = WanPipeline

    def __init__(self, spec: ModelSpec, components: dict[str, Any]) -> None:
        super().__init__(spec, components)
        self.image_helpers = assemble(WanImageToVideoPipeline, components, spec.settings)
        self.expands: bool = self.helpers.config.expand_timesteps
        self.distilled = spec.pipeline == "WanDMDPipeline"

    def encode(self, state: State) -> None:
        request, guided = state.request, self.guided(state)
        embeds, negative = self.helpers.encode_prompt(
            prompt=request.prompt or "",
            negative_prompt=request.negative_prompt,
            do_classifier_free_guidance=guided,
            max_sequence_length=request.max_sequence_length or TEXT_TOKENS,
            device=state.device,
        )
        state.cond = {"encoder_hidden_states": embeds.to(self.network.dtype)}
        if guided:
            state.uncond = {"encoder_hidden_states": negative.to(self.network.dtype)}

    def encode_image(self, state: State) -> None:
        state.image = self.input_image(state, self.helpers.video_processor).to(state.device)
        if self.network.config.image_dim is not None:
            (source,) = state.request.image_path or ()
            embeds = self.image_helpers.encode_image(media.open_image(source), state.device).to(self.network.dtype)
            for conditioning in filter(None, (state.cond, state.uncond)):
                conditioning["encoder_hidden_states_image"] = embeds
        # Only what is made of the image is wanted here: noise is drawn later, in the same place of the random numbers.
        no_noise = torch.empty(0, device=state.device)
        state.reference = self.image_helpers.prepare_latents(
            state.image, 1, self.channels, *self._shape(state), torch.float32, state.device, latents=no_noise
        )[1]

    def schedule(self, state: State) -> None:
        shift, steps = state.request.flow_shift, state.request.num_inference_steps
        assert shift is not None and steps is not None
        if self.distilled:
            state.scheduler = DMDScheduler(shift, state.generator)
        else:
            config = state.scheduler.config
            name = "flow_shift" if "flow_shift" in config else "shift"  # UniPC and its kind; the Euler scheduler
            state.scheduler = type(state.scheduler).from_config(config, **{name: shift})
        state.scheduler.set_timesteps(steps, device=state.device)
        state.timesteps = state.scheduler.timesteps

    def noise(self, state: State) -> None:
        state.noise = self.helpers.prepare_latents(
            1, self.channels, *self._shape(state), torch.float32, state.device, state.generator
        )

    def denoiser(self, state: State) -> str:
        assert state.timesteps is not None
        boundary = state.request.boundary_ratio
        if boundary is None or EXPERT_2 not in self.components:
            return "transformer"
        trained: int = state.scheduler.config.num_train_timesteps
        return "transformer" if state.timesteps[state.step] >= boundary * trained else EXPERT_2

    def predict(self, state: State, network: Any, cond: Mapping[str, Any]) -> torch.Tensor:
        assert state.timesteps is not None and state.latents is not None
        timestep = state.timesteps[state.step]
        latents = self._with_image(state, state.latents)
        if state.reference is not None and not self.expands:
            latents = torch.cat([latents, state.reference], dim=1)
        timesteps = self._per_token(state, timestep) if self.expands else timestep.expand(1)
        prediction: torch.Tensor = network(
            hidden_states=latents.to(network.dtype), timestep=timesteps, return_dict=False, **cond
        )[0]
        return prediction

    def guidance_of_step(self, state: State) -> float:
        second = state.request.guidance_scale_2
        return second if second is not None and self.denoiser(state) == EXPERT_2 else super().guidance_of_step(state)

    def clean(self, state: State, prediction: torch.Tensor) -> torch.Tensor:
        return self._with_image(state, super().clean(state, prediction))

    def decode(self, state: State) -> None:
        assert state.latents is not None
        state.pixels = self.decode_clip(self._with_image(state, state.latents), self.helpers.video_processor)

    @property
    def channels(self) -> int:
        """Channels of the latents, to which an input image may add some of its own."""
        channels: int = self.network.config.out_channels
        return channels

    def _shape(self, state: State) -> tuple[int, int, int]:
        """Return height, width and frames in pixels."""
        assert state.request.num_frames is not None
        return *state.grid, state.request.num_frames

    def _with_image(self, state: State, latents: torch.Tensor) -> torch.Tensor:
        """Return latents with the input image as their first frame, where the model takes it there."""
        if state.reference is None or not self.expands:
            return latents
        return torch.cat([state.reference, latents[:, :, 1:]], dim=2)

    def _per_token(self, state: State, timestep: torch.Tensor) -> torch.Tensor:
        """Return the timestep of every token, (1, tokens): 0 where the input image is."""
        assert state.latents is not None
        _, rows, columns = self.network.config.patch_size
        frames, height, width = state.latents.shape[2:]
        timesteps = timestep.to(torch.float32).repeat(frames, height // rows, width // columns)
        if state.reference is not None:
            timesteps[0] = 0
        return timesteps.flatten()[None]
