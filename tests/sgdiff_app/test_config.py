"""Layers of settings: who wins, what a config file may say, what the seeds' files mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.errors import NotAvailable, UsageError
from engine.types import Request
from sgdiff_app import config
from sgdiff_app.config import Settings

HUNYUAN = {
    "model_path": "FastVideo/FastHunyuan-diffusers", "prompt": "A beautiful woman in a red dress walking down a street",
    "output_path": "outputs/", "num_gpus": 2, "sp_size": 2, "tp_size": 1, "num_frames": 45, "height": 720,
    "width": 1280, "num_inference_steps": 6, "seed": 1024, "fps": 24, "precision": "bf16", "vae_precision": "fp16",
    "vae_tiling": True, "vae_sp": True,
    "vae_config": {
        "load_encoder": False, "load_decoder": True, "tile_sample_min_height": 256, "tile_sample_min_width": 256,
    },
    "text_encoder_precisions": ["fp16", "fp16"], "mask_strategy_file_path": None, "enable_torch_compile": False,
}  # fmt: skip
SDXL = {
    "model_path": "stabilityai/stable-diffusion-xl-base-1.0", "prompt": "A majestic dragon flying over mountains",
    "negative_prompt": "blurry, low quality", "num_inference_steps": 50, "guidance_scale": 7.5, "height": 1024,
    "width": 1024, "seed": 12345, "num_samples": 2,
}  # fmt: skip


def written(values: dict[str, Any] | str, name: str = "c.json") -> str:
    Path(name).write_text(values if isinstance(values, str) else json.dumps(values))
    return name


def load(*words: str, command: str = "generate") -> Settings:
    return config.load(words, command)


def origin(settings: Settings, *path: str) -> tuple[Any, str]:
    entry = settings.entries[path]
    return entry.value, entry.origin


def test_the_seeds_files_parse() -> None:
    import yaml

    for name, text in (("a.json", json.dumps(HUNYUAN)), ("a.yaml", yaml.safe_dump(HUNYUAN))):
        settings = load("--config", written(text, name))
        engine, request = settings.noun(EngineConfig), settings.noun(Request)
        assert (engine.num_gpus, engine.sp_degree, engine.dit_precision) == (2, 2, "bf16")
        assert (engine.vae_config.load_encoder, engine.vae_config.tile_sample_min_width) == (False, 256)
        assert engine.text_encoder_precisions == ("fp16", "fp16")
        assert (request.num_frames, request.fps, request.num_inference_steps, request.seed) == (45, 24, 6, 1024)
    assert load("--config", written(SDXL)).noun(Request).num_outputs_per_prompt == 2


def test_the_order_of_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    name = written({"num_inference_steps": 6, "vae_config": {"load_encoder": True, "load_decoder": True}})
    monkeypatch.setenv("SGDIFF_NUM_INFERENCE_STEPS", "9")
    monkeypatch.setenv("SGDIFF_VAE_CONFIG_LOAD_ENCODER", "off")
    both = load("--config", name, "--steps", "4", "--vae-config.load-encoder", "false")
    assert origin(both, "num_inference_steps") == (4, "cli")
    assert origin(both, "vae_config", "load_encoder") == (False, "cli")
    assert origin(both, "vae_config", "load_decoder") == (True, "file")
    assert origin(load("--config", name), "num_inference_steps") == (6, "file")
    assert origin(load("--config", name), "vae_config", "load_encoder") == (True, "file")
    assert origin(load(), "num_inference_steps") == (9, "env")
    assert load().noun(EngineConfig).vae_config.load_encoder is False


def test_a_flag_equal_to_the_default_still_wins() -> None:
    settings = load("--config", written({"num_samples": 3}), "--n", "1")
    assert origin(settings, "num_outputs_per_prompt") == (1, "cli")


def test_component_paths_agree_in_every_form() -> None:
    forms = [
        ["--vae-path", "x"],
        ["--component-paths", '{"vae": "x"}'],
        ["--component-paths.vae=x"],
        ["--config", written("component_paths: {vae: x}", "a.yaml")],
        ["--config", written("vae-path: x", "b.yaml")],
    ]
    assert [load(*form).noun(EngineConfig).component_paths for form in forms] == [{"vae": "x"}] * 5


def test_maps_merge_key_by_key() -> None:
    name = written({"diffusers_kwargs": {"a": {"b": 1, "c": 2}, "eta": 0.5}, "component_paths": {"vae": "x"}})
    settings = load("--config", name, "--diffusers-kwargs.a.b", "3", "--transformer-path", "y")
    assert settings.noun(Request).diffusers_kwargs == {"a": {"b": 3, "c": 2}, "eta": 0.5}
    assert settings.noun(EngineConfig).component_paths == {"vae": "x", "transformer": "y"}


def test_a_value_goes_to_every_noun_that_has_it() -> None:
    settings = load("--flow-shift", "3", "--cache-dit-params.Fn-compute-blocks", "2")
    assert settings.noun(EngineConfig).flow_shift == settings.noun(Request).flow_shift == 3.0
    assert settings.noun(EngineConfig).cache_dit_params.Fn_compute_blocks == 2
    assert settings.noun(Request).cache_dit_params == {"Fn_compute_blocks": 2}


def test_a_stronger_layer_displaces_what_it_excludes() -> None:
    name = written({"prompt_path": "p.txt", "output_path": "here", "size": "64x64", "dit_cpu_offload": True})
    settings = load("--config", name, "--prompt", "x", "--output-file-path", "a/b.png", "--width", "32")
    assert ("prompt_path",) not in settings.entries
    assert ("output_path",) not in settings.entries
    assert (settings.noun(Request).width, settings.noun(Request).height) == (32, 64)
    assert ("size",) not in settings.entries


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_inference_step": 6}, "c.json: num_inference_step: unknown key; did you mean 'num_inference_steps'?"),
        ({"vae_config": {"load_encode": 1}},
         "c.json: vae_config.load_encode: unknown key; did you mean 'load_encoder'?"),
        ({"vae_config.load_encode": 1},
         "c.json: vae_config.load_encode: unknown key; did you mean 'vae_config.load_encoder'?"),
        ({"cache_dit_params": {"Fn": 1}}, "c.json: cache_dit_params.Fn: unknown key"),
        ({"num_inference_steps": "6"}, 'c.json: num_inference_steps: must be an integer, got "6"'),
        ({"num_inference_steps": 6.5}, "c.json: num_inference_steps: must be an integer, got 6.5"),
        ({"vae_tiling": "yes"}, 'c.json: vae_tiling: must be true or false, got "yes"'),
        ({"vae_tiling": 1}, "c.json: vae_tiling: must be true or false, got 1"),
        ({"vae_config": 5}, "c.json: vae_config: must be a mapping, got 5"),
        ({"vae_config": {"tile_sample_min_height": "a"}},
         'c.json: vae_config.tile_sample_min_height: must be an integer, got "a"'),
        ({"steps": 6, "num_inference_steps": 6}, "c.json: num_inference_steps: the same setting as c.json: steps"),
        ({"num-samples": 1, "num_samples": 1}, "c.json: num_samples: the same setting as c.json: num-samples"),
        ({"vae_path": "x", "component_paths": {"vae": "x"}},
         "c.json: component_paths.vae: the same setting as c.json: vae_path"),
        ({"warmup": True, "warmup_mode": "off"}, "c.json: warmup_mode: the same setting as c.json: warmup"),
        ({"config": "other.json"}, "c.json: config: a config file cannot name another one"),
        ({"server_warmup": True}, "c.json: server_warmup: was replaced; use warmup_mode: server"),
        ({"disagg_role": "x"}, "c.json: disagg_role: not supported"),
        ({"warmup": "maybe"}, 'c.json: warmup: must be true or false, got "maybe"'),
        ({"prompt": "a", "prompt_path": "b"}, "c.json: prompt_path: excludes c.json: prompt; give one of them"),
        ({"size": "64x64", "width": 32}, "c.json: size 64x64 contradicts c.json: width 32"),
        ({"dit_cpu_offload": True, "dit_layerwise_offload": True},
         "c.json: dit_layerwise_offload: excludes c.json: dit_cpu_offload; give one of them"),
    ],
)  # fmt: skip
def test_what_a_config_file_cannot_say(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load("--config", written(values))
    assert str(caught.value) == message


def test_null_is_absent_and_one_value_is_a_list_of_one() -> None:
    settings = load(
        "--config", written({"seed": None, "config": None, "image_path": "a.png", "text_encoder_precisions": "fp16"})
    )
    assert settings.noun(Request).seed is None
    assert settings.noun(Request).image_path == ("a.png",)
    assert settings.noun(EngineConfig).text_encoder_precisions == ("fp16",)


def test_one_file_serves_both_commands() -> None:
    name = written({"model_path": "some/model", "prompt": "a fox", "port": 1, "seed": 3})
    generate, serve = load("--config", name), load("--config", name, command="serve")
    assert generate.noun(EngineConfig) == serve.noun(EngineConfig)
    assert [text for _, text in serve.notices] == [f"{name}: settings of 'generate', ignored here: prompt, seed"]
    assert [text for _, text in generate.notices] == [f"settings of the server, ignored here: {name}: port"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num-gpus", "2"], "--num-gpus: not available yet"),
        (["--warmup"], "--warmup: 'request' is not available yet; available: off, server"),
        (["--vae-config.use-parallel-tiling"], "--vae-config.use-parallel-tiling: not available yet"),
        (["--attention-backend-config", "a=1"], "--attention-backend-config.a: not available yet"),
        (["--config", "c.json"], "c.json: sp_size: not available yet"),
    ],
)
def test_what_is_not_built_is_refused_wherever_it_is_set(words: list[str], message: str) -> None:
    written({"sp_size": 2})
    with pytest.raises(NotAvailable) as caught:
        load(*words).require_available()
    assert str(caught.value) == message


def test_what_asks_for_nothing_is_taken_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_CACHE_DIT_ENABLED", "false")
    words = [
        "--num-gpus=1",
        "--sp-size=1",
        "--ulysses-degree=1",
        "--ring-degree=1",
        "--no-vae-sp",
        "--warmup=no",
        "--port=5",
    ]
    load(*words, "--dit-layerwise-offload=false").require_available()


def test_the_variable_of_what_is_not_built_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_CACHE_DIT_ENABLED", "true")
    with pytest.raises(NotAvailable, match=r"^SGLANG_CACHE_DIT_ENABLED: not available yet$"):
        load().require_available()
