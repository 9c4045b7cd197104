"""Text into values, where the flags' own tests do not reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import UsageError
from sgdiff_app import values
from sgdiff_app.settings import table


def test_a_file_holds_typed_values_and_truth_as_text() -> None:
    tiling, steps = table()["vae_tiling"].field, table()["num_inference_steps"].field
    assert values.from_file(tiling, "True", "f") is True
    assert values.from_file(tiling, "yes", "f") == "yes"  # refused by the check that follows
    assert values.from_file(steps, "6", "f") == "6"
    assert values.from_file(table()["lora_target_modules"].field, "to_q, to_k", "f") == ["to_q", "to_k"]


def test_a_map_in_a_file_may_be_text_or_a_path() -> None:
    Path("cache.json").write_text('{"Fn_compute_blocks": 2}')
    field = table()["cache_dit_config"].field
    assert values.from_file(field, "cache.json", "f") == {"Fn_compute_blocks": 2}
    assert values.from_file(field, '{"a": 1}', "f") == {"a": 1}


def test_a_missing_file_of_a_map_names_the_flag() -> None:
    with pytest.raises(UsageError) as caught:
        values.mapping(table()["cache_dit_config"].field, "none.yaml", "--cache-dit-config")
    assert str(caught.value) == "--cache-dit-config: none.yaml: no such file"


@pytest.mark.parametrize("text", ['{"a": ' + "[" * 100_000, '{{"a": {}{}}}'.format("[" * 60, "]" * 60)])
def test_json_text_that_is_nested_too_deeply(text: str) -> None:
    for field in (table()["diffusers_kwargs"].field, None):
        with pytest.raises(UsageError) as caught:
            values.from_texts(field, [text], "--diffusers-kwargs")
        assert str(caught.value) == "--diffusers-kwargs: nested too deeply"


def test_a_key_of_json_text_may_stand_once() -> None:
    with pytest.raises(UsageError) as caught:
        values.mapping(table()["diffusers_kwargs"].field, '{"a": {"b": 1, "b": 2}}', "--diffusers-kwargs")
    assert str(caught.value) == "--diffusers-kwargs: b: given twice"


@pytest.mark.parametrize(("value", "expected"), [(True, True), ("False", False)])
def test_a_switch_of_a_file(value: object, expected: bool) -> None:
    assert values.switch(value, "f") is expected


def test_a_switch_of_a_file_is_no_number() -> None:
    with pytest.raises(UsageError, match=r"^f: must be true or false, got 1$"):
        values.switch(1, "f")
