"""What is said about adapters is checked before anything is loaded, with the allowed values in the message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine import schema
from engine.config import EngineConfig
from engine.errors import UsageError
from engine.lora import refs
from engine.types import LoraRef


def _config(**settings: Any) -> tuple[LoraRef, ...]:
    return refs.of_config(schema.read(EngineConfig, {f"lora_{name}": value for name, value in settings.items()}))


def test_flags_of_one_adapter() -> None:
    assert _config(path="a") == (LoraRef(name="default", path="a"),)
    given = {"nickname": "ink", "scale": 0.5, "target": "transformer", "weight_name": "f", "alpha": 8}
    assert _config(path="a", target_modules=["to_q"], **given) == (
        LoraRef("ink", "a", 0.5, "transformer", weight_name="f", alpha=8, modules=("to_q",)),
    )


def test_flags_of_several_adapters() -> None:
    assert _config(path=["a", "b"]) == (LoraRef("lora_1", "a"), LoraRef("lora_2", "b"))
    found = _config(path=["a", "b"], nickname=["ink"], scale=[0.5, 2.0], target="transformer")
    assert found == (LoraRef("ink", "a", 0.5, "transformer"), LoraRef("lora_2", "b", 2.0, "transformer"))
    assert [ref.scale for ref in _config(path=["a", "b"], scale=0.3)] == [0.3, 0.3]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 0.5}, "lora_scale: needs --lora-path"),
        ({"nickname": "ink"}, "lora_nickname: needs --lora-path"),
        ({"path": "a", "nickname": ["x", "y"]}, "lora_nickname: 2 for 1 paths; give one for each"),
        ({"path": ["a", "b", "c"], "scale": [1.0, 2.0]},
         "lora_scale: 2 values for 3 adapters; give one for each, or one for all"),
        ({"path": ["a", "b"], "nickname": ["x", "x"]}, "lora_nickname: 'x' is there twice"),
        ({"path": "a", "scale": 1e9}, "lora_scale: must be from -1000000 to 1000000, got 1e+09"),
        ({"path": "a", "nickname": "x" * 65}, f"lora_nickname: must have 1 to 64 characters, got '{'x' * 65}'"),
        ({"path": "a", "target": "transfomer"},
         ("lora_target: must be one of all, transformer, transformer_2, unet, critic, text_encoder, text_encoder_2, "
         "got 'transfomer'; did you mean 'transformer'?")),
    ],
)  # fmt: skip
def test_flags_that_do_not_fit_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        _config(**settings)
    assert error.value.message == message


def test_a_call_gives_one_value_for_all_or_one_each() -> None:
    assert refs.of_call("a") == (LoraRef(name="a"),)
    both = refs.of_call(["a", "b"], ["x", None], ["transformer", "transformer_2"], 0.5)
    assert both == (LoraRef("a", "x", 0.5, "transformer"), LoraRef("b", None, 0.5, "transformer_2"))


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        ((["a", "b"], "x"), "lora_length_mismatch", "lora_path: one path for 2 nicknames; give a list of 2"),
        ((["a", "b"], ["x"]), "lora_length_mismatch",
         "lora_path: 1 values for 2 adapters; give one for each, or one for all"),
        ((["a", "b"], None, "all", [1.0]), "lora_length_mismatch",
         "strength: 1 values for 2 adapters; give one for each, or one for all"),
        (("a", None, "vae"), "invalid_lora_target",
         ("target: must be one of all, transformer, transformer_2, unet, critic, text_encoder, text_encoder_2, "
         "got 'vae'")),
        (("a", None, "all", float("nan")), "invalid_value", "strength: must be a finite number, got NaN"),
        (("a", None, "all", 1.0, None, 8), "missing_parameter",
         "lora_path: 'a' needs its path too, to be loaded in another way"),
        (("",), "invalid_value", "lora_nickname: must have 1 to 64 characters, got ''"),
    ],
)  # fmt: skip
def test_calls_that_cannot_be(call: Any, code: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        refs.of_call(*call)
    assert (error.value.code, error.value.message) == (code, message)


def test_an_adapter_of_a_request_needs_a_name_or_a_path() -> None:
    with pytest.raises(UsageError, match="loras: an entry needs the path of an adapter, or the name of a loaded one"):
        refs.check((LoraRef(scale=0.5),))


def test_an_adapter_of_a_request_goes_by_its_path_without_a_name() -> None:
    assert refs.nickname(LoraRef(path="/weights/ink.safetensors")) == "/weights/ink.safetensors"
    with pytest.raises(UsageError, match="there twice"):
        refs.check((LoraRef(path="a"), LoraRef(name="a")))


@pytest.mark.parametrize(
    ("call", "param", "message"),
    [
        ({"nickname": []}, "lora_nickname", "lora_nickname: required"),
        ({"nickname": None}, "lora_nickname", "lora_nickname: required"),
        ({"nickname": 5}, "lora_nickname", "lora_nickname: must be a text, got 5"),
        ({"path": 5}, "lora_path", "lora_path: must be a text, got 5"),
        ({"path": ""}, "lora_path", "lora_path: must not be empty"),
        ({"target": 5}, "target", "target: must be a text, got 5"),
        ({"strength": "0.5"}, "strength", 'strength: must be a number, got "0.5"'),
        ({"strength": True}, "strength", "strength: must be a number, got true"),
        ({"strength": 1e300}, "strength", "strength: must be from -1000000 to 1000000, got 1e+300"),
        ({"alpha": "8"}, "lora_alpha", 'lora_alpha: must be an integer, got "8"'),
        ({"alpha": 0}, "lora_alpha", "lora_alpha: must be greater than 0, got 0"),
        ({"alpha": 10**9}, "lora_alpha", "lora_alpha: must be greater than 0 and at most 1000000, got 1000000000"),
        ({"weight_name": 5}, "weight_name", "weight_name: must be a text, got 5"),
    ],
)
def test_values_of_a_wrong_kind_are_told_by_the_names_of_the_call(
    call: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(UsageError) as error:
        refs.of_call(**{"nickname": "a", "path": "a.safetensors", **call})
    assert (error.value.param, error.value.message) == (param, message)


def test_what_is_null_is_the_default() -> None:
    assert refs.of_call("a", Path("x"), None, None) == (LoraRef(name="a", path="x"),)  # type: ignore[arg-type]
    assert refs.of_call(["a", "b"], None, "all", [None, 2]) == (LoraRef("a"), LoraRef("b", scale=2.0))  # type: ignore[list-item]


@pytest.mark.parametrize("strength", [float("nan"), float("-inf"), "1", -2e6])
def test_a_strength_is_checked_wherever_it_is_given(strength: Any) -> None:
    with pytest.raises(UsageError, match=r"^strength: must be"):
        refs.check_strength(strength)
