"""Which components live on the device, which only while they are used, and which are streamed: decided once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
GB = 1e9
# Blocks of a denoiser that stay where streaming was asked for: with activations and a decode of 1024x1024, under 8 GB.
STAYING = 2 * GB


@dataclass(frozen=True, slots=True)
class Plan:
    """Components in host memory between uses, components streamed, and the bytes of their blocks that may stay."""

    offloaded: frozenset[str] = frozenset()
    streamed: frozenset[str] = frozenset()
    staying: float = STAYING

    def of_stock(self, vae: Any) -> Plan:
        """The same for a stock pipeline, which uses all components in one call: diffusers cannot mix the two kinds.

        In half precision it casts its VAE to fp32 for a decode, which streaming would undo: that one stays.
        """
        casts = vae is not None and vae.dtype is torch.float16 and getattr(vae.config, "force_upcast", False)
        return Plan(frozenset(), (self.streamed | self.offloaded) - ({"vae"} if casts else set()), self.staying)


def at_home(sizes: Mapping[str, int], config: EngineConfig, device: torch.device) -> frozenset[str]:
    """Return which components are best loaded into host memory, from what their files say about their sizes."""
    decided = _decide(sizes, config, device, _free_bytes(device))
    return decided.offloaded | decided.streamed


def plan(components: Mapping[str, Any], config: EngineConfig, device: torch.device) -> Plan:
    """Return what the settings say, and in `auto` mode what does not fit; each choice is logged with its reason."""
    modules = {name: part for name, part in components.items() if isinstance(part, torch.nn.Module)}
    sizes = {name: size_of(part) for name, part in modules.items()}
    free = _free_bytes(device) + sum(size_of(part, device) for part in modules.values())
    asked, decided = _asked(sizes, config), _decide(sizes, config, device, free)
    if device.type == "cpu" and asked != Plan():
        logger.info("offload has no effect: the model runs on the CPU, where its weights are")
    need = _peak(sizes, asked)
    for name in sorted((decided.offloaded | decided.streamed) - asked.offloaded - asked.streamed):
        _tell(name, name in decided.streamed, config, need, free * WEIGHTS_SHARE)
    chosen = [modules[name] for name in decided.streamed - asked.streamed if name.startswith(DENOISERS)]
    if not chosen:
        return decided
    left = free * WEIGHTS_SHARE - _peak(sizes, decided) - max(map(layerwise.in_flight, chosen))
    return Plan(decided.offloaded, decided.streamed, max(0.0, left))


def _asked(names: Iterable[str], config: EngineConfig) -> Plan:
    """Return what the settings say."""
    streamed = layerwise.asked(config, names)
    return Plan(frozenset(name for name in names if name not in streamed and _explicit(name, config)), streamed)


def _decide(sizes: Mapping[str, int], config: EngineConfig, device: torch.device, free: float) -> Plan:
    """Return what the settings say and, where they leave it open, what it takes to fit into `free` bytes."""
    if device.type == "cpu":
        return Plan()
    asked = _asked(sizes, config)
    if config.performance_mode in ("manual", "speed"):
        return asked
    return _fit(sizes, asked, free * WEIGHTS_SHARE, config)


def _fit(sizes: Mapping[str, int], asked: Plan, budget: float, config: EngineConfig) -> Plan:
    """Return the plan with as many components off the device as it takes to fit; what was asked for stays.

    What is used once per request goes first, what is used in every step last. A component that is too large by itself
    is streamed.
    """
    free = {name for name in sizes if name not in asked.streamed and _explicit(name, config) is None}
    groups = [group & free for group in _in_order(sizes)]
    offloaded, streamed = set(asked.offloaded), set(asked.streamed)

    def peak() -> int:
        return _peak(sizes, Plan(frozenset(offloaded), frozenset(streamed)))

    for group in groups:
        if config.performance_mode == "memory" or peak() > budget:
            offloaded |= group
    for held in sorted(_together(sizes), key=lambda names: -sum(sizes[name] for name in names & offloaded)):
        if peak() > budget:
            moved = {name for name in held & offloaded & free if _may_stream(name, config)}
            streamed |= moved
            offloaded -= moved
    if any(name.startswith(DENOISERS) for name in streamed - asked.streamed):
        # Room is best used for its blocks: streamed, an encoder that runs once takes none, and hardly more time.
        once = {name for name in offloaded & free if name.startswith("text_encoder") and _may_stream(name, config)}
        streamed |= once
        offloaded -= once
    elif config.performance_mode == "auto":  # beside something that is streamed others may fit again
        for group in reversed(groups):
            back = group & offloaded
            offloaded -= back
            if peak() > budget:
                offloaded |= back
    return Plan(frozenset(offloaded), frozenset(streamed))


def _in_order(names: Iterable[str]) -> tuple[set[str], set[str], set[str]]:
    """Return encoders, others and denoisers: those first that are missed least on the device."""
    encoders = {name for name in names if name.startswith(ENCODERS)}
    denoisers = {name for name in names if name.startswith(DENOISERS)}
    return encoders, set(names) - encoders - denoisers, denoisers


def _together(names: Iterable[str]) -> list[set[str]]:
    """Return which components are used at once: all text encoders, one denoiser, all others."""
    encoders, others, denoisers = _in_order(names)
    return [encoders, others, *({name} for name in sorted(denoisers))]


def _peak(sizes: Mapping[str, int], plan: Plan) -> int:
    """Return the most bytes of whole components that are on the device at once."""
    resident = sum(size for name, size in sizes.items() if name not in plan.offloaded | plan.streamed)
    return resident + max(sum(sizes[name] for name in names & plan.offloaded) for names in _together(sizes))


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


def _free_bytes(device: torch.device) -> float:
    if device.type != "cuda":
        return float("inf")
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached
