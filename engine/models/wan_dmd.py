"""The few steps of a model distilled by distribution matching (Yin et al., 2024), behind a scheduler's interface."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.utils.torch_utils import randn_tensor

TIMESTEPS = (1000, 757, 522)  # those that FastWan was distilled for
TRAINED = 1000


class DMDScheduler:
    """Each step predicts the clean latents and, but for the last, noises them afresh to the next timestep.

    Belongs to one run: the fresh noise comes from the run's `generator`.
    """

    order = 1

    def __init__(self, shift: float, generator: torch.Generator) -> None:
        self.config = SimpleNamespace(num_train_timesteps=TRAINED, shift=shift)
        self.generator = generator
        self.begin_index = self.index = 0

    def set_timesteps(self, steps: int, device: torch.device) -> None:
        """Take the first `steps` of the timesteps, each with the noise level of its nearest neighbour in training."""
        wanted = torch.tensor(TIMESTEPS[:steps])
        trained = FlowMatchEulerDiscreteScheduler(num_train_timesteps=TRAINED, shift=self.config.shift)
        nearest = (trained.timesteps[None] - wanted[:, None]).abs().argmin(dim=1)
        self.timesteps = wanted.to(device)
        self.sigmas = torch.cat([trained.sigmas[nearest].cpu(), torch.zeros(1)])  # on the CPU: no step waits for it

    def set_begin_index(self, index: int) -> None:
        self.begin_index = self.index = index

    def step(
        self, prediction: torch.Tensor, timestep: Any, latents: torch.Tensor, return_dict: bool = False
    ) -> tuple[torch.Tensor]:
        """Return the latents of the next timestep, in fp32, in a tuple."""
        sigma, following = self.sigmas[self.index], self.sigmas[self.index + 1]
        self.index += 1
        clean = latents.float() - sigma * prediction.float()
        if self.index == len(self.timesteps):
            return (clean,)
        noise = randn_tensor(clean.shape, generator=self.generator, device=clean.device, dtype=clean.dtype)
        return ((1 - following) * clean + following * noise,)
