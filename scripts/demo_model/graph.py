"""A step of training, recorded once and replayed: small networks wait for their launches otherwise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Work = Callable[[], object]
Mean = Callable[[Tensor], None]


def recorded(work: Work, warm: int = 3) -> Work:
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


class Step:
    """Forward and back from a loss, gradients averaged over the GPUs by `mean`, optimizers; recorded where `fast`.

    All gradients lie in one tensor, of which each weight's own is a part. Rates lie in tensors (their "peak" beside
    them), so that what is recorded can follow them.
    """

    def __init__(
        self, weights: list[Tensor], opts: list[torch.optim.Optimizer], fast: bool, mean: Mean | None = None
    ) -> None:
        self.weights, self.opts, self.fast, self.mean = weights, opts, fast, mean
        self.flat = torch.zeros(sum(w.numel() for w in weights), device=weights[0].device)
        for weight, part in zip(weights, self.flat.split([w.numel() for w in weights]), strict=True):
            weight.grad = part.view_as(weight)
        self._rate(0.0)
        self._update = self._recorded(lambda: [opt.step() for opt in opts])

    def _recorded(self, work: Work) -> Work:
        return recorded(work) if self.fast else work

    def _rate(self, share: float) -> None:
        for opt in self.opts:
            for group in opt.param_groups:
                group["lr"].fill_(group["peak"] * share)

    def backward(self, loss: Callable[[], Tensor]) -> tuple[Work, Tensor]:
        """What works back from a loss, and the tensor that has its value then."""
        value = torch.zeros((), device=self.flat.device)

        def work() -> None:
            found = loss()
            grads = torch.autograd.grad(found, self.weights, allow_unused=True)
            grads = [torch.zeros_like(w) if g is None else g for g, w in zip(grads, self.weights, strict=True)]
            torch.cat([g.flatten() for g in grads], out=self.flat)
            value.copy_(found.detach())

        return self._recorded(work), value

    def __call__(self, backward: Work, share: float) -> Tensor:
        """One step at a share of the peak rates; returns the norm that the gradients had."""
        backward()
        if self.mean:
            self.mean(self.flat)
        norm = torch.linalg.vector_norm(self.flat)
        self.flat.mul_((1 / (norm + 1e-6)).clamp(max=1.0))
        self._rate(share)
        self._update()
        return norm
