"""The recipe of an output makes it again, and says what is different."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import catalog, hub, media, recipe, schema, storage
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import InputError
from engine.hub import Source
from engine.types import LoraRef, Output, Request, Timings

FIELDS: dict[str, Any] = {"prompt": "a red house", "height": 64, "width": 64, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def output(flux: Engine) -> Output:
    return flux.generate(**FIELDS, n=2, seed=30)[1]


def test_a_recipe_replays_its_own_output(flux: Engine, output: Output) -> None:
    stored = json.loads(json.dumps(output.recipe))
    settings = recipe.settings(stored)
    fields = {name: value for name, value in settings.items() if name in schema.fields(Request)}
    (again,) = flux.run(schema.read(Request, fields))
    np.testing.assert_array_equal(again.frames, output.frames)
    assert recipe.differences(stored, again.recipe) == []


def test_it_holds_its_own_seed_and_what_made_it(output: Output, flux_folder: Path) -> None:
    assert output.recipe["request"]["seed"] == 31
    assert output.recipe["request"]["num_outputs_per_prompt"] == 1
    engine = output.recipe["engine"]
    assert engine["model"] == "black-forest-labs/FLUX.1-dev"
    assert engine["precisions"] == dict.fromkeys(("text_encoder", "text_encoder_2", "transformer", "vae"), "fp32")
    assert engine["attention_backend"] == "torch_sdpa"
    assert engine["device"] == "cpu"
    assert len(engine["folder_hash"]) == 64
    assert {"torch", "diffusers", "transformers", "python"} <= set(engine["versions"])


def test_no_local_path_is_recorded(flux: Engine, flux_folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (9, 9, 9)).save(tmp_path / "image.png")
    (output,) = flux.generate(**FIELDS, image_path=str(tmp_path / "image.png"), seed=1)
    text = json.dumps(output.recipe)
    assert str(tmp_path) not in text
    assert str(flux_folder.parent) not in text
    assert len(output.recipe["inputs"]["image_path"][0]) == 64


def test_differences_are_named(output: Output) -> None:
    other: Any = copy.deepcopy(dict(output.recipe))
    other["engine"]["versions"]["torch"] = "1.0"
    other["engine"]["device"] = "cuda"
    other["request"]["height"] = 96
    lines = recipe.differences(other, output.recipe)
    assert lines[0] == "device: was cuda, is cpu"
    assert lines[1].startswith("torch: was 1.0, is ")
    assert lines[2:] == ["height: was 96, is 64"]


COMMIT = "0123456789abcdef0123456789abcdef01234567"
ENGINE: dict[str, Any] = {
    "model": "owner/name", "model_path": "owner/name", "revision": COMMIT, "folder_hash": "0" * 64, "overrides": {},
    "settings": {"dit_precision": "fp32"}, "precisions": {"vae": "fp32"}, "loras": [], "caching": None,
    "quantization": None, "attention_backend": "torch_sdpa", "device": "cpu", "versions": {"torch": "2.11.0"},
}  # fmt: skip


def made(request: dict[str, Any] | None = None, **engine: Any) -> dict[str, Any]:
    """Return a recipe with some parts replaced."""
    inner = {"prompt": "a fox", "seed": 3} if request is None else request
    return {"sgdiff": 1, "request": inner, "engine": {**ENGINE, **engine}, "inputs": {}}


def refusal(stored: Any, action: Any = recipe.settings) -> str:
    with pytest.raises(InputError) as error:
        action(stored)
    assert (error.value.code, error.value.exit_status) == ("invalid_recipe", 2)
    return error.value.message


def in_a_picture(stored: Any, folder: Path) -> Any:
    """Put a recipe into a PNG and read it out again, as it would come from a stranger."""
    output = Output(np.zeros((1, 4, 4, 3), np.uint8), Request(seed=1), stored, Timings(1.0, (), (), {}, 0.0))
    return media.read_recipe(storage.save(output, folder / "picture.png").location)


def test_what_replays_a_recipe(tmp_path: Path) -> None:
    request = {"prompt": "a fox", "seed": 3, "negative_prompt": None}
    assert recipe.settings(in_a_picture(made(request), tmp_path)) == {
        "model_path": "owner/name", "revision": COMMIT, "dit_precision": "fp32", "prompt": "a fox", "seed": 3,
    }  # fmt: skip
    assert "revision" not in recipe.settings(made(revision=None))


def test_what_the_user_gives_is_not_taken_from_the_recipe() -> None:
    given = {"model_path", "seed"}
    assert recipe.settings(made(), given) == {"dit_precision": "fp32", "prompt": "a fox"}
    assert recipe.settings(made(model_path="/srv/model"), given) == {"dit_precision": "fp32", "prompt": "a fox"}


@pytest.mark.parametrize(
    "name",
    ["trust_remote_code", "perf_dump_path", "output_path", "print_config", "component_paths", "model_path", "steps",
     "image_path", "config", "x" * 100],
)  # fmt: skip
@pytest.mark.parametrize("place", ["request", "settings"])
def test_a_recipe_sets_nothing_but_what_makes_the_picture(name: str, place: str, tmp_path: Path) -> None:
    stored = made({"prompt": "a fox", name: True}) if place == "request" else made(settings={name: True})
    shown = name if len(name) < 60 else "x" * 57 + "..."
    expected = f"recipe: holds '{shown}', which a recipe cannot set"
    assert refusal(in_a_picture(stored, tmp_path)) == expected


def test_a_field_of_the_request_is_no_setting_of_the_engine() -> None:
    assert refusal(made(settings={"prompt": "x"})) == "recipe: holds 'prompt', which a recipe cannot set"
    assert refusal(made({"dit_precision": "fp16"})) == "recipe: holds 'dit_precision', which a recipe cannot set"


@pytest.mark.parametrize("path", ["/srv/model", "./model", "../model", "~/model", "a/b/c", "C:\\model", ""])
def test_a_recipe_opens_no_folder_of_its_choice(path: str, tmp_path: Path) -> None:
    stored = in_a_picture(made(model_path=path), tmp_path)
    assert refusal(stored) == f"recipe: names its model by a path, '{path}'; pass --model-path"


def test_a_recipe_opens_no_folder_that_looks_like_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert refusal(made()) == "recipe: names its model by a path, 'owner/name'; pass --model-path"


@pytest.mark.parametrize("revision", ["main", "../../x", COMMIT.upper(), 7, [COMMIT]])
def test_a_revision_is_a_commit(revision: Any) -> None:
    assert refusal(made(revision=revision)) == "recipe: is damaged: engine.revision must be the hash of a commit"


DAMAGED: list[tuple[Any, str]] = [
    ({"sgdiff": 1}, "request must be a mapping"),
    ({"sgdiff": 1, "request": []}, "request must be a mapping"),
    ({"sgdiff": 1, "request": {}}, "engine must be a mapping"),
    ({"sgdiff": 1, "request": {}, "engine": "x"}, "engine must be a mapping"),
    ({"sgdiff": 1, "request": {}, "engine": ENGINE}, "inputs must be a mapping"),
    ({**made(), "inputs": [1, 2]}, "inputs must be a mapping"),
    ({**made(), "inputs": {"image_path": "x"}}, "inputs.image_path must be a list of texts"),
    ({**made(), "inputs": {"image_path": [1, 2]}}, "inputs.image_path must be a list of texts"),
    (made(settings=[]), "engine.settings must be a mapping"),
    (made(versions=None), "engine.versions must be a mapping"),
    (made(model_path=3), "engine.model_path must be a text"),
    (made(loras={}), "engine.loras must be a list"),
    *(({**made(), "engine": {k: v for k, v in ENGINE.items() if k != name}}, f"engine.{name} must be {noun}")
      for name, noun in (("model", "a text"), ("model_path", "a text"), ("folder_hash", "a text"),
                         ("overrides", "a mapping"), ("settings", "a mapping"), ("precisions", "a mapping"),
                         ("loras", "a list"), ("attention_backend", "a text"), ("device", "a text"),
                         ("versions", "a mapping"))),
]  # fmt: skip


@pytest.mark.parametrize(("stored", "problem"), DAMAGED)
def test_a_damaged_recipe_is_said(stored: Any, problem: str) -> None:
    assert refusal(stored) == f"recipe: is damaged: {problem}"
    assert refusal(stored, lambda bad: recipe.differences(bad, made())) == f"recipe: is damaged: {problem}"


def test_an_input_that_is_none_is_refused() -> None:
    assert refusal({**made(), "inputs": {"perf_dump_path": []}}) == "recipe: holds 'perf_dump_path', which is no input"


def test_another_format_is_refused() -> None:
    assert refusal({"sgdiff": 2}) == "recipe: format 2 is not known; this version reads 1"
    assert refusal({"request": {}}) == "recipe: format None is not known; this version reads 1"


def engine_part(folder: Path, name: str, **settings: Any) -> dict[str, Any]:
    spec = dataclasses.replace(catalog.MODELS[0], id=name)  # as that of a model which no catalog knows
    source = Source(name=name, folder=folder, revision=None, index={}, configs={}, spec=None)
    config = EngineConfig(**settings)
    return recipe.engine_part(source, spec, config, device="cpu", attention="torch_sdpa", precisions={})


def test_every_setting_that_changes_pixels_is_replayed(flux_folder: Path) -> None:
    settings = {
        "backend": "diffusers", "pipeline_class_name": "FluxPipeline", "dit_precision": "fp32", "vae_precision": "fp16",
        "image_encoder_precision": "bf16", "text_encoder_precisions": ("fp32", "fp16"), "vae_tiling": True,
        "vae_slicing": True, "attention_backend": "torch_sdpa", "diffusers_attention_backend": "flash",
    }  # fmt: skip
    part = engine_part(flux_folder, "owner/name", **settings, offline=True, trust_remote_code=True)
    stored = json.loads(json.dumps(recipe.build(Request(prompt="a fox"), part)))
    replayed = recipe.settings(stored)
    assert {name: replayed[name] for name in settings} == {**settings, "text_encoder_precisions": ["fp32", "fp16"]}
    assert set(stored["engine"]["settings"]) == set(settings)
    config = schema.read(EngineConfig, {name: replayed[name] for name in settings})
    assert config == EngineConfig(**settings)


def test_of_a_local_model_only_the_name_is_recorded(
    flux_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").symlink_to(flux_folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    names = {str(tmp_path / "mine"): "mine", "~/mine": "mine", "./mine/": "mine", ".": tmp_path.name, "mine": "mine"}
    names |= {"owner/name": "owner/name", "~/gone": "~/gone"}
    for typed, recorded in names.items():
        part = engine_part(flux_folder, typed)
        assert (part["model"], part["model_path"]) == (recorded, recorded)


def test_weights_of_their_own_are_recorded(flux_folder: Path) -> None:
    place = str(flux_folder / "transformer")
    with Engine.from_pretrained(str(flux_folder), component_weights_paths={"transformer": place}) as engine:
        assert engine.recipe["overrides"] == {"transformer_weights": hub.folder_hash(Path(place))}


LORA = {"path": "owner/name", "weight_name": "a.safetensors", "sha256": "0" * 64, "scale": 0.5, "target": "transformer"}


def test_loras_of_a_recipe(tmp_path: Path) -> None:
    stored = in_a_picture(made(loras=[LORA, {"path": "b.safetensors", "sha256": "1", "modules": ["to_q"]}]), tmp_path)
    assert recipe.loras(stored) == (
        LoraRef("lora_1", "owner/name", 0.5, "transformer", weight_name="a.safetensors"),
        LoraRef("lora_2", "b.safetensors", modules=("to_q",)),
    )
    assert recipe.loras(made()) == ()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("a.safetensors", "recipe: is damaged: engine.loras must list mappings with path and sha256"),
        ({"sha256": "1"}, "recipe: is damaged: engine.loras must list mappings with path and sha256"),
        ({**LORA, "sha256": None}, "recipe: is damaged: engine.loras must list mappings with path and sha256"),
        ({**LORA, "path": "/srv/a.safetensors"}, "recipe: names a LoRA by a path, '/srv/a.safetensors'"),
        ({**LORA, "path": "../a.safetensors"}, "recipe: names a LoRA by a path, '../a.safetensors'"),
        ({**LORA, "name": "own"}, "recipe: is damaged: engine.loras must list mappings with path and sha256"),
        ({**LORA, "scale": "1"}, 'recipe: is damaged: engine.loras: scale: must be a number, got "1"'),
        ({**LORA, "code": "x"}, "recipe: is damaged: engine.loras: code: unknown name"),
    ],
)
def test_a_damaged_lora_of_a_recipe(entry: Any, message: str) -> None:
    assert refusal(made(loras=[entry]), recipe.loras) == message
