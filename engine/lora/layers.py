"""What adapters do to a live network: change its weights in place, or compute beside them; both are undone exactly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch.nn import functional

from engine import log
from engine.lora import blocks
from engine.lora.adapter import Adapter, Delta
from engine.lora.blocks import Packed

logger = log.get(__name__)
Change = tuple[Packed, float]  # an adapter, and its strength
# Share of the device's memory that must be left when copies of weights are kept there.
LEFT = 0.25
RIDDEN = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
COMPUTED = (torch.float32, torch.bfloat16, torch.float16)
CONVOLVE: Mapping[int, Any] = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}


class Layers(Protocol):
    """A network that takes adapters."""

    mode: str  # merged, or unmerged: beside the weights
    roomy: bool  # whether copies of weights may be on the device

    @property
    def kept(self) -> Mapping[str, int]:
        """Bytes of the copies of weights by kind of device."""

    def apply(self, changes: Sequence[Change]) -> None:
        """Have these adapters in effect, in this order, in place of any before; none restores the network."""

    def release(self) -> None:
        """Restore the network, and give back all memory that is kept to do so."""


@dataclass(frozen=True, slots=True)
class Term:
    """What an adapter adds to one parameter: `factor * up @ down`, or `factor * whole`."""

    factor: float
    up: torch.Tensor | None = None
    down: torch.Tensor | None = None
    whole: torch.Tensor | None = None

    def add_to(self, total: torch.Tensor) -> None:
        """Add it to a tensor in fp32."""
        if self.whole is not None:
            total.add_(self.whole.to(total), alpha=self.factor)
            return
        assert self.up is not None
        assert self.down is not None
        up, down = self.up.to(total).flatten(1), self.down.to(total).flatten(1)
        if total.dim() == 2:
            total.addmm_(up, down, alpha=self.factor)
        else:
            total.add_((up @ down).reshape(total.shape), alpha=self.factor)


class Merged:
    """Adapters merged into the weights of a network, which change in place; copies of what they were are kept.

    New weights are computed from the copies, on `device`, in fp32, and rounded once: what a set of adapters gives
    depends neither on the set before it nor on where the weights are at the moment.
    """

    mode = "merged"

    def __init__(self, network: torch.nn.Module, device: torch.device, pin: bool = True) -> None:
        self.network, self.device = network, device
        self.pin = pin and device.type == "cuda"
        self.copies: dict[torch.nn.Parameter, torch.Tensor] = {}
        self.changed: set[torch.nn.Parameter] = set()
        self.roomy = True

    def apply(self, changes: Sequence[Change]) -> None:
        self.put([(packed.on(self.device), strength) for packed, strength in changes])

    @torch.no_grad()
    def put(self, adapters: Sequence[tuple[Adapter, float]]) -> None:
        """Do what `apply` does, with adapters that are on the device."""
        terms = _terms(self.network, adapters)
        for parameter in self.changed - terms.keys():
            parameter.copy_(self.copies[parameter], non_blocking=True)
            self.changed.discard(parameter)
        self._keep([parameter for parameter in terms if parameter not in self.copies])
        for parameter, added in terms.items():
            total = self.copies[parameter].to(self.device, torch.float32, copy=True, non_blocking=True)
            for term in added:
                term.add_to(total)
            self.changed.add(parameter)
            parameter.copy_(total)

    def release(self) -> None:
        self.put(())
        self.copies.clear()

    @property
    def kept(self) -> dict[str, int]:
        found = defaultdict[str, int](int)
        for copy in self.copies.values():
            found[copy.device.type] += copy.numel() * copy.element_size()
        return dict(found)

    def _keep(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Copy weights as they are: on the device where it has the room, else to host memory."""
        there = [parameter for parameter in parameters if parameter.device.type != "cpu"]
        if not self._fits(there):
            there = []
        for parameter in there:
            self.copies[parameter] = parameter.detach().clone()
        rest = [parameter for parameter in parameters if parameter not in self.copies]
        for parameter, home in zip(rest, blocks.empty_like(rest, self.pin), strict=True):
            self.copies[parameter] = home.copy_(parameter.detach(), non_blocking=True)
        if there or rest:
            size = sum(map(_bytes, parameters)) / 2**30
            logger.debug("copies of %d weights, %.1f GiB: %s", len(parameters), size, self.kept)

    def _fits(self, parameters: Sequence[torch.nn.Parameter]) -> bool:
        if self.device.type != "cuda" or not self.roomy:
            return False
        free, total = torch.cuda.mem_get_info(self.device)
        free += torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return free - sum(map(_bytes, parameters)) >= LEFT * total


class Beside:
    """Adapters that compute beside a network's layers, whose weights stay as they are: quantized, or elsewhere.

    What is no linear layer or convolution, as the scale of a norm, is small, and is merged.
    """

    mode = "unmerged"

    def __init__(self, network: torch.nn.Module, device: torch.device, pin: bool = True) -> None:
        self.network, self.device = network, device
        self.rest = Merged(network, device, pin)
        self.roomy = self.rest.roomy = False  # what is merged is small
        self.hooks: list[Any] = []

    @torch.no_grad()
    def apply(self, changes: Sequence[Change]) -> None:
        for hook in self.hooks:
            hook.remove()
        self.hooks = []
        sides = defaultdict[str, list[tuple[Delta, float]]](list)
        rest = list[tuple[Adapter, float]]()
        for packed, strength in changes:
            adapter, left = packed.on(self.device), dict[str, Delta]()
            for path, delta in adapter.layers.items():
                if _may_ride(self.network.get_submodule(path)):
                    sides[path].append((delta, strength))
                else:
                    left[path] = delta
            rest.append((replace(adapter, layers=left), strength))
        self.rest.put(rest)
        for path, deltas in sides.items():
            module = self.network.get_submodule(path)
            self.hooks.append(module.register_forward_hook(_Side(module, deltas)))

    def release(self) -> None:
        self.apply(())
        self.rest.release()

    @property
    def kept(self) -> dict[str, int]:
        return self.rest.kept


class _Side:
    """A hook that adds to the output of a layer what adapters make of its input."""

    def __init__(self, module: torch.nn.Module, deltas: Iterable[tuple[Delta, float]]) -> None:
        dtype = next((weight.dtype for weight in module.parameters(False) if weight.dtype in COMPUTED), None)
        self.deltas = [(_cast(delta, dtype), strength) for delta, strength in deltas]

    def __call__(self, module: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        x = args[0]
        for delta, strength in self.deltas:
            if delta.down is not None and delta.up is not None:
                low = _through(module, x, delta.down.to(x.dtype))
                output = output.add(_across(low, delta.up.to(x.dtype)), alpha=strength * delta.scale)
            if delta.diff is not None:
                output = output.add(_through(module, x, delta.diff.to(x.dtype)), alpha=strength)
            if delta.bias is not None:
                shape = (-1, *(1 for _ in getattr(module, "kernel_size", ())))
                output = output.add(delta.bias.to(output.dtype).view(shape), alpha=strength)
        return output


def _cast(delta: Delta, dtype: torch.dtype | None) -> Delta:
    parts = (None if part is None else part.to(dtype or part.dtype) for part in (delta.down, delta.up, delta.diff))
    return Delta(**dict(zip(("down", "up", "diff"), parts, strict=True)), scale=delta.scale, bias=delta.bias)


def _through(module: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return what a layer with this weight and without a bias makes of its input."""
    if isinstance(module, torch.nn.Linear):
        return functional.linear(x, weight)
    result: torch.Tensor = module._conv_forward(x, weight, None)
    return result


def _across(low: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Return channels mixed from those of low rank."""
    if up.dim() == 2:
        return functional.linear(low, up)
    result: torch.Tensor = CONVOLVE[up.dim()](low, up)
    return result


def _may_ride(module: torch.nn.Module) -> bool:
    return isinstance(module, RIDDEN) and getattr(module, "groups", 1) == 1


def _terms(network: torch.nn.Module, adapters: Iterable[tuple[Adapter, float]]) -> dict[torch.nn.Parameter, list[Term]]:
    """Return what is added to each parameter; one that several modules share gets what each of them is to get."""
    found = defaultdict[torch.nn.Parameter, list[Term]](list)
    for adapter, strength in adapters:
        for path, delta in adapter.layers.items():
            module = network.get_submodule(path)
            if delta.up is not None:
                weight = module.get_parameter("weight")
                found[weight].append(Term(strength * delta.scale, delta.up, delta.down))
            if delta.diff is not None:
                found[module.get_parameter("weight")].append(Term(strength, whole=delta.diff))
            if delta.bias is not None:
                found[module.get_parameter("bias")].append(Term(strength, whole=delta.bias))
        for path, whole in adapter.parameters.items():
            found[network.get_parameter(path)].append(Term(strength, whole=whole))
    return dict(found)


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
