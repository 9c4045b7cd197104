"""The parts of an adapter, fitted to the modules of a live network: cut into rows, padded, reshaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from engine.lora.adapter import Delta
from engine.lora.keys import Part
from engine.lora.names import INPUTS, Place

Parts = Mapping[Part, torch.Tensor]


class Misfit(Exception):
    """A part has another shape than the module; the message says both."""


class Fit:
    """The shapes of a network, and what fits them."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.modules = dict(network.named_modules())
        self.parameters = dict(network.named_parameters())

    def shape(self, path: str) -> tuple[int, ...]:
        """Return the shape of a module's weight, whatever its storage packs; of its bias, when it has no weight."""
        module = self.modules[path]
        if isinstance(module, torch.nn.Linear):
            return module.out_features, module.in_features
        parameter = module._parameters.get("weight")
        return tuple(parameter.shape) if parameter is not None else self.bias(path)

    def bias(self, path: str) -> tuple[int, ...]:
        """Return the shape of a module's bias. Raises Misfit when it has none."""
        parameter = self.modules[path]._parameters.get("bias")
        if parameter is None:
            raise Misfit("changes a bias, and the model has none there")
        return tuple(parameter.shape)

    def parameter(self, path: str, parts: Parts) -> torch.Tensor:
        """Return what is added to a bare parameter. Raises Misfit."""
        shape = tuple(self.parameters[path].shape)
        if parts.keys() != {"diff"} or parts["diff"].numel() != self.parameters[path].numel():
            raise Misfit(f"the model has a table of shape {_by(shape)} there")
        return parts["diff"].reshape(shape)

    def deltas(self, place: Place, parts: Parts, scale: float) -> Iterator[tuple[str, Delta]]:
        """Yield what each module of a place gets: all of a part, or its own rows. Raises Misfit."""
        shapes = [self.shape(path) for path in place.modules]
        rows = [shape[0] for shape in shapes]
        cut = {
            part: _rows(parts[part], rows, place.swapped)
            for part in ("up", "up_bias", "diff", "diff_b")
            if part in parts
        }
        for i, (path, shape) in enumerate(zip(place.modules, shapes, strict=True)):
            own: dict[str, torch.Tensor] = {part: pieces[i] for part, pieces in cut.items()}
            down = up = diff = None
            if "up" in own:
                down, up = _low_rank(parts["down"], own["up"], shape, path)
            if "diff" in own:
                diff = _whole(own["diff"], shape, path)
            yield path, Delta(down=down, up=up, scale=scale, diff=diff, bias=self._bias(path, own, scale))

    def _bias(self, path: str, own: Mapping[str, torch.Tensor], scale: float) -> torch.Tensor | None:
        """Return what is added to the bias: the low-rank part's own, which `scale` applies to, and the difference."""
        scaled, plain = own.get("up_bias"), own.get("diff_b")
        if scaled is not None:
            scaled = scaled if scale == 1 else scaled.float() * scale
            plain = scaled if plain is None else scaled + plain
        if plain is None:
            return None
        shape = self.bias(path)
        if plain.shape != shape:
            raise Misfit(f"the bias has {_by(plain.shape)} there, in the model {_by(shape)}")
        return plain


def _rows(part: torch.Tensor, rows: list[int], swapped: bool) -> tuple[torch.Tensor, ...]:
    """Cut a part into the rows of each module."""
    if len(rows) > 1 and part.shape[0] == sum(rows):
        return torch.split(part, rows)
    if len(rows) > 1:
        raise Misfit(f"has {part.shape[0]} rows, for layers of {' + '.join(map(str, rows))} in the model")
    if swapped and part.shape[0] == rows[0]:
        return (torch.cat(part.chunk(2)[::-1]),)
    return (part,)


def _low_rank(
    down: torch.Tensor, up: torch.Tensor, shape: tuple[int, ...], path: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both halves in the dimensions of a weight. Raises Misfit."""
    if down.dim() < 2 or up.dim() < 2 or up[0].numel() != down.shape[0] or len(shape) < 2:
        raise Misfit(f"its halves have {_by(down.shape)} and {_by(up.shape)}, the weight in the model {_by(shape)}")
    kernel = shape[2:]
    if down.dim() != len(shape) and down[0].numel() == down.shape[1]:  # 1x1 convolutions and linear layers are alike
        down = down.reshape(*down.shape[:2], *(1 for _ in kernel))
    down = _padded(down, shape, path)
    whole = (up.shape[0], *down.shape[1:])
    if whole != shape:
        raise Misfit(f"changes a weight of {_by(whole)}, which in the model has {_by(shape)}")
    return down, up.reshape(up.shape[0], down.shape[0], *(1 for _ in kernel))


def _whole(diff: torch.Tensor, shape: tuple[int, ...], path: str) -> torch.Tensor:
    diff = _padded(diff, shape, path)
    if diff.shape != shape:
        raise Misfit(f"changes a weight of {_by(diff.shape)}, which in the model has {_by(shape)}")
    return diff


def _padded(part: torch.Tensor, shape: tuple[int, ...], path: str) -> torch.Tensor:
    """Return a part for fewer input channels with nothing for the rest: those that a base model lacks come last."""
    if part.dim() != len(shape) or len(shape) < 2 or part.shape[1] >= shape[1] or not INPUTS.fullmatch(path):
        return part
    rest = part.new_zeros(part.shape[0], shape[1] - part.shape[1], *part.shape[2:])
    return torch.cat([part, rest], dim=1)


def _by(shape: Sequence[int]) -> str:
    return " x ".join(str(size) for size in shape)
