"""Streams weights to the device while a component runs, a block or a layer at a time: diffusers' group offloading."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from engine.config import EngineConfig
from engine.errors import UsageError, listed
from engine.passes.precision import DENOISERS, ENCODERS, WITHOUT_WEIGHTS

if TYPE_CHECKING:
    import torch

DEFAULT = "default"  # of --layerwise-offload-components: encoders and VAE
DEFAULT_PARTS = (*ENCODERS, "image_encoder", "vae")
# VAEs of video pass these to their layers and fill them there: a copy, which the hooks would hand on, stays empty.
FILLED_IN_PLACE = ("feat_cache", "feat_idx")


def check(config: EngineConfig, names: Iterable[str]) -> None:
    """Raise UsageError when the settings of offload contradict each other, or name a component that is not there."""
    if config.dit_cpu_offload and config.dit_layerwise_offload:
        raise UsageError("dit_layerwise_offload: excludes dit_cpu_offload; give one of them", param="dit_cpu_offload")
    known = sorted(name for name in names if not name.startswith(WITHOUT_WEIGHTS))
    for name in config.layerwise_offload_components or ():
        if name not in (DEFAULT, *known):
            message = f"layerwise_offload_components: must be among {listed((DEFAULT, *known))}, got '{name}'"
            raise UsageError(message, param="layerwise_offload_components")


def asked(config: EngineConfig, names: Iterable[str]) -> frozenset[str]:
    """Return those components that the settings say to stream."""
    wanted = config.layerwise_offload_components or ()
    prefixes = (DEFAULT_PARTS if DEFAULT in wanted else ()) + (DENOISERS if config.dit_layerwise_offload else ())
    return frozenset(name for name in names if name in wanted or name.startswith(prefixes))


def apply(components: Mapping[str, Any], device: torch.device, *, pin: bool = True, room: float = 0.0) -> None:
    """Put hooks on components that bring weights to `device` just before they are used and drop them afterwards.

    Denoisers go by block, the others by layer. Of the blocks, `room` bytes in all stay on the device. On CUDA the next
    block is copied while one computes. Without `pin`, weights are page-locked only while they are under way.
    Weights may change in place between two forward passes; after parameters came or went, apply it again.
    """
    denoisers = [name for name in components if name.startswith(DENOISERS)]
    for name, component in components.items():
        remove(component)
        if name in denoisers and _lists(component):
            _by_block(component, device, pin, room / len(denoisers))
        elif name.startswith("vae"):
            _by_part(component, device, pin)
        else:
            _stream(component, device, pin, offload_type="leaf_level")


def remove(component: torch.nn.Module) -> None:
    """Take the hooks off again; the weights stay where they are."""
    from diffusers.hooks import HookRegistry

    registry = HookRegistry.check_if_exists_or_initialize(component)
    for hook in ("group_offloading", "layer_execution_tracker", "lazy_prefetch_group_offloading"):
        registry.remove_hook(hook, recurse=True)


def in_flight(network: torch.nn.Module) -> int:
    """Return the bytes of a streamed denoiser that are on the device besides those that stay: a block and the next."""
    return 2 * max((size_of(block) for blocks in _lists(network).values() for block in blocks), default=0)


def size_of(module: torch.nn.Module, device: torch.device | None = None) -> int:
    """Return the bytes of a module's parameters and buffers, or of those on a device; what is shared counts once."""
    tensors = (tensor for part in (module.parameters, module.buffers) for tensor in part())
    here = (tensor for tensor in tensors if device is None or tensor.device.type == device.type)
    return sum(tensor.numel() * tensor.element_size() for tensor in here)


def _stream(module: torch.nn.Module, device: torch.device, pin: bool, **options: Any) -> None:
    from diffusers.hooks import apply_group_offloading

    # Its warning is about layers that the first pass skips: when one is used later, it is brought without being ahead.
    logging.getLogger("diffusers.hooks.group_offloading").setLevel(logging.ERROR)
    with_stream = device.type == "cuda"  # of CUDA alone is it known that copies overlap with computing
    skipped = {*(getattr(module, "_skip_keys", None) or ()), *FILLED_IN_PLACE}
    # Recording streams instead of waiting for them would let copies run ahead of the computing, and fill the device.
    apply_group_offloading(
        module, device, use_stream=with_stream, low_cpu_mem_usage=not pin, exclude_kwargs=sorted(skipped), **options
    )


def _by_block(network: torch.nn.Module, device: torch.device, pin: bool, room: float) -> None:
    """Stream the blocks of a denoiser. What is around them is small and stays on the device, where callers look."""
    from diffusers.hooks import HookRegistry

    lists = _lists(network)
    staying = _staying([block for blocks in lists.values() for block in blocks], room)
    with _hidden(network, staying):
        _stream(network, device, pin, offload_type="block_level", num_blocks_per_group=1)
    hook = HookRegistry.check_if_exists_or_initialize(network).get_hook("group_offloading")
    if hook is not None:
        # It would copy what is around the blocks to the device and back in every step, without a stream.
        hook.group.modules, hook.group.parameters, hook.group.buffers = [], [], []
    _place([*(child for name, child in network.named_children() if name not in lists), *staying], device)
    _place_own(network, device)


def _by_part(vae: torch.nn.Module, device: torch.device, pin: bool) -> None:
    """Stream encoder and decoder each by itself: a VAE is called by its `encode` and `decode`, which no hook sees."""
    for part in vae.children():
        if any(True for _ in part.children()):
            _stream(part, device, pin, offload_type="leaf_level")
        else:
            _place([part], device)
    _place_own(vae, device)


def _lists(network: torch.nn.Module) -> dict[str, Any]:
    """Return the lists of blocks of a network, as diffusers sees them."""
    import torch

    kinds = (torch.nn.ModuleList, torch.nn.Sequential)
    return {name: child for name, child in network.named_children() if isinstance(child, kinds)}


def _staying(blocks: list[torch.nn.Module], room: float) -> list[torch.nn.Module]:
    """Return blocks of at most `room` bytes, the first one and others evenly spread.

    While one of them computes, the next that does not stay has more time to arrive.
    """
    share = room / max(1, sum(map(size_of, blocks)))
    staying, kept, seen = [], 0, 0
    for block in blocks:
        size = size_of(block)
        if kept <= share * seen and kept + size <= room:
            staying.append(block)
            kept += size
        seen += size
    return staying


@contextmanager
def _hidden(network: torch.nn.Module, blocks: Collection[torch.nn.Module]) -> Iterator[None]:
    """Have a network's lists without some of their blocks."""
    import torch

    lists, hidden = _lists(network), set(map(id, blocks))
    try:
        for name, whole in lists.items():
            setattr(network, name, torch.nn.ModuleList(block for block in whole if id(block) not in hidden))
        yield
    finally:
        for name, whole in lists.items():
            setattr(network, name, whole)


def _place(modules: Iterable[torch.nn.Module], device: torch.device) -> None:
    for module in modules:
        module.to(device)


def _place_own(module: torch.nn.Module, device: torch.device) -> None:
    """Move the parameters and buffers that belong to a module itself and to none of its parts."""
    for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        tensor.data = tensor.data.to(device)
