"""Casts between the components of a stock pipeline that were loaded in different precisions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


@contextmanager
def casting(networks: Iterable[torch.nn.Module], vae: torch.nn.Module | None) -> Iterator[None]:
    """Let denoisers and a VAE take what reaches them in their own dtype; each component computes in its precision.

    A region of torch.autocast would also lower the precision of text encoders and of the VAE's decoder, which somebody
    asked to be higher, and cannot raise one.
    """
    with ExitStack() as undo:
        for network in networks:
            undo.callback(network.register_forward_pre_hook(_cast_inputs, with_kwargs=True).remove)
        for name in ("encode", "decode"):
            if hasattr(vae, name):
                undo.enter_context(_casting_method(vae, name))
        yield


def _cast_inputs(network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return _cast(args, network.dtype), _cast(kwargs, network.dtype)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Cast the floating-point tensors in `value`, except numbers and vectors: timesteps need their digits."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() and value.ndim > 1 else value
    if isinstance(value, dict):
        return {key: _cast(entry, dtype) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_cast(entry, dtype) for entry in value)
    return value


@contextmanager
def kept(vae: Any) -> Iterator[None]:
    """Leave a VAE in the precision it was loaded in.

    Stock pipelines raise one with `force_upcast` to fp32 and then put it into the precision of the text, of which fp32
    weights would come back rounded; after a cancel they leave it raised.
    """
    if vae is None:
        yield
        return
    dtype = vae.dtype
    lowered = dtype is torch.float32 and vae.config.get("force_upcast", False)
    if lowered:
        vae.register_to_config(force_upcast=False)
    try:
        yield
    finally:
        if lowered:
            vae.register_to_config(force_upcast=True)
        if vae.dtype is not dtype:
            vae.to(dtype)


@contextmanager
def _casting_method(vae: Any, name: str) -> Iterator[None]:
    method: Callable[..., Any] = getattr(vae, name)

    def cast(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return method(tensor.to(vae.dtype), *args, **kwargs)  # read now: some pipelines raise it for the decoder

    setattr(vae, name, cast)
    try:
        yield
    finally:
        delattr(vae, name)
