"""Muon, batched by shape: momentum made orthogonal, for the matrices inside transformer blocks and for kernels of
convolutions, each taken as a matrix with a row for each channel that comes out."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def orthogonal(g: Tensor, steps: int = 5) -> Tensor:
    """Each matrix of a stack (n, r, c) with its singular values pushed towards 1, by Newton-Schulz in bf16."""
    x = g.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """One group per shape, so that a step is a few batched products and not one per matrix."""

    def __init__(
        self, params: Iterable[Tensor], lr: Tensor, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        by_shape: dict[tuple[int, ...], list[Tensor]] = {}
        for p in params:
            by_shape.setdefault(tuple(p.shape), []).append(p)
        groups = [{"params": ps} for ps in by_shape.values()]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params = group["params"]
            if params[0].grad is None:  # no part in this step: those of one shape go together
                continue
            grads = torch.stack([p.grad.flatten(1) for p in params])
            state = self.state[params[0]]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(grads)
            state["momentum"].lerp_(grads, 1 - group["momentum"])
            update = orthogonal(grads.lerp(state["momentum"], group["momentum"])).float()
            rows, columns = update.shape[1:]
            update *= -group["lr"] * 0.2 * max(rows, columns) ** 0.5  # the size that an AdamW update would have
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(params, [u.view_as(p) for u, p in zip(update, params, strict=True)])


def optimizers(
    matrices: list[Tensor], rest: list[Tensor], peaks: tuple[float, float], decays: tuple[float, float]
) -> list[torch.optim.Optimizer]:
    """AdamW for the rest and Muon for matrices, with peaks and weight decays in this order. Rates are tensors, whose
    peak is kept beside them, so that a step that was recorded can follow them."""
    device = matrices[0].device
    adam, muon = (torch.tensor(peak, device=device) for peak in peaks)
    opts: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            rest, adam, betas=(0.9, 0.99), weight_decay=decays[0], fused=True, capturable=device.type == "cuda"
        ),
        Muon(matrices, muon, weight_decay=decays[1]),
    ]
    for opt, peak in zip(opts, peaks, strict=True):
        for group in opt.param_groups:
            group["peak"] = peak
    return opts
