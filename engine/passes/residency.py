"""Which components live on the device, and which only while they are used."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from engine import log
from engine.config import EngineConfig

logger = log.get(__name__)

# Share of the free memory that weights may take; the rest is for activations and the allocator's own slack.
WEIGHTS_SHARE = 0.8
ROOM_SHARE = 0.9


class Residency:
    """Moves offloaded components to the device when a stage uses them, and out when another one needs the room."""

    def __init__(self, components: Mapping[str, Any], device: torch.device, offloaded: Collection[str]) -> None:
        self.device = device
        self.offloaded = {name: components[name] for name in sorted(offloaded) if name in components}
        self.resident_bytes = 0
        for name, component in components.items():
            if isinstance(component, torch.nn.Module) and name not in self.offloaded:
                component.to(device)
                self.resident_bytes += _bytes(component)

    @property
    def room(self) -> float:
        """Bytes of device memory that weights leave to a run. The same for every run, so that pixels are too."""
        if self.device.type != "cuda":
            return float("inf")
        return torch.cuda.get_device_properties(self.device).total_memory * ROOM_SHARE - self.resident_bytes

    @property
    def exclusive(self) -> bool:
        """Whether two runs would push each other's components off the device."""
        return bool(self.offloaded)

    @contextmanager
    def hold(self, names: Collection[str]) -> Iterator[None]:
        """Have the named components on the device; what is offloaded and not named leaves it first."""
        for name, component in self.offloaded.items():
            if name not in names:
                component.to("cpu")
        for name in names:
            if name in self.offloaded:
                self.offloaded[name].to(self.device)
        yield


def plan(components: Mapping[str, Any], config: EngineConfig, device: torch.device) -> set[str]:
    """Return the names of the components to offload: what the flags say, and in `auto` mode what does not fit."""
    modules = {name: part for name, part in components.items() if isinstance(part, torch.nn.Module)}
    explicit = {name: _explicit(name, config) for name in modules}
    chosen = {name for name, wanted in explicit.items() if wanted}
    if device.type == "cpu" or config.performance_mode in ("manual", "speed"):
        return chosen if device.type != "cpu" else set()
    free_to_choose = [name for name, wanted in explicit.items() if wanted is None]
    if config.performance_mode == "memory":
        return chosen | set(free_to_choose)
    budget = _free_bytes(device) * WEIGHTS_SHARE
    # Text encoders first: they are used once per request, the denoiser in every step.
    for name in sorted(free_to_choose, key=lambda entry: (not entry.startswith("text_encoder"), entry)):
        if sum(_bytes(part) for other, part in modules.items() if other not in chosen) <= budget:
            break
        chosen.add(name)
        logger.info("%s is kept in host memory between uses: the weights do not fit on the device together", name)
    return chosen


def _explicit(name: str, config: EngineConfig) -> bool | None:
    if name.startswith("text_encoder"):
        return config.text_encoder_cpu_offload
    if name == "vae":
        return config.vae_cpu_offload
    if name == "image_encoder":
        return config.image_encoder_cpu_offload
    return config.dit_cpu_offload


def _bytes(module: torch.nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def _free_bytes(device: torch.device) -> float:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")
