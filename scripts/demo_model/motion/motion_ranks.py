"""Training on several devices by simple means: every rank holds everything, gradients are averaged."""

from __future__ import annotations

import os
from collections.abc import Iterable
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
        dist.all_reduce(flat)
        flat /= self.world
        torch._foreach_copy_(grads, [f.view_as(g) for f, g in zip(flat.split([g.numel() for g in grads]), grads)])

    def meet(self) -> None:
        """Wait for the others."""
        self.agree(0.0)


def start() -> Ranks:
    """Join the other ranks. One that fails ends with its process, and the launcher ends the rest."""
    world, rank, local = (int(os.environ.get(k, d)) for k, d in (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0)))
    device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
    if device != "cpu":
        torch.cuda.set_device(local)
    if world > 1:
        dist.init_process_group("gloo" if device == "cpu" else "nccl", timeout=timedelta(seconds=240))
    return Ranks(rank, world, device)


def leave(ranks: Ranks) -> None:
    if ranks.world > 1:
        ranks.meet()
        dist.destroy_process_group()
