"""Qwen-Image and Qwen-Image-2512: text to image, image to image, inpainting."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import QwenImageInpaintPipeline
from diffusers.video_processor import VideoProcessor

from engine.models.packed import PackedModel
from engine.types import State


class Model(PackedModel):
    """Qwen-Image: one token per 16x16 pixels; its VAE is made for clips and gets pictures as clips of one frame."""

    stock = QwenImageInpaintPipeline

    def conditioning(self, state: State, prompt: str) -> dict[str, Any]:
        return self.conditions(state, prompt=prompt)

    def conditions(self, state: State, **inputs: Any) -> dict[str, Any]:
        embeds, mask = self.helpers.encode_prompt(
            **inputs, device=state.device, max_sequence_length=state.request.max_sequence_length
        )
        return {
            "encoder_hidden_states": embeds.to(self.network.dtype),
            "encoder_hidden_states_mask": mask,
            "img_shapes": [[(1, *self.tokens(state))]],
        }

    def to_latents(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return super().to_latents(pixels[:, :, None], generator)[:, :, 0]

    def decode(self, state: State) -> None:
        assert state.latents is not None
        clip = self.unpack(state, state.latents)[:, :, None]
        state.pixels = self.decode_clip(clip, VideoProcessor())

    def guide(self, state: State, cond: torch.Tensor, uncond: torch.Tensor | None) -> torch.Tensor:
        """Classifier-free guidance that keeps the norm of each token as it is in the conditional prediction."""
        guided = super().guide(state, cond, uncond)
        if uncond is None:
            return guided
        norms = (torch.linalg.vector_norm(tokens, dim=-1, keepdim=True) for tokens in (cond, guided))
        return guided * torch.div(*norms)
