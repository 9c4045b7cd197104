"""The environment: names, their order, wrong values, unknown names."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from engine.errors import UsageError
from sgdiff_app import variables
from sgdiff_app.settings import table


def values() -> dict[str, Any]:
    return {".".join(path): entry.value for path, entry in variables.read()[0].entries.items()}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("SGDIFF_PORT", "5", {"port": 5}),
        ("SGDIFF_MODEL_PATH", "x", {"model_path": "x"}),
        ("SGDIFF_LOG_LEVEL", "debug", {"log_level": "debug"}),
        ("SGDIFF_STEPS", "5", {"num_inference_steps": 5}),
        ("SGDIFF_SEED", "5", {"seed": 5}),
        ("SGDIFF_VAE_TILING", "oN", {"vae_tiling": True}),
        ("SGDIFF_VAE_TILING", "", {}),
        ("SGDIFF_VAE_PATH", "x", {"component_paths.vae": "x"}),
        ("SGDIFF_WARMUP", "1", {"warmup_mode": "request"}),
        ("SGDIFF_VAE_CONFIG_LOAD_ENCODER", "no", {"vae_config.load_encoder": False}),
        ("SGDIFF_API_KEY", "a,b", {"api_key": ("a", "b")}),
        ("SGLANG_CACHE_DIT_FN", "2", {"cache_dit_params.Fn_compute_blocks": 2}),
        ("SGLANG_CACHE_DIT_SCM_COMPUTE_BINS", "8,3", {"cache_dit_params.scm_compute_bins": (8, 3)}),
        ("SGLANG_CACHE_DIT_SECONDARY_RDT", "0.3", {"cache_dit_params.secondary.residual_diff_threshold": 0.3}),
        ("SGLANG_CACHE_DIT_ENABLED", "true", {"enable_cache_dit": True}),
        ("SGLANG_DIFFUSION_ATTENTION_CONFIG", "x", {"mask_strategy_file_path": "x"}),
        ("SGDIFF_DIFFUSION_ATTENTION_CONFIG", "x", {"mask_strategy_file_path": "x"}),
        ("SGLANG_PORT", "5", {}),
    ],
)
def test_what_a_variable_sets(monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: dict[str, Any]) -> None:
    monkeypatch.setenv(name, text)
    assert values() == expected


def test_every_scalar_setting_has_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in table().values():
        if setting.field.kind not in ("list", "map", "group"):
            samples = {"bool": "true", "int": "1", "float": "0.5", "str": "64x64"}
            text = str(setting.field.choices[-1]) if setting.field.choices else samples[setting.field.kind]
            monkeypatch.setenv("SGDIFF_" + setting.name.upper(), text)
    scalars = {s.name for s in table().values() if s.field.kind not in ("list", "map", "group")}
    assert scalars <= values().keys()


def test_our_name_wins_over_the_swapped_one_and_that_over_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, path in (
        ("SGLANG_DIFFUSION_ATTENTION_CONFIG", "c"), ("SGDIFF_DIFFUSION_ATTENTION_CONFIG", "b"),
        ("SGDIFF_ATTENTION_CONFIG", "a"),
    ):  # fmt: skip
        monkeypatch.setenv(name, path)
        assert values() == {"mask_strategy_file_path": path}
    monkeypatch.setenv("SGLANG_CACHE_DIT_RDT", "0.1")
    monkeypatch.setenv("SGDIFF_CACHE_DIT_RDT", "0.2")
    assert values()["cache_dit_params.residual_diff_threshold"] == 0.2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("SGLANG_CACHE_DIT_RDT", "abc", 'SGLANG_CACHE_DIT_RDT: must be a number, got "abc"'),
        ("SGDIFF_VAE_TILING", "2", "SGDIFF_VAE_TILING: must be one of 1, true, yes, on, 0, false, no, off, got '2'"),
        ("SGDIFF_BACKEND", "x", 'SGDIFF_BACKEND: must be one of auto, sglang, native, diffusers, got "x"'),
        ("SGLANG_CACHE_DIT_SECONDARY_FN", "x", 'SGLANG_CACHE_DIT_SECONDARY_FN: must be an integer, got "x"'),
    ],
)
def test_a_wrong_value_names_the_variable(monkeypatch: pytest.MonkeyPatch, name: str, text: str, message: str) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(UsageError) as caught:
        variables.read()
    assert str(caught.value) == message


def test_an_unknown_name_of_ours_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SGDIFF_SEEED", "SGLANG_ANYTHING", "SGDIFF_S3_BUCKET_NAME"):
        monkeypatch.setenv(name, "1")
    assert variables.read()[1] == [(logging.WARNING, "unknown variable SGDIFF_SEEED; did you mean 'SGDIFF_SEED'?")]


def test_some_settings_of_an_environment_that_may_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("STEPS", "x"), ("JSON", "1"), ("LOG_LEVEL", "nonsense"), ("PROMPT", "x")):
        monkeypatch.setenv(f"SGDIFF_{name}", text)
    layer = variables.pick(("json", "log_level"))
    assert {path[0]: entry.value for path, entry in layer.entries.items()} == {"json": True}
