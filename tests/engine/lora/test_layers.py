"""Adapters change a network by exactly what they say, merged or beside it, and leave no trace when they go."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from engine.lora.adapter import Adapter, Delta
from engine.lora.blocks import Packed, pack
from engine.lora.layers import Beside, Layers, Merged

CPU = torch.device("cpu")


class Network(nn.Module):
    """One layer of each kind that adapters change."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.norm = nn.LayerNorm(8)
        self.inner = nn.ModuleList([nn.Linear(8, 6), nn.Linear(6, 8, bias=False)])
        self.table = nn.Parameter(torch.randn(1, 8))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.first(picture).flatten(2).transpose(1, 2)) + self.table
        result: torch.Tensor = self.inner[1](self.inner[0](tokens))
        return result


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network()


def _packed(
    layers: dict[str, Delta] | None = None, parameters: dict[str, torch.Tensor] | None = None, seed: int = 1
) -> Packed:
    torch.manual_seed(seed)
    if layers is None:
        layers = {
            "first": Delta(down=torch.randn(2, 3, 3, 3), up=torch.randn(8, 2, 1, 1), scale=0.5, bias=torch.randn(8)),
            "inner.0": Delta(down=torch.randn(2, 8), up=torch.randn(6, 2), scale=2.0, bias=torch.randn(6)),
            "inner.1": Delta(diff=torch.randn(8, 6)),
            "norm": Delta(diff=torch.randn(8), bias=torch.randn(8)),
        }
        parameters = {"table": torch.randn(1, 8)}
    return pack(Adapter(layers=layers, parameters=parameters or {}, layout="test"), pin=False)


def _expected(network: Network, changes: list[tuple[Packed, float]]) -> dict[str, torch.Tensor]:
    """Return every weight as the sum that its definition gives, in fp64."""
    found = {name: weight.detach().double().clone() for name, weight in network.named_parameters()}
    for packed, strength in changes:
        for path, delta in packed.adapter.layers.items():
            if delta.up is not None and delta.down is not None:
                product = torch.einsum("or,r...->o...", delta.up.double().flatten(1), delta.down.double())
                found[f"{path}.weight"] += strength * delta.scale * product
            if delta.diff is not None:
                found[f"{path}.weight"] += strength * delta.diff.double()
            if delta.bias is not None:
                found[f"{path}.bias"] += strength * delta.bias.double()
        for path, whole in packed.adapter.parameters.items():
            found[path] += strength * whole.double()
    return found


def _bytes(network: nn.Module) -> dict[str, bytes]:
    return {name: weight.detach().view(torch.uint8).numpy().tobytes() for name, weight in network.state_dict().items()}


def test_a_merge_adds_what_the_adapters_say(network: Network) -> None:
    changes = [(_packed(), 0.7), (_packed(seed=2), -1.5)]
    expected = _expected(network, changes)
    Merged(network, CPU).apply(changes)
    for name, weight in network.named_parameters():
        torch.testing.assert_close(weight.detach().double(), expected[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_restoring_gives_back_the_very_bytes(network: Network, dtype: torch.dtype) -> None:
    layers = Merged(network.to(dtype), CPU)
    before = _bytes(network)
    layers.apply([(_packed(), 0.7)])
    assert all(_bytes(network)[name] != value for name, value in before.items())
    layers.apply([(_packed(seed=2), 0.3), (_packed(), 1.0)])
    layers.apply([])
    assert _bytes(network) == before


def test_a_set_gives_the_same_bytes_whatever_was_there_before(network: Network) -> None:
    network.to(torch.bfloat16)
    layers, wanted = Merged(network, CPU), [(_packed(), 0.7), (_packed(seed=2), 0.1)]
    layers.apply(wanted)
    first = _bytes(network)
    only_one = _packed({"inner.1": Delta(diff=torch.randn(8, 6))}, seed=3)
    layers.apply([(only_one, 2.0)])
    assert _bytes(network)["inner.0.weight"] != first["inner.0.weight"]
    layers.apply(wanted)
    assert _bytes(network) == first


def test_half_precision_is_rounded_once(network: Network) -> None:
    network.to(torch.bfloat16)
    changes = [(_packed(), 0.01), (_packed(seed=2), 0.01), (_packed(seed=3), 0.01)]
    expected = _expected(network, changes)
    Merged(network, CPU).apply(changes)
    for name, weight in network.named_parameters():
        off = (weight.detach().double() - expected[name]).abs()
        assert (off <= expected[name].abs() * 2**-8 + 1e-6).all(), name  # half a unit in the last place


def test_weights_change_in_place(network: Network) -> None:
    """Copies of them elsewhere notice by the version, and graphs by the address."""
    weight = network.inner[0].weight
    address, version = weight.data_ptr(), weight._version
    Merged(network, CPU).apply([(_packed(), 1.0)])
    assert network.inner[0].weight is weight
    assert (weight.data_ptr(), weight._version > version) == (address, True)


def test_a_weight_that_two_layers_share_gets_both_changes() -> None:
    network = nn.ModuleDict({"a": nn.Linear(4, 4, bias=False), "b": nn.Linear(4, 4, bias=False)})
    network["b"].weight = network["a"].weight
    base, one, two = network["a"].weight.detach().clone(), torch.randn(4, 4), torch.randn(4, 4)
    Merged(network, CPU).apply([(_packed({"a": Delta(diff=one), "b": Delta(diff=two)}), 1.0)])
    torch.testing.assert_close(network["a"].weight.detach(), base + one + two)


@pytest.mark.parametrize("make", [Merged, Beside])
def test_memory_that_is_kept_for_the_way_back_can_be_had(network: Network, make: Callable[..., Layers]) -> None:
    layers, before = make(network, CPU), _bytes(network)
    layers.apply([(_packed(), 1.0)])
    assert layers.kept["cpu"] > 0
    layers.release()
    assert (layers.kept, _bytes(network)) == ({}, before)
    layers.apply([(_packed(), 1.0)])
    assert _bytes(network) != before


def test_a_failure_between_leaves_a_way_back(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    layers, before = Merged(network, CPU), _bytes(network)
    layers.apply([(_packed({"norm": Delta(diff=torch.randn(8))}), 1.0)])
    bad = _packed({"inner.0": Delta(diff=torch.randn(6, 8)), "inner.1": Delta(diff=torch.randn(5, 5))})
    with pytest.raises(RuntimeError):
        layers.apply([(bad, 1.0)])
    assert _bytes(network) != before
    layers.apply([])
    assert _bytes(network) == before


@pytest.mark.parametrize("make", [Merged, Beside])
def test_merged_and_beside_draw_the_same(network: Network, make: Callable[..., Layers]) -> None:
    picture, changes = torch.randn(2, 3, 8, 8), [(_packed(), 0.7), (_packed(seed=2), -0.4)]
    expected = Network().double()
    expected.load_state_dict(_expected(network, changes))
    base = network(picture)
    layers = make(network, CPU)
    layers.apply(changes)
    torch.testing.assert_close(network(picture).double(), expected(picture.double()), atol=1e-4, rtol=1e-4)
    layers.apply([])
    assert torch.equal(network(picture), base)


def test_beside_leaves_the_weights_of_layers_as_they_are(network: Network) -> None:
    before = _bytes(network)
    Beside(network, CPU).apply([(_packed(), 1.0)])
    changed = {name for name, value in _bytes(network).items() if value != before[name]}
    assert changed == {"norm.weight", "norm.bias", "table"}, "only what has no output to add to is merged"


def test_beside_computes_in_the_precision_of_the_layer(network: Network) -> None:
    network.to(torch.bfloat16)
    Beside(network, CPU).apply([(_packed(), 1.0)])
    assert network(torch.randn(1, 3, 8, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_beside_replaces_what_was_there(network: Network) -> None:
    picture, layers = torch.randn(1, 3, 8, 8), Beside(network, CPU)
    layers.apply([(_packed(seed=2), 1.0)])
    alone = network(picture)
    layers.apply([(_packed(), 1.0)])
    layers.apply([(_packed(seed=2), 1.0)])
    assert torch.equal(network(picture), alone)


def test_files_of_half_precision_are_multiplied_in_single_precision(network: Network) -> None:
    down, up = torch.randn(4, 8).bfloat16(), torch.randn(6, 4).bfloat16()
    base = network.inner[0].weight.detach().clone()
    Merged(network, CPU).apply([(_packed({"inner.0": Delta(down=down, up=up)}), 1.0)])
    torch.testing.assert_close(network.inner[0].weight.detach(), base + up.float() @ down.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [Merged, Beside])
def test_a_convolution_of_groups_gets_the_change_too(make: Callable[..., Layers]) -> None:
    network = nn.ModuleDict({"a": nn.Conv2d(4, 4, 3, groups=4)})
    picture, down, up = torch.randn(1, 4, 8, 8), torch.randn(4, 1, 3, 3), torch.randn(4, 4, 1, 1)
    weight = network["a"].weight.detach().clone()
    make(network, CPU).apply([(_packed({"a": Delta(down=down, up=up)}), 0.5)])
    change = torch.tensordot(up.flatten(1), down, 1)
    expected = nn.functional.conv2d(picture, weight + 0.5 * change, network["a"].bias, groups=4)
    torch.testing.assert_close(network["a"](picture), expected, atol=1e-5, rtol=1e-5)
