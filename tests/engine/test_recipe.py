"""The recipe of an output makes it again, and says what is different."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import recipe, schema
from engine.engine import Engine
from engine.errors import InputError
from engine.types import Output, Request

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


def test_a_later_format_is_refused() -> None:
    with pytest.raises(InputError) as error:
        recipe.settings({"sgdiff": 2})
    assert error.value.message == "recipe: format 2 is not known; this version reads 1"
