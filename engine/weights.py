"""Modules that take no memory yet, and safetensors files read into them, straight to the device."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights

from engine.errors import listed

# Four threads that read from the page cache are as fast as the bus; each has two buffers of page-locked memory.
READERS = 4
BUFFER = 16 * 2**20
TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def is_diffusers(cls: Any) -> bool:
    """Say whether a class of modules is one of diffusers; else it is one of transformers."""
    return hasattr(cls, "load_config")


def config_of(cls: Any, folder: Path) -> Any:
    """Return the config of a component's folder: a mapping for a class of diffusers, else an object."""
    if is_diffusers(cls):
        return cls.load_config(folder, local_files_only=True)
    return cls.config_class.from_pretrained(folder, local_files_only=True)


def skeleton(cls: Any, config: Any, dtype: torch.dtype) -> torch.nn.Module:
    """Build a module whose parameters take no memory; its buffers are computed, on the CPU.

    Some families keep tables in buffers that are not saved, or in plain attributes: these must be real from the start.
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with init_empty_weights(include_buffers=False):
            module: torch.nn.Module = cls.from_config(config) if is_diffusers(cls) else cls(config)
    finally:
        torch.set_default_dtype(default)
    if not is_diffusers(cls):
        module.tie_weights()  # type: ignore[operator]
    return module


def dtypes(module: torch.nn.Module, dtype: torch.dtype) -> Callable[[str], torch.dtype]:
    """Return in which precision each parameter is kept; a library keeps parts of some modules in fp32."""
    kept: set[str] = set()
    if dtype != torch.float32:
        kept |= set(getattr(module, "_keep_in_fp32_modules_strict", None) or ())
        if is_diffusers(type(module)) or dtype == torch.float16:
            kept |= set(getattr(module, "_keep_in_fp32_modules", None) or ())
    return lambda name: torch.float32 if kept & set(name.split(".")) else dtype


def fill(module: torch.nn.Module, place: torch.device, make: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    """Put `make(name, empty)` in the place of each parameter of a skeleton, once for tied ones; move its buffers."""
    done: dict[int, torch.nn.Parameter] = {}
    for prefix, part in module.named_modules():
        for name, empty in part._parameters.items():
            if empty is None:
                continue
            if id(empty) not in done:
                full = f"{prefix}.{name}" if prefix else name
                done[id(empty)] = torch.nn.Parameter(make(full, empty), requires_grad=False)
            part._parameters[name] = done[id(empty)]
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else buffer.to(place)


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


def stored(place: Path) -> dict[str, Stored] | None:
    """Return the tensors of a safetensors file or of a component's folder by name; None where it is laid out otherwise.

    Raises ValueError for a file that is no safetensors, OSError for one that cannot be read.
    """
    found = files(place)
    if found is None:
        return None
    return {name: tensor for path in found for name, tensor in _header(path)}


def check(place: Path) -> None:
    """Raise ValueError for files, of any precision, that are cut or no safetensors; OSError for one that is missing."""
    for path in files(place) or ():
        for _ in _entries(path):
            pass


def files(place: Path) -> list[Path] | None:
    """Return the safetensors files that make up a component; None where they are laid out otherwise."""
    there = [place] if place.is_file() else sorted(place.glob("*.safetensors"))
    indexes = [] if place.is_file() else list(place.glob("*.safetensors.index.json"))
    if len(indexes) == 1:
        names = json.loads(indexes[0].read_text(encoding="utf-8"))["weight_map"].values()
        return [place / name for name in sorted(set(names))]
    return there if len(there) == 1 else None


def _header(path: Path) -> Iterator[tuple[str, Stored]]:
    for name, kind, shape, start, end in _entries(path):
        if kind not in TYPES:
            raise ValueError(f"{path} holds {kind}, which cannot be read here; known: {listed(TYPES)}")
        if end - start != math.prod(shape) * TYPES[kind].itemsize:
            raise ValueError(f"{path} is damaged: the size of '{name}' is not that of its shape")
        yield name, Stored(path, TYPES[kind], shape, start, end)


def _entries(path: Path) -> Iterator[tuple[str, str, tuple[int, ...], int, int]]:
    """Yield name, precision, shape and the range of bytes of each tensor that the header of a file tells of."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or 8 + length > size:
            raise ValueError(f"{path} is damaged: it is no safetensors file, or cut")
        try:
            header = json.loads(file.read(length))
            entries = [
                (name, str(entry["dtype"]), tuple(map(int, entry["shape"])), *map(int, entry["data_offsets"]))
                for name, entry in header.items()
                if name != "__metadata__"
            ]
            found = [(name, kind, shape, 8 + length + a, 8 + length + b) for name, kind, shape, a, b in entries]
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{path} is damaged: its header cannot be read") from error
    for name, kind, shape, begin, end in found:
        if not 8 + length <= begin <= end <= size or min(shape, default=0) < 0:
            raise ValueError(f"{path} is damaged: '{name}' is not within the file")
        yield name, kind, shape, begin, end


def differences(
    module: torch.nn.Module, tensors: Mapping[str, Stored], unread: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """Return the names that a skeleton misses in files, or finds in another shape, and those it has no place for.

    Without either, nothing has to be converted. `unread` are patterns of names that need no place.
    """
    state = module.state_dict(keep_vars=True)
    there = {id(tensor) for name, tensor in state.items() if name in tensors}  # under one of its names, if tied
    missing = [
        name
        for name, tensor in state.items()
        if id(tensor) not in there or (name in tensors and tensors[name].shape != tensor.shape)
    ]
    ignored = [*(getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ()), *unread]
    strangers = set(tensors) - set(state)
    unexpected = (name for name in strangers if not any(re.search(pattern, name) for pattern in ignored))
    return sorted(missing), sorted(unexpected)


def reshaped(module: torch.nn.Module, place: Path) -> list[str]:
    """Return the names of weights that files hold in another shape than a skeleton; packed integers do not count."""
    state = module.state_dict(keep_vars=True)
    entries = (entry for path in files(place) or () for entry in _entries(path))
    held = {name: shape for name, kind, shape, *_ in entries if "F" in kind}
    return sorted(name for name, tensor in state.items() if held.get(name, tensor.shape) != tensor.shape)


def reserve(size: int, place: torch.device) -> None:
    """Take memory for many tensors from the driver at once, which is faster than piece by piece, and keep it ready."""
    if place.type == "cuda":
        held = torch.cuda.memory_reserved(place) - torch.cuda.memory_allocated(place)
        torch.empty(max(0, size - held), dtype=torch.uint8, device=place)


def read(
    module: torch.nn.Module, tensors: Mapping[str, Stored], dtype: torch.dtype, place: torch.device, pool: Executor
) -> Callable[[], torch.nn.Module]:
    """Begin to fill a skeleton from files; return what waits for the end and gives the module back.

    The pieces go through small buffers: host memory never holds the whole. Threads of `pool` read, so that several
    modules can be filled at once, and no thread but the caller's changes a module.
    """
    of, saved = dtypes(module, dtype), module.state_dict(keep_vars=True)
    buffers = {name: buffer for name, buffer in module.named_buffers() if name in saved}
    names = {id(tensor): name for name, tensor in saved.items() if name in tensors}
    wanted = {name: (names[id(empty)], of(name)) for name, empty in module.named_parameters()}
    wanted |= {name: (name, buffer.dtype) for name, buffer in buffers.items()}
    pending = {name: pool.submit(_read, tensors[key], kept, place) for name, (key, kept) in wanted.items()}

    def finish() -> torch.nn.Module:
        try:
            for name, buffer in buffers.items():
                buffer.copy_(pending[name].result())
            fill(module, place, lambda name, _: pending[name].result())
        finally:
            for future in pending.values():
                future.cancel()
        return module

    return finish


_own = threading.local()  # of a thread: its buffers, each with the event of the copy that last used it


def _read(tensor: Stored, dtype: torch.dtype, place: torch.device) -> torch.Tensor:
    whole = torch.empty(tensor.shape, dtype=tensor.dtype, device=place)
    into = whole.view(-1).view(torch.uint8) if whole.ndim else whole.view(1).view(torch.uint8)
    with tensor.path.open("rb", buffering=0) as file:
        for number, start in enumerate(range(0, tensor.end - tensor.start, BUFFER)):
            size = min(BUFFER, tensor.end - tensor.start - start)
            buffer, event = _buffers(place)[number % 2]
            if event is not None:
                event.synchronize()
            file.seek(tensor.start + start)
            _read_exactly(file, buffer.numpy().data[:size])
            into[start : start + size].copy_(buffer[:size], non_blocking=True)
            if event is not None:
                event.record()
    return whole.to(dtype)


def _buffers(place: torch.device) -> list[tuple[torch.Tensor, torch.cuda.Event | None]]:
    cuda = place.type == "cuda"
    if not hasattr(_own, "buffers") or (_own.buffers[0][1] is not None) != cuda:
        space = [torch.empty(BUFFER, dtype=torch.uint8, pin_memory=cuda) for _ in range(2)]
        _own.buffers = [(buffer, torch.cuda.Event() if cuda else None) for buffer in space]  # type: ignore[no-untyped-call]
    buffers: list[tuple[torch.Tensor, torch.cuda.Event | None]] = _own.buffers
    return buffers


def _read_exactly(file: FileIO, view: memoryview) -> None:
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise OSError(f"{Path(str(file.name)).name} ends too early")
        done += count
