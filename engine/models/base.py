"""What most families share: the default verbs of a Model, and the order of the stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from engine.catalog import ModelSpec
from engine.stages import Stage, encode, latents, schedule
from engine.types import Request, State


def like(tensor: torch.Tensor, reference: torch.Tensor | torch.nn.Module) -> torch.Tensor:
    """Return `tensor` on the device and in the dtype of a tensor, or in the dtype of a network's parameters."""
    if isinstance(reference, torch.nn.Module):
        parameter = next(reference.parameters())
        return tensor.to(parameter.device, parameter.dtype)
    return tensor.to(reference.device, reference.dtype)


def unscale(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    """Return latents (1, channels, ..., height, width) as a network draws them, in the scale that `vae` decodes."""
    config = vae.config
    if getattr(config, "latents_mean", None) is not None:
        shape = (1, -1, *[1] * (latents.ndim - 2))
        mean, std = (latents.new_tensor(values).view(shape) for values in (config.latents_mean, config.latents_std))
        return latents * std + mean
    unscaled: torch.Tensor = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
    return unscaled


class BaseModel:
    """A flow-matching family with one denoiser. A subclass writes `encode`, `noise`, `predict` and `decode`."""

    exclusive = False

    def __init__(self, spec: ModelSpec, components: dict[str, Any]) -> None:
        self.spec, self.components = spec, components

    def stages(self) -> Sequence[Stage]:
        return [encode.text(self), encode.image(self), schedule.schedule(self), latents.latents(self)]

    def offload(self, device: torch.device) -> bool:
        """Return whether the model keeps its components off the device by itself; if not, the residency pass does."""
        return False

    def encode(self, state: State) -> None:
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

    def guide(self, state: State, cond: torch.Tensor, uncond: torch.Tensor | None) -> torch.Tensor:
        """Classifier-free guidance (Ho and Salimans, 2022): uncond + scale * (cond - uncond)."""
        if uncond is None:
            return cond
        scale = state.request.true_cfg_scale
        assert scale is not None
        return uncond + scale * (cond - uncond)

    def decode(self, state: State) -> None:
        raise TypeError(f"{type(self).__name__} must say how its latents are decoded")

    def grid(self, request: Request) -> tuple[int, int]:
        """Return the height and width that the network runs at: the size asked for, rounded up to the multiple."""
        assert request.height is not None and request.width is not None
        multiple = self.spec.multiple
        return -(-request.height // multiple) * multiple, -(-request.width // multiple) * multiple

    def clean(self, state: State, prediction: torch.Tensor) -> torch.Tensor:
        """Return the x0 prediction of a flow-matching network: x_t - sigma * velocity."""
        assert state.latents is not None
        sigma = state.scheduler.sigmas[state.scheduler.begin_index + state.step]
        clean: torch.Tensor = state.latents - sigma.to(state.latents) * prediction
        return clean

    def latent_image(self, state: State, latents: torch.Tensor) -> torch.Tensor:
        return unscale(latents, self.components["vae"])
