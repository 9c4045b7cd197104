"""Training on several devices by simple means: every rank holds everything, gradients are averaged."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """This process among those that `torch.distributed.run` started; alone without it."""

    rank: int
    world: int
    device: str

    @property
    def first(self) -> bool:
        return self.rank == 0

    def say(self, text: str) -> None:
        """Print on the first rank."""
        if self.first:
            print(text, flush=True)

    def agree(self, value: float) -> float:
        """The first rank's value, so that all take the same decision."""
        if self.world == 1:
            return value
        held = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(held, 0)
        return held.item()

    @torch.no_grad()
    def align(self, tensors: Iterable[Tensor]) -> None:
        """Give all ranks the first one's weights."""
        if self.world > 1:
            for t in tensors:
                dist.broadcast(t.data, 0)

    @torch.no_grad()
    def average(self, weights: list[Tensor]) -> None:
        """Average the gradients over all ranks, in one message."""
        if self.world == 1:
            return
        grads = [w.grad for w in weights if w.grad is not None]
        flat = torch.cat([g.flatten() for g in grads])
        self.mean(flat)
        parts = flat.split([g.numel() for g in grads])
        torch._foreach_copy_(grads, [part.view_as(g) for part, g in zip(parts, grads, strict=True)])

    def mean(self, tensor: Tensor) -> None:
        """Average a tensor over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
            tensor /= self.world

    def meet(self) -> None:
        """Wait for the others."""
        self.agree(0.0)


def half(device: str) -> torch.autocast:
    """bf16 where the device is made for it."""
    kind = device.split(":")[0]
    return torch.autocast(kind, torch.bfloat16, enabled=kind != "cpu")


def start() -> Ranks:
    """Join the other ranks. One that fails ends with its process, and the launcher ends the rest."""
    world, rank, local = (int(os.environ.get(k, d)) for k, d in (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0)))
    device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
    if device != "cpu":
        torch.cuda.set_device(local)
    if world > 1:
        dist.init_process_group("gloo" if device == "cpu" else "nccl", timeout=timedelta(seconds=600))
    return Ranks(rank, world, device)


def leave(ranks: Ranks) -> None:
    """Part from the others, who may have some work of their own left."""
    if ranks.world > 1:
        dist.destroy_process_group()


@dataclass(frozen=True)
class Slice:
    """The time of one call in a run of `total` seconds; with `steps`, it ends after so many at the latest."""

    began: float
    seconds: float
    total: float
    steps: int = 0

    def clock(self, ranks: Ranks, before: float) -> Iterator[float]:
        """The seconds of the whole run, `before` this call included, the same on all ranks, until time is over."""
        step = 0
        while not self.steps or step < self.steps:
            if step % 10 == 0:
                spent = ranks.agree(time.time() - self.began)
                if spent > self.seconds or before + spent > self.total:
                    return
            yield before + spent
            step += 1
