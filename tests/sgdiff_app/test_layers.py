"""Laying layers over each other, where the tests of the sources do not reach."""

from __future__ import annotations

import pytest

from engine.errors import UsageError
from sgdiff_app.layers import Layer, dimensions, merge, nested
from sgdiff_app.settings import find


def layer(**values: object) -> Layer:
    made = Layer("file")
    for name, value in values.items():
        made.add(find(name, name, "key"), value, name)
    return made


def test_a_value_displaces_the_map_below_it_and_the_other_way_round() -> None:
    weak = layer(diffusers_kwargs={"a": {"b": 1}, "c": 2})
    assert nested(merge((weak, layer(diffusers_kwargs={"a": 3}))), "diffusers_kwargs") == {"a": 3, "c": 2}
    assert nested(merge((layer(diffusers_kwargs={"a": 3}), weak)), "diffusers_kwargs") == {"a": {"b": 1}, "c": 2}


def test_switching_off_displaces_nothing() -> None:
    merged = merge((layer(dit_layerwise_offload=True), layer(dit_cpu_offload=False)))
    assert merged["dit_layerwise_offload",].value is True
    assert ("dit_layerwise_offload",) not in merge((layer(dit_layerwise_offload=True), layer(dit_cpu_offload=True)))


def test_a_stronger_size_wins_over_a_weaker_width() -> None:
    merged = merge((layer(width=32, height=16), layer(size="64X48")))
    assert (merged["width",].value, merged["height",].value, merged["size",].value) == (64, 48, "64X48")


@pytest.mark.parametrize(
    "text", ["64", "64x", "x64", "0x64", "-1x64", "6.4x64", "64x64x2", "axb", "٦٤x64", "²x64", "9" * 5000 + "x1"]
)
def test_a_size_is_two_positive_integers(text: str) -> None:
    with pytest.raises(UsageError, match="must be WIDTHxHEIGHT with positive integers"):
        dimensions(text, "size")
