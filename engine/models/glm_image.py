"""GLM-Image: text, or text and images, to an image; an autoregressive prior lays it out, a diffusion network paints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers import GlmImagePipeline
from diffusers.models.transformers.transformer_glm_image import GlmImageKVCache
from diffusers.pipelines.glm_image.pipeline_glm_image import calculate_shift, retrieve_latents

from engine import media
from engine.catalog import ModelSpec
from engine.models.base import BaseModel, like, scale
from engine.stages import Stage, encode, latents, schedule
from engine.stages.decode import cancellable
from engine.types import State

PRIOR = "vision_language_encoder"


class References(GlmImageKVCache):  # type: ignore[misc]  # diffusers is untyped
    """Keys and values of a run's input images, which its pixels attend to in every step.

    `tokens` are the images' prior tokens at the network's resolution, each (rows, columns).
    """

    def __init__(self, layers: int, tokens: Sequence[torch.Tensor]) -> None:
        super().__init__(num_layers=layers)
        self.tokens = tokens


class Prior:
    """The autoregressive model as diffusers' helper knows it: the features of images are one row per token.

    transformers now gives, and takes, a (channels, rows, columns) map per image.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def get_image_features(self, pixels: torch.Tensor, grids: torch.Tensor) -> Any:
        features = self.model.get_image_features(pixels, grids)
        features.pooler_output = [image.flatten(1).T for image in features.pooler_output]
        return features

    def get_image_tokens(self, features: torch.Tensor, grids: torch.Tensor) -> Any:
        rows = torch.split(features, grids.prod(dim=-1).tolist())
        maps = [image.T.reshape(-1, *grid[1:]) for image, grid in zip(rows, grids.tolist(), strict=True)]
        return self.model.get_image_tokens(maps, grids)


class Model(BaseModel):
    """GLM-Image on diffusers' own helpers; latents are (1, 16, height / 8, width / 8), one token per 16x16 pixels."""

    stock = GlmImagePipeline

    def __init__(self, spec: ModelSpec, components: dict[str, Any]) -> None:
        super().__init__(spec, components)
        self.helpers.vision_language_encoder = Prior(components[PRIOR])

    @property
    def _side(self) -> int:
        """Pixels per token, along one side."""
        side: int = self.helpers.vae_scale_factor * self.network.config.patch_size
        return side

    def stages(self) -> Sequence[Stage]:
        text, image = encode.text(self), encode.image(self)
        # The network reads the input images once, before the first step.
        reading = Stage(image.name, (*image.uses, "transformer"), image.run)
        return [text, reading, schedule.schedule(self), latents.latents(self)]

    def encode(self, state: State) -> None:
        request = state.request
        sources = [media.open_image(source) for source in request.image_path or ()]
        with cancellable(state, self.components[PRIOR]), _own_randomness(state.device):
            tokens, image_tokens, grids = self.helpers.generate_prior_tokens(
                prompt=request.prompt or "",
                image=[sources] if sources else None,
                height=state.grid[0],
                width=state.grid[1],
                device=state.device,
                generator=state.generator,
            )
        positive, negative = self.helpers.encode_prompt(
            request.prompt or "",
            self.guided(state),
            device=state.device,
            dtype=self.network.dtype,
            max_sequence_length=request.max_sequence_length,
        )
        state.cond = self._conditioning(state, positive, tokens, drop=False)
        if negative is not None:
            state.uncond = self._conditioning(state, negative, tokens, drop=True)
        if sources:
            sizes = [grid[1:] for grid in grids[0].tolist()]
            parts = torch.split(image_tokens[0], [rows * columns for rows, columns in sizes])
            maps = [part.view(size) for part, size in zip(parts, sizes, strict=True)]
            state.cond["kv_caches"] = References(self.network.config.num_layers, maps)

    def _conditioning(self, state: State, embeds: torch.Tensor, tokens: torch.Tensor, drop: bool) -> dict[str, Any]:
        return {
            "encoder_hidden_states": embeds,
            "prior_token_id": tokens,
            "prior_token_drop": torch.full_like(tokens, drop, dtype=torch.bool),
            "target_size": embeds.new_tensor([state.grid]),
            "crop_coords": embeds.new_zeros((1, 2)),
        }

    def encode_image(self, state: State) -> None:
        references: References = state.cond["kv_caches"]
        references.set_mode("write")
        for source, tokens in zip(state.request.image_path or (), references.tokens, strict=True):
            encoded = self._encoded(media.open_image(source), tokens.shape)
            self.network(
                hidden_states=like(encoded, self.network),
                encoder_hidden_states=state.cond["encoder_hidden_states"][:, :0],
                prior_token_id=tokens.flatten(),
                prior_token_drop=torch.zeros_like(tokens.flatten(), dtype=torch.bool),
                timestep=torch.zeros(1, device=state.device),
                target_size=torch.tensor([self._pixels(tokens.shape)], device=state.device),
                crop_coords=torch.zeros((1, 2), device=state.device),
                kv_caches=references,
            )
        references.set_mode("read")

    def _encoded(self, image: Any, grid: Sequence[int]) -> torch.Tensor:
        """Return the normalised latents of an image, at the size at which the prior saw it."""
        vae = self.components["vae"]
        height, width = self._pixels(grid)
        pixels = self.helpers.image_processor.preprocess(image, height=height, width=width)
        return scale(retrieve_latents(vae.encode(like(pixels, vae)), sample_mode="argmax"), vae)

    def _pixels(self, grid: Sequence[int]) -> tuple[int, int]:
        """Return the height and width in pixels of a grid of tokens."""
        return grid[0] * self._side, grid[1] * self._side

    def schedule(self, state: State) -> None:
        config, steps = state.scheduler.config, state.request.num_inference_steps
        assert steps is not None
        mu = calculate_shift(
            (state.grid[0] // self._side) * (state.grid[1] // self._side),
            config.get("base_image_seq_len", 256),
            config.get("base_shift", 0.25),
            config.get("max_shift", 0.75),
        )
        last = config.num_train_timesteps
        timesteps = np.linspace(last, 1.0, steps + 1)[:-1].astype(np.int64).astype(np.float32)
        state.scheduler.set_timesteps(timesteps=timesteps, sigmas=timesteps / last, device=state.device, mu=mu)
        state.timesteps = state.scheduler.timesteps

    def noise(self, state: State) -> None:
        channels = self.network.config.in_channels
        state.noise = self.helpers.prepare_latents(
            1, channels, *state.grid, self.network.dtype, state.device, state.generator
        )

    def predict(self, state: State, network: Any, cond: Mapping[str, Any]) -> torch.Tensor:
        assert state.timesteps is not None and state.latents is not None
        time = state.timesteps[state.step].expand(1) - 1
        velocity: torch.Tensor = network(
            hidden_states=like(state.latents, network), timestep=time, return_dict=False, **cond
        )[0]
        return velocity.float()


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Put the global generators back afterwards: the prior seeds them with the run's seed, and samples from them."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
