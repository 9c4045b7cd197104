"""Work on a GPU recorded once and replayed: a small network's step is over sooner than its kernels are launched."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def recorded(work: Callable[[], None], warm: int = 3) -> Callable[[], None]:
    """`work` as a CUDA graph. It takes and leaves its values in tensors that stay, and runs `warm` times first."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warm):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on: the one that watches over messages between GPUs asks for their state at any time.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph.replay


class Gradients:
    """All gradients in one tensor, of which each weight's own is a part."""

    def __init__(self, weights: list[Tensor]) -> None:
        self.weights = weights
        self.flat = torch.zeros(sum(w.numel() for w in weights), device=weights[0].device)
        parts = self.flat.split([w.numel() for w in weights])
        self.parts = [part.view_as(w) for part, w in zip(parts, weights, strict=True)]

    def of(self, loss: Tensor) -> None:
        """Work back from a loss."""
        found = torch.autograd.grad(loss, self.weights, allow_unused=True)
        flat = [torch.zeros_like(w) if g is None else g for g, w in zip(found, self.weights, strict=True)]
        torch.cat([g.flatten() for g in flat], out=self.flat)

    def limit(self, norm: float) -> Tensor:
        """Scale them down to a norm of at most so much; returns what it was."""
        own = torch.linalg.vector_norm(self.flat)
        self.flat.mul_((norm / (own + 1e-6)).clamp(max=1.0))
        return own

    def hand_over(self) -> None:
        """Let optimizers find them."""
        for weight, part in zip(self.weights, self.parts, strict=True):
            weight.grad = part
