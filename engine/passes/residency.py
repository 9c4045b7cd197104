"""Where weights live while a model runs: on the device, in host memory between uses, or streamed through it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from engine import log
from engine.passes import layerwise
from engine.passes.layerwise import size_of
from engine.passes.placement import Plan

logger = log.get(__name__)

# Share of the device's memory that a run may count on; the rest is the allocator's own slack.
ROOM_SHARE = 0.9


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
        self.resident_bytes = sum(size_of(part, device) for name, part in modules.items() if name not in self.offloaded)

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
