"""What most families share: the default verbs of a Model, and the order of the stages."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from engine import media
from engine.catalog import ModelSpec
from engine.passes.vae import is_wan_kind
from engine.resolve import is_guided
from engine.stages import Stage, encode, latents, schedule
from engine.types import Request, State


def like(tensor: torch.Tensor, reference: torch.Tensor | torch.nn.Module) -> torch.Tensor:
    """Return `tensor` on the device and in the dtype of a tensor, or in the dtype of a network's parameters."""
    if isinstance(reference, torch.nn.Module):
        parameter = next(reference.parameters())
        # A network's own `device` is where it computes, also while its weights are streamed.
        return tensor.to(getattr(reference, "device", parameter.device), parameter.dtype)
    return tensor.to(reference.device, reference.dtype)


def unscale(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    """Return latents (1, channels, ..., height, width) as a network draws them, in the scale that `vae` decodes."""
    config = vae.config
    if getattr(config, "latents_mean", None) is not None:
        mean, std = _statistics(latents, config)
        if is_wan_kind(config):  # rounded as their stock pipelines do
            return latents / (1 / std) + mean
        return latents * std + mean
    unscaled: torch.Tensor = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
    return unscaled


def scale(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    """Return latents (1, channels, height, width) as `vae` encodes them, in the scale that a network draws."""
    config = vae.config
    if getattr(config, "latents_mean", None) is not None:
        mean, std = _statistics(latents, config)
        return (latents - mean) / std
    scaled: torch.Tensor = (latents - (getattr(config, "shift_factor", None) or 0.0)) * config.scaling_factor
    return scaled


def _statistics(latents: torch.Tensor, config: Any) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (1, -1, *[1] * (latents.ndim - 2))
    return latents.new_tensor(config.latents_mean).view(shape), latents.new_tensor(config.latents_std).view(shape)


def dynamic_shift(tokens: int, config: Mapping[str, Any]) -> float:
    """Return mu of a flow-matching schedule that shifts with the number of tokens (Esser et al., 2024)."""
    mu: float = calculate_shift(
        tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )
    return mu


def assemble(cls: Any, components: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """Build a stock pipeline over loaded components, with those settings of its model_index.json that it takes."""
    names = inspect.signature(cls.__init__).parameters
    given = {key: value for key, value in {**settings, **components}.items() if key in names}
    pipeline = cls(**given)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class BaseModel:
    """A flow-matching family with one denoiser. A subclass writes `noise`, `schedule`, `predict` and how it encodes.

    It names the `stock` pipeline whose parts it uses, as `helpers`, and whose `__call__` it never does.
    """

    exclusive = False
    masked = True
    stock: Any = None

    def __init__(self, spec: ModelSpec, components: dict[str, Any]) -> None:
        self.spec, self.components = spec, components
        self.helpers: Any = self.stock and assemble(self.stock, components, spec.settings)

    @property
    def network(self) -> Any:
        return self.components["transformer"]

    def stages(self) -> Sequence[Stage]:
        return [encode.text(self), encode.image(self), schedule.schedule(self), latents.latents(self)]

    def offload(self, device: torch.device) -> bool:
        """Return whether the model keeps its components off the device by itself; if not, the residency pass does."""
        return False

    def encode(self, state: State) -> None:
        """Encode one prompt after the other; a family whose helper wants both at once writes its own."""
        request = state.request
        state.cond = self.conditioning(state, request.prompt or "")
        # As diffusers: guidance needs a scale above 1 and a negative prompt, of which "" is one.
        if self.guided(state) and request.negative_prompt is not None:
            state.uncond = self.conditioning(state, request.negative_prompt)

    def conditioning(self, state: State, prompt: str) -> dict[str, Any]:
        """Return what the network is told by a prompt, by the names of its arguments."""
        raise TypeError(f"{type(self).__name__} must say how a prompt is encoded")

    def encode_image(self, state: State) -> None:
        raise TypeError(f"{type(self).__name__} takes no input image")

    def noise(self, state: State) -> None:
        raise TypeError(f"{type(self).__name__} must say what its noise looks like")

    def schedule(self, state: State) -> None:
        raise TypeError(f"{type(self).__name__} must say which timesteps it takes")

    def denoiser(self, state: State) -> str:
        return "transformer"

    def predict(self, state: State, network: Any, cond: Mapping[str, Any]) -> torch.Tensor:
        raise TypeError(f"{type(self).__name__} must say how its network is called")

    def guided(self, state: State) -> bool:
        """Whether the run uses classifier-free guidance."""
        return is_guided(state.request, self.spec)

    def guide(self, state: State, cond: torch.Tensor, uncond: torch.Tensor | None) -> torch.Tensor:
        """Classifier-free guidance (Ho and Salimans, 2022): uncond + scale * (cond - uncond)."""
        if uncond is None:
            return cond
        return uncond + self.guidance_of_step(state) * (cond - uncond)

    def guidance_of_step(self, state: State) -> float:
        """Return the scale of classifier-free guidance at the step that a run is at."""
        assert self.spec.cfg_scale is not None
        scale: float = getattr(state.request, self.spec.cfg_scale)
        return scale

    def decode(self, state: State) -> None:
        """Decode one picture; a family of clips writes its own."""
        vae = self.components["vae"]
        assert state.latents is not None
        latents = self.latent_image(state, like(state.latents, vae))
        picture = vae.decode(latents, return_dict=False)[0]
        state.pixels = VaeImageProcessor.denormalize(picture).permute(0, 2, 3, 1)

    def grid(self, request: Request) -> tuple[int, int]:
        """Return the height and width that the network runs at: the size asked for, rounded up to the multiple."""
        assert request.height is not None and request.width is not None
        multiple = self.spec.multiple
        return -(-request.height // multiple) * multiple, -(-request.width // multiple) * multiple

    def latent_size(self, state: State) -> tuple[int, int]:
        """Return the height and width of the latents of a picture."""
        factor = self.helpers.vae_scale_factor
        return state.grid[0] // factor, state.grid[1] // factor

    def clean(self, state: State, prediction: torch.Tensor) -> torch.Tensor:
        """Return the x0 prediction of a flow-matching network: x_t - sigma * velocity."""
        assert state.latents is not None
        sigma = state.scheduler.sigmas[state.scheduler.begin_index + state.step]
        clean: torch.Tensor = state.latents - sigma.to(state.latents) * prediction
        return clean

    def input_image(self, state: State, processor: Any) -> torch.Tensor:
        """Return the one input image, fitted to the grid, as (1, 3, H, W) in [-1, 1]."""
        (source,) = state.request.image_path or ()
        image: torch.Tensor = processor.preprocess(media.fit(media.open_image(source), _asked(state), state.grid))
        return image.to(torch.float32)

    def input_mask(self, state: State, processor: Any, latents: torch.Tensor) -> torch.Tensor:
        """Return the mask of the input image, 1 = change, as (1, 1, h, w) for latents (1, channels, h, w)."""
        (source,) = state.request.image_path or ()
        assert state.request.mask_path is not None
        image = media.open_mask(state.request.mask_path, media.image_size(source))
        mask = processor.preprocess(media.fit(image, _asked(state), state.grid))
        return torch.nn.functional.interpolate(mask, size=tuple(latents.shape[-2:]))

    def decode_clip(self, latents: torch.Tensor, processor: Any) -> torch.Tensor:
        """Return latents (1, channels, frames, h, w) of a clip as pixels (frames, H, W, 3) in [0, 1]."""
        vae = self.components["vae"]
        clip = vae.decode(unscale(like(latents, vae), vae), return_dict=False)[0]
        pixels: torch.Tensor = processor.postprocess_video(clip, output_type="pt")[0].permute(0, 2, 3, 1)
        return pixels

    def latent_image(self, state: State, latents: torch.Tensor) -> torch.Tensor:
        """Return latents as a preview takes them, those of a clip by its middle frame."""
        if latents.ndim == 5:
            latents = latents[:, :, latents.shape[2] // 2]
        return unscale(latents, self.components["vae"])


def _asked(state: State) -> tuple[int, int]:
    height, width = state.request.height, state.request.width
    assert height is not None and width is not None
    return height, width
