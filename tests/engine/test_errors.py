"""Errors: codes, exit statuses, and the two helpers that word them."""

from __future__ import annotations

import pytest

from engine import errors
from engine.errors import NotAvailable, OutOfMemory, SgdiffError, UsageError, listed, shown, suggest


@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [
        (SgdiffError, "internal_error", 1),
        (UsageError, "invalid_value", 2),
        (NotAvailable, "unsupported_parameter", 2),
        (errors.ModelError, "model_not_found", 1),
        (errors.InputError, "invalid_image", 2),
        (errors.OutputError, "output_not_writable", 1),
        (errors.GenerationError, "generation_failed", 1),
        (OutOfMemory, "out_of_memory", 1),
        (errors.Cancelled, "cancelled", 130),
    ],
)
def test_every_kind_has_its_code_and_exit_status(kind: type[SgdiffError], code: str, status: int) -> None:
    error = kind("it broke")
    assert (error.code, error.exit_status, error.message, str(error)) == (code, status, "it broke", "it broke")
    assert error.param is None


def test_a_code_of_its_own_changes_one_error_only() -> None:
    error = UsageError("size: too large", code="invalid_size", param="size")
    assert (error.code, error.param) == ("invalid_size", "size")
    assert UsageError("other").code == "invalid_value"


def test_a_setting_that_is_not_built_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="not available yet"):
        raise NotAvailable("num_gpus: not available yet")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("num_inference_step", "; did you mean 'num_inference_steps'?"),
        ("sead", "; did you mean 'seed'?"),
        ("colour", ""),
        ("", ""),
    ],
)
def test_suggest_names_the_closest_or_nothing(name: str, hint: str) -> None:
    assert suggest(name, iter(["seed", "num_inference_steps", "strength"])) == hint


def test_listed_joins_values_of_any_type() -> None:
    assert listed(["auto", 3, 0.5, None]) == "auto, 3, 0.5, None"
    assert listed([]) == ""


def test_a_long_value_is_cut_short() -> None:
    assert (shown("a" * 80), shown("a" * 81), shown(7)) == ("a" * 80, "a" * 77 + "...", "7")
