"""Where the time and memory of a run go: spans, step marks, memory peaks, and the perf-dump JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from engine.types import Timings

if TYPE_CHECKING:
    import torch

MB = 1e6


class Profile:
    """Spans and steps of one run. A run that is interleaved with others counts its own time only.

    On CUDA a step is timed by events, and the host is kept at most one step ahead of the device, so that a cancel
    takes effect within a step and the device never waits for the host. `sync` waits after every step instead.
    """

    def __init__(self, device: torch.device, sync: bool = False) -> None:
        self.device, self.sync = device, sync
        self.started = time.perf_counter()
        self.spans: list[tuple[str, float]] = []
        self.host_steps: list[float] = []
        self.events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self.memory: dict[str, dict[str, float]] = {}

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Time a stage; on CUDA without the steps of other runs that the device still has to take."""
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.spans.append((name, (time.perf_counter() - start) * 1000))
        self.memory[name] = self._memory()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time one denoising step."""
        if self.device.type != "cuda":
            start = time.perf_counter()
            yield
            self.host_steps.append((time.perf_counter() - start) * 1000)
            return
        import torch

        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        if len(self.events) > 1:
            self.events[-2][1].synchronize()
        begin.record()
        yield
        end.record()
        self.events.append((begin, end))
        if self.sync:
            end.synchronize()

    def close_steps(self) -> None:
        """Turn the steps taken so far into one `denoising` span; call it when the last one is done."""
        self._wait()
        self.spans.append(("denoising", sum(self.steps_ms())))
        self.memory["denoising"] = self._memory()

    def steps_ms(self) -> list[float]:
        """Duration of each finished step in milliseconds."""
        return self.host_steps or [begin.elapsed_time(end) for begin, end in self.events]

    def elapsed_s(self) -> float:
        """Wall-clock seconds since the run began."""
        return time.perf_counter() - self.started

    def timings(self) -> Timings:
        """Return everything measured."""
        total = sum(duration for _, duration in self.spans)
        peak = max((entry["peak_allocated_mb"] for entry in self.memory.values()), default=0.0)
        return Timings(total, tuple(self.spans), tuple(self.steps_ms()), dict(self.memory), peak)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            import torch

            torch.cuda.synchronize(self.device)

    def _memory(self) -> dict[str, float]:
        return used_memory(self.device)


def used_memory(device: torch.device) -> dict[str, float]:
    """Return the MB of a device that this process uses now, and at most so far; without CUDA that is the host's."""
    if device.type == "cuda":
        import torch

        names = ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved")
        values = [getattr(torch.cuda, name)(device) / MB for name in names]
    else:
        import psutil

        info = psutil.Process().memory_info()
        peak = max(info.rss, _host_peak())
        values = [info.rss / MB, info.rss / MB, peak / MB, peak / MB]
    return dict(zip(("allocated_mb", "reserved_mb", "peak_allocated_mb", "peak_reserved_mb"), values, strict=True))


def device_memory(device: torch.device) -> dict[str, Any]:
    """Return the name of a device, its MB in all and free, whoever has the rest, and what this process uses of it."""
    if device.type == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
    else:
        import psutil

        memory = psutil.virtual_memory()
        free, total, name = memory.available, memory.total, device.type
    return {"device": str(device), "name": name, "total_mb": total / MB, "free_mb": free / MB, **used_memory(device)}


def now(device: torch.device) -> float:
    """Return the seconds of a clock that only goes on, after the device has done all that it was asked to."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
    return time.perf_counter()


def reset_peak(device: torch.device) -> None:
    """Start measuring peak memory anew; peaks of the host cannot be reset."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def _host_peak() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    try:
        import resource  # not on Windows
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def perf_dump(
    timings: Timings, *, request_id: str, commit: str | None, tag: str, meta: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of a perf file: stages, denoising steps and memory of one output."""
    return {
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request_id": request_id,
        "commit_hash": commit,
        "tag": tag,
        "total_duration_ms": timings.total_ms,
        "steps": [{"name": name, "duration_ms": duration} for name, duration in timings.stages],
        "denoise_steps_ms": [
            {"step": step, "duration_ms": duration} for step, duration in enumerate(timings.denoise_steps)
        ],
        "memory_checkpoints": {name: dict(entry) for name, entry in timings.memory.items()},
        "meta": dict(meta),
    }


def wall() -> float:
    """Return the Unix time in seconds."""
    return time.time()


def monotonic() -> float:
    """Return the seconds of a clock that only goes on, whatever a device still has to do."""
    return time.monotonic()
