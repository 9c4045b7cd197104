"""The nouns: what a request says, how it splits into outputs, and that it travels as JSON."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from engine import catalog, schema
from engine.errors import UsageError
from engine.resolve import resolve
from engine.types import Artifact, LoraRef, Output, Progress, Request, Timings

ROOT = Path(__file__).parents[2]
FULL = Request(
    prompt="A lighthouse in a storm",
    negative_prompt="blurry",
    image_path=("a.png",),
    seed=(3, 2**63 - 1),
    num_outputs_per_prompt=2,
    strength=0.5,
    loras=(LoraRef(path="style.safetensors", scale=0.8),),
    diffusers_kwargs={"cross_attention_kwargs": {"scale": 0.5}},
    output_format="webp",
)


def test_a_request_asks_for_nothing_but_a_prompt() -> None:
    """None is the model's default; what is not None is a default of the program."""
    said = {name: value for name, value in schema.plain(Request()).items() if value not in (False, {})}
    assert said == {
        "generator_device": "cpu", "num_outputs_per_prompt": 1, "quality": "auto", "cfg_gate_step": 1.0,
        "output_quality": "default", "x264_preset": "fast", "embed_recipe": True, "frame_interpolation_exp": 1,
        "frame_interpolation_scale": 1.0, "upscaling_scale": 4, "num_profiled_timesteps": 5,
    }  # fmt: skip


def test_a_request_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.seed = 4  # type: ignore[misc]
    assert FULL.replace(seed=4).seed == 4
    assert FULL.seed == (3, 2**63 - 1)


def test_a_request_survives_json() -> None:
    text = json.dumps(schema.plain(FULL))
    assert schema.read(Request, json.loads(text)) == FULL


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", 0, "steps: must be at least 1, got 0"),
        ("num_inference_steps", 1001, "num_inference_steps: must be at most 1000, got 1001"),
        ("strength", 1.5, "strength: must be at most 1, got 1.5"),
        ("n", 11, "n: must be at most 10, got 11"),
        ("seed", -1, "seed: must be at least 0, got -1"),
        ("height", 0, "height: must be at least 1, got 0"),
        ("fps", 121, "fps: must be at most 120, got 121"),
        ("output_compression", 101, "output_compression: must be at most 100, got 101"),
        ("generator_device", "mps", 'generator_device: must be one of cpu, cuda, got "mps"'),
        ("guidance_scal", 1, "guidance_scal: unknown name; did you mean 'guidance_scale'?"),
        ("loras", [{"nam": "x"}], "loras[0].nam: unknown name; did you mean 'name'?"),
        ("image_paths", ["x"] * 17, None),
    ],
)
def test_a_request_has_limits(name: str, value: object, message: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        schema.read(Request, {name: value})
    assert caught.value.message == message or (message is None and "at most 16 entries" in caught.value.message)


def test_a_seed_counts_up_over_the_outputs() -> None:
    request = Request(prompt="x", seed=41, num_outputs_per_prompt=3)
    assert [(part.seed, part.num_outputs_per_prompt) for part in request.outputs()] == [(41, 1), (42, 1), (43, 1)]
    assert {part.prompt for part in request.outputs()} == {"x"}


def test_a_list_of_seeds_is_taken_as_it_is() -> None:
    assert [part.seed for part in FULL.outputs()] == [3, 2**63 - 1]


def test_outputs_of_an_output_are_itself() -> None:
    single = Request(prompt="x", seed=7)
    assert single.outputs() == (single,)


def test_outputs_need_a_seed() -> None:
    with pytest.raises(AssertionError, match="resolve the request first"):
        Request(prompt="x").outputs()


def test_resolve_is_the_catalogs() -> None:
    spec = catalog.MODELS[0]
    request = Request(prompt="x", seed=1)
    assert request.resolve(spec) == resolve(request, spec)
    assert request.resolve(spec) != request


def _output() -> Output:
    timings = Timings(1.0, (("denoising", 1.0),), (1.0,), {}, 0.0)
    return Output(np.zeros((1, 8, 8, 3), np.uint8), Request(prompt="x", seed=9), {}, timings)


def test_an_output_has_its_own_seed() -> None:
    assert _output().seed == 9


def test_save_writes_through_the_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    artifact, output = Artifact("out.png", "image/png", 8, 8, 1, 9), _output()
    storage, asked = ModuleType("engine.storage"), []
    storage.save = lambda *words: asked.append(words) or artifact  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "engine.storage", storage)
    assert output.save("out.png") is artifact
    assert asked == [(output, "out.png")]


def test_a_preview_does_not_flood_the_log() -> None:
    progress = Progress("denoising", 3, 20, preview=b"\xff\xd8" * 1000)
    assert repr(progress) == "Progress(stage='denoising', step=3, steps=20, elapsed_s=0.0, eta_s=None, index=0)"


def test_a_request_is_made_without_pydantic_and_torch() -> None:
    code = (
        "import sys; from engine.types import Request; from engine import catalog; "
        "r = Request(prompt='x', seed=1).resolve(catalog.MODELS[0]); r.outputs(); "
        "print(*(m for m in ('torch', 'pydantic', 'numpy', 'diffusers') if m in sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == ""
