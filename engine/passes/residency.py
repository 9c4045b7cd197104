"""Which components live on the device, which only while they are used, and which are streamed through it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from engine import log
from engine.config import EngineConfig
from engine.passes import layerwise
from engine.passes.layerwise import size_of
from engine.passes.precision import DENOISERS, ENCODERS

logger = log.get(__name__)

# Share of the free memory that weights may take; the rest is for activations and the allocator's own slack.
WEIGHTS_SHARE = 0.8
ROOM_SHARE = 0.9
GB = 1e9
# Blocks of a denoiser that stay where streaming was asked for: with activations and a decode of 1024x1024, under 8 GB.
STAYING = 2 * GB


@dataclass(frozen=True, slots=True)
class Plan:
    """Components in host memory between uses, components streamed, and the bytes of their blocks that may stay."""

    offloaded: frozenset[str] = frozenset()
    streamed: frozenset[str] = frozenset()
    staying: float = STAYING

    def only_streamed(self) -> Plan:
        """The same for a stock pipeline, which uses all components in one call: diffusers cannot mix the two kinds."""
        return Plan(frozenset(), self.streamed | self.offloaded, self.staying)


class Residency:
    """Moves offloaded components to the device when a stage uses them, and out when another one needs the room."""

    def __init__(self, components: Mapping[str, Any], device: torch.device, plan: Plan, pin: bool = True) -> None:
        self.device = device
        modules = {name: part for name, part in components.items() if isinstance(part, torch.nn.Module)}
        pinned = pin and device.type == "cuda"
        layerwise.apply(
            {name: part for name, part in modules.items() if name in plan.streamed},
            device,
            pin=pinned,
            room=plan.staying,
        )
        self.offloaded = {name: Parked(modules[name], pinned) for name in sorted(plan.offloaded) if name in modules}
        for name, module in modules.items():
            if name not in plan.streamed and name not in self.offloaded:
                module.to(device)
        self.resident_bytes = sum(_on(device, part) for name, part in modules.items() if name not in self.offloaded)

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
        for name, parked in self.offloaded.items():
            if name not in names:
                parked.leave()
        for name in names:
            if name in self.offloaded:
                self.offloaded[name].enter(self.device)
        yield


class Parked:
    """A component whose weights are at home in host memory; the device has a copy of them while it is used.

    Nothing is copied back when it leaves, but for weights that changed in place meanwhile (not through `.data`).
    """

    def __init__(self, module: torch.nn.Module, pin: bool) -> None:
        self.module = module
        self.away: list[tuple[torch.Tensor, torch.Tensor, tuple[int, int]]] | None = None
        # Quantized weights keep their parts in attributes of their own, which only `to` knows.
        self.plain = all(type(tensor) in (torch.Tensor, torch.nn.Parameter) for tensor in _tensors(module))
        self.pinned = pin and self.plain
        self._come_home()

    def enter(self, device: torch.device) -> None:
        """Copy the weights to the device. A failure, as of memory, leaves all of them at home."""
        if self.away is not None:
            return
        if not self.plain:
            self.module.to(device)
            self.away = []
            return
        copy = _once(lambda tensor: tensor.to(device, non_blocking=True, copy=True))
        moved = [(tensor, tensor.data, copy(tensor.data)) for tensor in _tensors(self.module)]
        for tensor, _, there in moved:
            tensor.data = there
        self.away = [(tensor, home, _state(tensor)) for tensor, home, _ in moved]

    def leave(self) -> None:
        """Point the weights at their home again, which frees the device's copy."""
        if self.away is None:
            return
        for tensor, home, before in self.away:
            if _state(tensor) != before:
                home.copy_(tensor.data)
            tensor.data = home
        self.away = None
        self._come_home()

    def _come_home(self) -> None:
        """Bring what is elsewhere, as parameters that were added on the device, to host memory, page-locked."""
        if not self.plain:
            self.module.to("cpu")
            return
        home = _once(self._home)
        for tensor in _tensors(self.module):
            tensor.data = home(tensor.data)

    def _home(self, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.to("cpu")
        if not self.pinned or tensor.is_pinned():
            return tensor
        try:
            return tensor.pin_memory()
        except RuntimeError as error:
            self.pinned = False
            logger.warning("page-locked memory is used up, offload goes on slower without it: %s", error)
            return tensor


def plan(components: Mapping[str, Any], config: EngineConfig, device: torch.device) -> Plan:
    """Return what the settings say, and in `auto` mode what does not fit; each choice is logged with its reason."""
    sizes = {name: size_of(part) for name, part in components.items() if isinstance(part, torch.nn.Module)}
    streamed = layerwise.asked(config, sizes)
    explicit = {name: _explicit(name, config) for name in sizes if name not in streamed}
    offloaded = {name for name, wanted in explicit.items() if wanted}
    if device.type == "cpu":
        if streamed | offloaded:
            logger.info("offload has no effect: the model runs on the CPU, where its weights are")
        return Plan()
    asked = Plan(frozenset(offloaded), frozenset(streamed))
    if config.performance_mode in ("manual", "speed"):
        return asked
    free = [name for name, wanted in explicit.items() if wanted is None]
    loaded = sum(_on(device, components[name]) for name in sizes)
    budget = (_free_bytes(device) + loaded) * WEIGHTS_SHARE
    need = _peak({name: size for name, size in sizes.items() if name not in streamed}, offloaded)
    fitted = _fit(sizes, asked, free, budget, config)
    for name in sorted((fitted.offloaded | fitted.streamed) - offloaded - streamed):
        _tell(name, name in fitted.streamed, config, need, budget)
    denoisers = [components[name] for name in fitted.streamed - streamed if name.startswith(DENOISERS)]
    if not denoisers:
        return fitted
    rest = {name: size for name, size in sizes.items() if name not in fitted.streamed}
    left = budget - _peak(rest, fitted.offloaded) - max(map(layerwise.in_flight, denoisers))
    return Plan(fitted.offloaded, fitted.streamed, max(0.0, left))


def _fit(sizes: Mapping[str, int], asked: Plan, free: Collection[str], budget: float, config: EngineConfig) -> Plan:
    """Return the plan with as many of the `free` components off the device as it takes to fit.

    What is used once per request goes first, what is used in every step last. A component that is too large by itself
    is streamed.
    """
    sizes = {name: size for name, size in sizes.items() if name not in asked.streamed}
    offloaded, streamed = set(asked.offloaded), set(asked.streamed)
    groups = [set(group) & set(free) for group in _in_order(sizes)]
    for group in groups:
        if config.performance_mode == "memory" or _peak(sizes, offloaded) > budget:
            offloaded |= group
    streams = {name for name in offloaded & set(free) if _may_stream(name, config)}
    while (held := max(_together(sizes), key=lambda names: _held(sizes, names, offloaded), default=set())) & streams:
        if _peak(sizes, offloaded) <= budget:
            break
        streamed |= held & streams
        offloaded -= streamed
        sizes = {name: size for name, size in sizes.items() if name not in streamed}
    # Beside something that is streamed others may fit again; but room is better used for blocks of a denoiser.
    if config.performance_mode == "auto" and not any(name.startswith(DENOISERS) for name in streamed):
        for group in reversed(groups):
            if _peak(sizes, offloaded - group) <= budget:
                offloaded -= group
    return Plan(frozenset(offloaded), frozenset(streamed))


def _in_order(names: Iterable[str]) -> list[list[str]]:
    """Return components in groups, those first that are missed least on the device."""
    kinds: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for name in names:
        kinds[0 if name.startswith(ENCODERS) else 2 if name.startswith(DENOISERS) else 1].append(name)
    return list(kinds.values())


def _together(names: Iterable[str]) -> list[set[str]]:
    """Return which components are used at once: all text encoders, one denoiser, all others."""
    encoders, others, denoisers = _in_order(names)
    return [set(encoders), set(others), *({name} for name in denoisers)]


def _held(sizes: Mapping[str, int], names: Iterable[str], offloaded: Collection[str]) -> int:
    return sum(sizes[name] for name in names if name in offloaded)


def _peak(sizes: Mapping[str, int], offloaded: Collection[str]) -> int:
    """Return the most bytes of weights that are on the device at once."""
    resident = sum(size for name, size in sizes.items() if name not in offloaded)
    return resident + max((_held(sizes, names, offloaded) for names in _together(sizes)), default=0)


def _may_stream(name: str, config: EngineConfig) -> bool:
    if name.startswith(DENOISERS):
        return config.dit_layerwise_offload is None
    return config.layerwise_offload_components is None


def _tell(name: str, streamed: bool, config: EngineConfig, need: float, budget: float) -> None:
    what = "is streamed from host memory by layer" if streamed else "is kept in host memory between uses"
    reason = f"the weights take {need / GB:.1f} GB of the {budget / GB:.1f} GB that are for them on the device"
    if config.performance_mode == "memory" and not streamed:
        reason = "performance_mode is memory"
    logger.info("%s %s: %s", name, what, reason)


def _explicit(name: str, config: EngineConfig) -> bool | None:
    if name.startswith(ENCODERS):
        return config.text_encoder_cpu_offload
    if name.startswith("vae"):
        return config.vae_cpu_offload
    if name.startswith("image_encoder"):
        return config.image_encoder_cpu_offload
    return config.dit_cpu_offload


def _tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _state(tensor: torch.Tensor) -> tuple[int, int]:
    """Return what is different after a tensor was written to or given other memory."""
    return tensor.data_ptr(), tensor._version


def _once(make: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return `make` that answers tensors of the same memory with one result: tied weights stay tied."""
    made: dict[Any, torch.Tensor] = {}

    def once(tensor: torch.Tensor) -> torch.Tensor:
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
        if not tensor.data_ptr():  # nothing in it, or nowhere
            return make(tensor)
        if key not in made:
            made[key] = make(tensor)
        return made[key]

    return once


def _on(device: torch.device, module: torch.nn.Module) -> int:
    return sum(
        tensor.numel() * tensor.element_size() for tensor in _tensors(module) if tensor.device.type == device.type
    )


def _free_bytes(device: torch.device) -> float:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")
