"""FLUX.2 dev, klein and klein-base: text to image, with up to ten reference images."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

from engine import media
from engine.catalog import ModelSpec
from engine.models.base import like
from engine.models.packed import PackedModel
from engine.types import State

REFERENCE_AREA = 1024 * 1024  # of a reference image, in pixels, at most


class Model(PackedModel):
    """FLUX.2: one token per 16x16 pixels; between network and VAE stands a batch normalization of the tokens."""

    def __init__(self, spec: ModelSpec, components: dict[str, Any]) -> None:
        self.stock = getattr(diffusers, spec.pipeline)  # dev and klein read a prompt differently
        super().__init__(spec, components)
        depth = components["text_encoder"].config.get_text_config().num_hidden_layers
        self.hidden_layers = tuple(depth * quarter // 4 for quarter in (1, 2, 3))  # those that the prompt is read from

    def encode(self, state: State) -> None:
        state.cond = self.conditioning(state, state.request.prompt or "")
        if self.spec.cfg_scale and self.guided(state):
            state.uncond = self.conditioning(state, "")

    def conditioning(self, state: State, prompt: str) -> dict[str, Any]:
        embeds, text_ids = self.helpers.encode_prompt(
            prompt=prompt,
            device=state.device,
            max_sequence_length=state.request.max_sequence_length,
            text_encoder_out_layers=self.hidden_layers,
        )
        return {
            "encoder_hidden_states": embeds.to(self.network.dtype),
            "txt_ids": text_ids,
            "img_ids": self.helpers._prepare_latent_ids(torch.empty(1, 1, *self.tokens(state))).to(state.device),
            "guidance": self.guidance(state),
        }

    def encode_image(self, state: State) -> None:
        """Write `reference`, and into the conditions where each of its tokens lies."""
        images = [self.reference(source) for source in state.request.image_path or ()]
        vae = self.components["vae"]
        latents, ids = self.helpers.prepare_image_latents(images, 1, state.generator, state.device, vae.dtype)
        state.reference = latents.to(self.network.dtype)
        for cond in filter(None, (state.cond, state.uncond)):
            cond["img_ids"] = torch.cat([cond["img_ids"], ids], dim=1)

    def reference(self, source: str) -> torch.Tensor:
        """Return a reference image as (1, 3, H, W) in [-1, 1]: shrunk if it is large, cut to whole tokens."""
        processor = self.helpers.image_processor
        image = processor._resize_if_exceeds_area(media.open_image(source), REFERENCE_AREA)
        multiple = processor.config.vae_scale_factor
        width, height = (side // multiple * multiple for side in image.size)
        pixels: torch.Tensor = processor.preprocess(image, height=height, width=width, resize_mode="crop")
        return pixels

    def mu(self, state: State, tokens: int, steps: int) -> float:
        shift: float = compute_empirical_mu(tokens, steps)
        return shift

    def noise(self, state: State) -> None:
        channels = self.network.config.in_channels // 4
        state.noise, _ = self.helpers.prepare_latents(
            1, channels, *state.grid, self.network.dtype, state.device, state.generator
        )

    def latent_image(self, state: State, latents: torch.Tensor) -> torch.Tensor:
        vae = self.components["vae"]
        deviation = torch.sqrt(vae.bn.running_var + vae.config.batch_norm_eps)
        tokens = latents * like(deviation, latents) + like(vae.bn.running_mean, latents)
        unpacked = tokens.transpose(1, 2).reshape(1, -1, *self.tokens(state))
        image: torch.Tensor = self.helpers._unpatchify_latents(unpacked)
        return image
