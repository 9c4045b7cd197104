"""The one seam for attention: handles on a network's processors, and a router that serves them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from engine import log
from engine.attention import dense
from engine.errors import UsageError

logger = log.get(__name__)

Attend = Callable[..., torch.Tensor]
BACKENDS: dict[str, Attend] = {"torch_sdpa": dense.torch_sdpa, "torch_cudnn_sdpa": dense.torch_cudnn_sdpa}


@dataclass(frozen=True, slots=True)
class Handle:
    """What an attention processor of ours carries in the place where diffusers keeps a backend name."""

    backend: str
    attend: Attend
    masked: bool = True


def install(network: torch.nn.Module, backend: str, masked: bool = True) -> None:
    """Send every attention call of `network` through `backend`; other networks of its class are untouched.

    Unless `masked`, the masks that it passes hide nothing, and are left out: kernels without a mask serve it too.
    """
    module = sys.modules[type(network).__module__]
    if not hasattr(module, "dispatch_attention_fn"):  # an older network, which calls torch's kernels itself
        if backend != "torch_sdpa":
            logger.warning("attention_backend: %s has no effect on %s", backend, type(network).__name__)
        return
    _route(module)
    handle = Handle(backend, BACKENDS[backend], masked)
    for processor in _processors(network):
        processor._attention_backend = handle


def install_stock(network: Any, backend: str) -> None:
    """Let diffusers' own dispatch use one of its backends for `network`. Raises UsageError when it cannot."""
    if backend == "native":
        return
    try:
        network.set_attention_backend(backend)
    except (ValueError, RuntimeError, ImportError) as error:
        raise UsageError(f"diffusers_attention_backend: {error}", param="diffusers_attention_backend") from error


def remove(network: torch.nn.Module) -> None:
    """Give `network` back to diffusers' own dispatch."""
    for processor in _processors(network):
        processor._attention_backend = None


def _processors(network: torch.nn.Module) -> Iterator[Any]:
    for module in network.modules():
        processor = getattr(module, "processor", None)
        if processor is not None and hasattr(processor, "_attention_backend"):
            yield processor


def _route(module: Any) -> None:
    """Put the router in place of the dispatch function that a network's module imported, once."""
    original = module.dispatch_attention_fn
    if getattr(original, "serves_handles", False):
        return

    def router(query: Any, key: Any, value: Any, *args: Any, backend: Any = None, **kwargs: Any) -> torch.Tensor:
        if isinstance(backend, Handle):
            kwargs.pop("parallel_config", None)  # the mesh is the handle's matter
            if not backend.masked:
                kwargs["attn_mask"] = None
            return backend.attend(query, key, value, *args, **kwargs)
        result: torch.Tensor = original(query, key, value, *args, backend=backend, **kwargs)
        return result

    router.serves_handles = True  # type: ignore[attr-defined]
    module.dispatch_attention_fn = router
