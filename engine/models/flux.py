"""FLUX.1 dev and schnell: text to image, image to image, inpainting."""

from __future__ import annotations

from typing import Any

from diffusers import FluxInpaintPipeline

from engine.models.packed import PackedModel
from engine.types import State


class Model(PackedModel):
    """FLUX.1: one token per 16x16 pixels, and guidance as an input of the network where it was trained with it."""

    stock = FluxInpaintPipeline

    def conditioning(self, state: State, prompt: str) -> dict[str, Any]:
        embeds, pooled, text_ids = self.helpers.encode_prompt(
            prompt=prompt, device=state.device, max_sequence_length=state.request.max_sequence_length
        )
        dtype = self.network.dtype
        rows, columns = self.tokens(state)
        image_ids = self.helpers._prepare_latent_image_ids(1, rows, columns, state.device, dtype)
        return {
            "encoder_hidden_states": embeds.to(dtype),
            "pooled_projections": pooled.to(dtype),
            "txt_ids": text_ids.to(dtype),
            "img_ids": image_ids,
            "guidance": self.guidance(state),
        }
