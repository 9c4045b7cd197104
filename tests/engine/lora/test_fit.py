"""Fitting parts of an adapter to modules: packed weights, 1x1 convolutions, what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.lora.fit import Fit, Misfit
from engine.lora.keys import Part
from engine.lora.names import Place


def deltas(network: torch.nn.Module, parts: dict[Part, torch.Tensor], *paths: str) -> dict[str, Any]:
    return dict(Fit(network).deltas(Place(paths), parts, 1.0))


def test_the_shape_of_a_linear_layer_is_that_of_its_product_however_its_weight_is_stored() -> None:
    network = torch.nn.ModuleDict({"a": torch.nn.Linear(6, 8)})
    network["a"].weight = torch.nn.Parameter(torch.zeros(24, 1, dtype=torch.uint8), requires_grad=False)
    assert Fit(network).shape("a") == (8, 6)


def test_linear_layers_and_convolutions_of_one_pixel_are_alike(lora: Any) -> None:
    down, up = lora.noise(2, 6), lora.noise(8, 2)
    pixel: dict[Part, torch.Tensor] = {"down": down[..., None, None], "up": up[..., None, None]}
    linear = lora.added(deltas(torch.nn.ModuleDict({"a": torch.nn.Linear(6, 8)}), pixel, "a")["a"])
    torch.testing.assert_close(linear, up @ down)
    convolution = torch.nn.ModuleDict({"a": torch.nn.Conv2d(6, 8, 1)})
    found = lora.added(deltas(convolution, {"down": down, "up": up}, "a")["a"])
    torch.testing.assert_close(found, (up @ down)[..., None, None])


def test_differences_of_fused_layers_are_cut_into_rows(lora: Any) -> None:
    network = torch.nn.ModuleDict({"q": torch.nn.Linear(4, 6), "mlp": torch.nn.Linear(4, 10)})
    diff, bias = lora.noise(16, 4), lora.noise(16)
    found = deltas(network, {"diff": diff, "diff_b": bias}, "q", "mlp")
    torch.testing.assert_close(found["mlp"].diff, diff[6:])
    torch.testing.assert_close(found["q"].bias, bias[:6])


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"diff_b": (8,)}, "has none there"),
        ({"diff": (8, 5)}, "changes a weight of 8 x 5, which in the model has 8 x 6"),
        ({"down": (2, 5), "up": (8, 2)}, "changes a weight of 8 x 5"),
        ({"down": (2, 6), "up": (8, 3)}, "its halves have 2 x 6 and 8 x 3"),
    ],
)
def test_what_does_not_fit_says_both_shapes(parts: dict[Part, tuple[int, ...]], words: str) -> None:
    network = torch.nn.ModuleDict({"a": torch.nn.Linear(6, 8, bias=False)})
    with pytest.raises(Misfit, match=words):
        deltas(network, {part: torch.zeros(shape) for part, shape in parts.items()}, "a")


def test_fewer_inputs_fit_the_layers_that_read_latents_alone(lora: Any) -> None:
    network = torch.nn.ModuleDict({"x_embedder": torch.nn.Linear(6, 8), "other": torch.nn.Linear(6, 8)})
    diff = lora.noise(8, 4)
    found = deltas(network, {"diff": diff}, "x_embedder")["x_embedder"].diff
    torch.testing.assert_close(found, torch.nn.functional.pad(diff, (0, 2)))
    with pytest.raises(Misfit, match="8 x 4, which in the model has 8 x 6"):
        deltas(network, {"diff": diff}, "other")
