"""Spelling of flags: every one of the contract in all its forms, and what is answered to a wrong one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UsageError
from engine.schema import Field
from sgdiff_app import flags
from sgdiff_app.settings import COMPONENT_MAPS, find

NAMES = (Path(__file__).parent / "data" / "flags.txt").read_text().split()


def parsed(*words: str, command: str = "bench") -> dict[str, Any]:
    layer = flags.parse(words, command).finish()
    return {".".join(path): entry.value for path, entry in layer.entries.items()}


def sample(field: Field | None) -> tuple[list[str], Any]:
    """Return words for a field, and the value that they stand for."""
    if field is None:
        return ["some/repo"], "some/repo"
    if field.choices:
        word = field.choices[-1]
        return ([word, word], (word, word)) if field.kind == "list" else ([word], word)
    words: dict[str, tuple[list[str], Any]] = {
        "int": (["2"], 2), "float": (["0.5"], 0.5), "str": (["a b"], "a b"),
        "map": (['{"k": {"deep": 1}}'], 1), "group": (["{}"], None),
    }  # fmt: skip
    if field.kind == "list":
        word, value = words[field.item]
        return [*word, *word], (value, value)
    return words[field.kind]


@pytest.mark.parametrize("flag", [name for name in NAMES if name.startswith("--")])
def test_every_flag_parses_in_all_its_forms(flag: str) -> None:
    target = find(flag[2:], flag, "flag")
    place = ".".join(target.path)
    if target.shorthand is not None:
        assert parsed(flag) == parsed(flag, "true") == parsed(f"{flag}=yes")
        assert parsed(flag)[place] == target.shorthand.on
        assert parsed(f"--no-{flag[2:]}").get(place) == target.shorthand.off
        return
    field = target.field
    if field is not None and field.kind == "bool":
        for words in (
            [flag],
            [flag, "true"],
            [flag, "1"],
            [f"{flag}=YES"],
            [flag.replace("-", "_")[2:].join(["--", ""])],
        ):
            assert parsed(*words) == {place: True}
        for words in ([flag, "false"], [f"{flag}=off"], [f"--no-{flag[2:]}"], [f"--no_{flag[2:]}"]):
            assert parsed(*words) == {place: False}
        return
    if field is not None and field.kind in ("map", "group"):
        value = {"vae": "x"} if target.setting.name in COMPONENT_MAPS else {}
        assert parsed(flag, json.dumps(value)) == {f"{place}.{key}": entry for key, entry in value.items()}
        return
    if flag == "--size":
        assert parsed(flag, "64x32") == {"size": "64x32", "width": 64, "height": 32}
        return
    words, value = sample(field)
    assert parsed(flag, *words) == {place: value}
    assert parsed("--" + flag[2:].replace("-", "_"), *words) == {place: value}
    if field is None or field.kind != "list":
        assert parsed(f"{flag}={words[0]}") == {place: value}
    else:
        assert parsed(f"{flag}={words[0]}", flag, words[1]) == {place: value}


def test_no_flag_of_the_contract_is_lost_and_none_is_undocumented() -> None:
    from sgdiff_app.settings import known_names

    extra = {"component_weights_paths", "vae_config", "dit_config", "quiet", "verbose"}
    assert {name[2:].replace("-", "_") for name in NAMES} | extra >= set(known_names())


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["--seed", "1,2", "--seed", "3"], {"seed": (1, 2, 3)}),
        (["--seed", "7"], {"seed": 7}),
        (["--gpu-ids", "0,1"], {"gpu_ids": (0, 1)}),
        (["--steps", "4", "--num-inference-steps=6"], {"num_inference_steps": 6}),
        (["--image-path", "a.png", "b.png", "--image-paths", "c.png"], {"image_path": ("a.png", "b.png", "c.png")}),
        (["--prompt", "a fox", "a cat"], {"prompt": ("a fox", "a cat")}),
        (["--prompt=-v-"], {"prompt": ("-v-",)}),
        (["--guidance-scale", "1e1"], {"guidance_scale": 10.0}),
        (["--lora-target-modules", "to_q,to_k"], {"lora_target_modules": ("to_q", "to_k")}),
        (["-q"], {"log_level": "warning"}),
        (["-v"], {"log_level": "debug"}),
        (["--warmup"], {"warmup_mode": "request"}),
        (["--warmup", "false"], {"warmup_mode": "off"}),
        (["--text-encoder-2-path", "x"], {"component_paths.text_encoder_2": "x"}),
        (["--component-paths.text-encoder-2=x"], {"component_paths.text_encoder_2": "x"}),
        (["--transformer-weights-path", "7"], {"component_weights_paths.transformer": "7"}),
        (["--vae-path", "a", "--component-paths.vae", "b", "--component-paths", '{"vae": "c"}'],
         {"component_paths.vae": "a"}),
        (["--component-paths.vae", "b", "--component-paths", '{"vae": "c", "unet": "d"}'],
         {"component_paths.vae": "b", "component_paths.unet": "d"}),
        (["--attention-backend-config", "a=1,b=x"],
         {"attention_backend_config.a": 1, "attention_backend_config.b": "x"}),
        (["--diffusers-kwargs.cross-kwargs.scale", "0.5"], {"diffusers_kwargs.cross-kwargs.scale": 0.5}),
        (["--diffusers-kwargs", '{"a": {"b": 1, "c": 2}}', "--diffusers-kwargs.a.b", "3"],
         {"diffusers_kwargs.a.b": 3, "diffusers_kwargs.a.c": 2}),
        (["--vae-config", '{"load_encoder": false, "load_decoder": true}', "--vae-config.load-encoder"],
         {"vae_config.load_encoder": True, "vae_config.load_decoder": True}),
        (["--720p"], {"size": "1280x720", "width": 1280, "height": 720}),
    ],
)  # fmt: skip
def test_forms(words: list[str], values: dict[str, Any]) -> None:
    assert parsed(*words) == values


def test_a_map_may_be_the_path_of_a_file() -> None:
    Path("kwargs.yaml").write_text("eta: 0.5\n")
    assert parsed("--diffusers-kwargs", "kwargs.yaml") == {"diffusers_kwargs.eta": 0.5}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num-inf", "3"], "--num-inf: unknown flag; did you mean '--num-inference-steps'?"),
        (["--heigth", "3"], "--heigth: unknown flag; did you mean '--height'?"),
        (["--vae-config.load-encode"],
         "--vae-config.load-encode: unknown flag; did you mean '--vae-config.load-encoder'?"),
        (["--config-path", "x"], "--config-path: unknown flag; did you mean '--config'?"),
        (["--steps", "x"], '--steps: must be an integer, got "x"'),
        (["--steps", "0"], "--steps: must be at least 1, got 0"),
        (["--steps"], "--steps: needs a value"),
        (["--steps", "--seed", "1"], "--steps: needs a value; a value that starts with '-' is written --steps=--seed"),
        (["--backend", "x"], '--backend: must be one of auto, sglang, native, diffusers, got "x"'),
        (["--vae-tiling", "maybe"], "--vae-tiling: must be one of 1, true, yes, on, 0, false, no, off, got 'maybe'"),
        (["--no-steps"], "--no-steps: only switches have a --no- form"),
        (["--no-vae-tiling=true"], "--no-vae-tiling: takes no value"),
        (["a fox"], "unexpected argument 'a fox'; settings are flags, as in --prompt 'a fox'"),
        (["-x"], "-x: unknown flag; flags have two dashes, but for -q, -v"),
        (["--diffusers-kwargs", "{"],
         "--diffusers-kwargs: not JSON: Expecting property name enclosed in double quotes (line 1 column 2)"),
        (["--diffusers-kwargs", "[1]"], "--diffusers-kwargs: must be a mapping, got [1]"),
        (["--diffusers-kwargs", "a=1"],
         "--diffusers-kwargs: must be JSON, the path of a .json or .yaml file, got 'a=1'"),
        (["--vae-config", '{"load_encode": true}'],
         "--vae-config.load_encode: unknown key; did you mean 'load_encoder'?"),
        (["--size", "0x10"], "--size: must be WIDTHxHEIGHT with positive integers, got '0x10'"),
        (["--server-warmup"], "--server-warmup: was replaced; use warmup_mode: server"),
        (["--decoder-tp", "2"], "--decoder-tp: was replaced; use vae_sp"),
        (["--text-encoder-configs", "x"], "--text-encoder-configs: not supported; use text_encoder_precisions"),
        (["--sr-model", "x"], "--sr-model: not supported"),
        (["--config", "a.yaml", "--config=b.yaml"], "--config: may be given once"),
        (["--repeat", "3"], "--repeat: a flag of 'bench', not of 'generate'"),
    ],
)  # fmt: skip
def test_wrong_flags_are_answered(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        flags.parse(words, "generate").finish()
    assert str(caught.value) == message


def test_serve_names_the_command_that_a_flag_belongs_to() -> None:
    for words in (["--prompt", "x"], ["--seed", "1"], ["--output-file-name", "x"], ["--from-file", "x"]):
        with pytest.raises(UsageError, match=f"{words[0]}: a flag of 'generate', not of 'serve'"):
            flags.parse(words, "serve")
    assert parsed("--output-path", "x", "--port", "1", command="serve") == {"output_path": "x", "port": 1}


def test_generate_takes_the_flags_of_the_server() -> None:
    assert parsed("--port", "1", "--headless", command="generate") == {"port": 1, "headless": True}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--json"], {"json": True}),
        (["--steps", "x", "--nonsense", "--json=true", "-v"], {"json": True, "log_level": "debug"}),
        (["--json", "--no-json", "--log-level", "nonsense", "-q"], {"json": False, "log_level": "warning"}),
        (["generate", "--prompt=--json", "--steps", "4"], {}),
    ],
)
def test_some_settings_of_a_line_that_may_be_wrong(words: list[str], found: dict[str, object]) -> None:
    layer = flags.pick(words, ("json", "log_level"))
    assert {path[0]: entry.value for path, entry in layer.entries.items()} == found


@pytest.mark.parametrize(
    ("word", "needed"), [("--prompt", True), ("--prompt=x", False), ("--json", False), ("x", False), ("-v", False)]
)
def test_flags_whose_value_has_to_follow(word: str, needed: bool) -> None:
    assert flags.needs_value(word) is needed
