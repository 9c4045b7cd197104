"""YAML: numbers of any length, and the place of what cannot be read."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from engine import yaml_text


def read(text: str) -> Any:
    return yaml.load(text, yaml_text.loader())


def test_what_yaml_says_is_read() -> None:
    assert read("{a: 1_000, b: -0x1f, c: 1.5, d: yes, e: 2026-01-02T03:04:05, f: [x, null]}") == {
        **yaml.safe_load("e: 2026-01-02T03:04:05"), "a": 1000, "b": -31, "c": 1.5, "d": True, "f": ["x", None],
    }  # fmt: skip


@pytest.mark.parametrize("digits", [301, 4301, 100_000])
def test_a_whole_number_of_any_length_stays_too_large(digits: int) -> None:
    found = read(f"[{'7' * digits}, -{'7' * digits}, +{'7_' * digits}]")
    assert [value > 10**299 for value in found] == [True, False, True]
    assert found[1] < -(10**299)
    assert len(str(found)) < 4300  # Python can write what it was read as


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2026-13-45", "'2026-13-45' cannot be read as a date"),
        ("!!timestamp soon", "'soon' cannot be read as a date"),
        ("0x_", "'0x_' cannot be read as an integer"),
        ("!!int ''", "'' cannot be read as an integer"),
        (f"0x{'f' * 5000}", f"'0x{'f' * 75}...' cannot be read as an integer"),
        ("!!float abc", "'abc' cannot be read as a number"),
        (f"{'1:' * 400}1.5", f"'{'1:' * 38}1...' cannot be read as a number"),
        ("!!bool maybe", "'maybe' cannot be read as true or false"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(value: str, message: str) -> None:
    with pytest.raises(yaml.MarkedYAMLError) as caught:
        read(f"a: 1\nbc: {value}")
    mark = caught.value.problem_mark
    assert mark is not None and (mark.line, mark.column) == (1, 4)
    assert caught.value.problem == message
