"""The Engine as the SDK shows it: settings, requests, streams, and the same bytes however often it is asked."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import media
from engine.catalog import by_name
from engine.config import EngineConfig
from engine.engine import Engine, resolve, resolve_all
from engine.errors import Cancelled, InputError, ModelError, NotAvailable, UsageError
from engine.runtime.control import Control
from engine.types import Output, Progress, Request

FIELDS: dict[str, Any] = {"prompt": "a red house", "height": 64, "width": 64, "num_inference_steps": 3, "seed": 8}
FP32 = {"dit_precision": "fp32", "vae_precision": "fp32", "text_encoder_precisions": ["fp32"]}


def test_the_sdk_name() -> None:
    import sgdiff_app

    assert sgdiff_app.Engine is Engine


def test_a_request_run_again_gives_the_same_bytes(flux: Engine) -> None:
    first, again = (flux.generate(**FIELDS)[0] for _ in range(2))
    np.testing.assert_array_equal(first.frames, again.frames)
    assert first.frames.dtype == np.uint8
    assert first.frames.shape == (1, 64, 64, 3)


@pytest.mark.slow
def test_a_new_process_gives_the_same_bytes(flux: Engine, flux_folder: Path, tmp_path: Path) -> None:
    code = (
        "import numpy, sys\n"
        "from sgdiff_app import Engine\n"
        f"with Engine.from_pretrained({str(flux_folder)!r}, **{FP32!r}) as engine:\n"
        f"    numpy.save(sys.argv[1], engine.generate(**{FIELDS!r})[0].frames)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "frames.npy")], check=True, cwd=Path(__file__).parents[2]
    )
    np.testing.assert_array_equal(np.load(tmp_path / "frames.npy"), flux.generate(**FIELDS)[0].frames)


def test_the_prompt_and_the_seed_matter(flux: Engine) -> None:
    base = flux.generate(**FIELDS)[0].frames.astype(int)
    for changed in ({"prompt": "a blue boat"}, {"seed": 9}):
        assert np.abs(flux.generate(**{**FIELDS, **changed})[0].frames - base).max() > 2


def test_the_stream_shows_progress_and_ends_with_the_output(flux: Engine) -> None:
    events = list(flux.stream(**FIELDS, n=2, preview=True))
    outputs = [event for event in events if isinstance(event, Output)]
    assert [output.index for output in outputs] == [0, 1]
    assert events[-1] is outputs[-1]
    steps = [e for e in events if isinstance(e, Progress) and e.stage == "denoising"]
    assert [(e.index, e.step, e.steps) for e in steps] == [(i, s, 3) for i in (0, 1) for s in (1, 2, 3)]
    assert all(e.eta_s is not None and e.eta_s >= 0 for e in steps)
    for event in steps:
        assert event.preview is not None
        assert Image.open(io.BytesIO(event.preview)).size == (256, 256)


def test_a_preview_changes_no_pixel(flux: Engine) -> None:
    watched = [event for event in flux.stream(**FIELDS, preview=True) if isinstance(event, Output)]
    np.testing.assert_array_equal(watched[0].frames, flux.generate(**FIELDS)[0].frames)


def test_no_preview_unless_asked(flux: Engine) -> None:
    assert all(event.preview is None for event in flux.stream(**FIELDS) if isinstance(event, Progress))


def test_cancel_within_a_step(flux: Engine) -> None:
    seen: list[int] = []

    def report(progress: Progress) -> None:
        seen.append(progress.step)
        if progress.step == 2:
            control.cancel()

    control = Control(report)
    with pytest.raises(Cancelled):
        list(flux.run(Request(**{**FIELDS, "num_inference_steps": 20}), control))
    assert max(seen) == 2


def test_a_list_of_seeds(flux: Engine) -> None:
    outputs = flux.generate(**{**FIELDS, "seed": [8, 40], "n": 2})
    assert [output.seed for output in outputs] == [8, 40]
    np.testing.assert_array_equal(outputs[0].frames, flux.generate(**FIELDS)[0].frames)


def test_a_random_seed_is_told(flux: Engine) -> None:
    fields = {**FIELDS, "seed": None}
    first, second = (flux.generate(**fields)[0] for _ in range(2))
    assert first.seed != second.seed
    np.testing.assert_array_equal(first.frames, flux.generate(**{**FIELDS, "seed": first.seed})[0].frames)


def test_what_lies_at_a_url_is_fetched_once_for_all_that_ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fetched: list[str] = []
    stream = io.BytesIO()
    Image.new("RGB", (96, 64), "red").save(stream, "PNG")
    monkeypatch.setattr(media.fetch, "fetch", lambda url, *_: fetched.append(url) or stream.getvalue())
    (tmp_path / "a.png").write_bytes(stream.getvalue())
    sources = ("https://host/1", str(tmp_path / "a.png"), "https://host/1", "https://host/2")
    spec = by_name("FLUX.2-klein-4B")
    assert spec is not None
    asked = [Request(prompt=prompt, image_path=sources) for prompt in "xy"]
    first, second = resolve_all(asked, spec, EngineConfig())
    assert fetched == ["https://host/1", "https://host/2"]
    assert first.image_path is not None
    assert first.image_path == second.image_path
    assert [source[:15] for source in first.image_path if source != sources[1]] == ["data:image/png;"] * 3
    assert {media.sha256_of(source) for source in first.image_path} == {media.sha256_of(sources[1])}
    with pytest.raises(InputError, match="--offline forbids to fetch it"):
        resolve_all(asked, spec, EngineConfig(offline=True))
    assert len(fetched) == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"step": 3}, "step: unknown name; did you mean 'steps'?"),
        ({"num_inference_steps": -1}, "num_inference_steps: must be at least 1, got -1"),
        ({"height": 0}, "height: must be at least 1, got 0"),
        (
            {"height": 9000, "width": 9000},
            "size: 9000x9000 has 81000000 pixels, more than the 16777216 allowed (--max-pixels)",
        ),
        ({"image_path": "nowhere.png"}, "image_path: nowhere.png: no such file"),
        ({"enable_upscaling": True}, "enable_upscaling: not available yet"),
    ],
)
def test_mistakes_are_answered_before_anything_runs(flux: Engine, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        flux.generate(**{**FIELDS, **fields})
    assert error.value.message == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_inference_steps": -5}, "num_inference_steps: must be at least 1, got -5"),
        ({"num_outputs_per_prompt": 0}, "num_outputs_per_prompt: must be at least 1, got 0"),
        ({"seed": -5}, "seed: must be at least 0, got -5"),
        (
            {"max_sequence_length": 513},
            "max_sequence_length: must be at most 512 for black-forest-labs/FLUX.1-dev, got 513",
        ),
        (
            {"generator_device": "cuda"},
            "generator_device: the engine computes on cpu; noise is drawn there or on the cpu",
        ),
        (
            {"diffusers_kwargs": {"eta": 1}},
            "diffusers_kwargs: black-forest-labs/FLUX.1-dev runs natively; they need --backend diffusers",
        ),
    ],
)
def test_a_request_object_is_checked_too(flux: Engine, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        list(flux.run(Request(prompt="x", **fields)))
    assert error.value.message == message


def test_a_config_object_is_checked_too() -> None:
    with pytest.raises(UsageError) as error:
        Engine(EngineConfig(backend="zork"))  # type: ignore[arg-type]
    assert error.value.message == 'backend: must be one of auto, sglang, native, diffusers, got "zork"'


@pytest.mark.parametrize(
    ("image", "size"),
    [((80, 48), (784, 1312)), ((48, 80), (1312, 784)), ((9000, 1), (16, 65536)), ((64, 64), (1024, 1024))],
)
def test_the_shape_of_the_image_within_the_models_area(
    flux: Engine, tmp_path: Path, image: tuple[int, int], size: tuple[int, int]
) -> None:
    Image.new("L", image).save(tmp_path / "image.png")
    request = flux.resolve(Request(prompt="x", image_path=(str(tmp_path / "image.png"),)))
    assert (request.height, request.width) == size


def test_a_mask_of_another_size(flux: Engine, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "image.png")
    Image.new("L", (32, 64)).save(tmp_path / "mask.png")
    with pytest.raises(UsageError) as error:
        flux.generate(**FIELDS, image_path=str(tmp_path / "image.png"), mask_path=str(tmp_path / "mask.png"))
    assert error.value.message == "mask_path: is 32x64, but the image is 64x64"


@pytest.mark.parametrize(("asked", "resolved"), [(None, 7.5), (2.0, 2.0)])
def test_an_engine_has_a_default_that_a_request_overrides(asked: float | None, resolved: float) -> None:
    wan = by_name("Wan2.1-T2V-1.3B")
    assert wan is not None
    config = EngineConfig(flow_shift=7.5)
    assert resolve(Request(prompt="x", flow_shift=asked), wan, config).flow_shift == resolved


def test_an_engines_default_for_other_models_is_no_error() -> None:
    flux = by_name("FLUX.1-dev")
    assert flux is not None
    assert resolve(Request(prompt="x"), flux, EngineConfig(flow_shift=7.5)).flow_shift is None


def test_a_setting_that_is_not_built(flux_folder: Path) -> None:
    with pytest.raises(NotAvailable) as error:
        Engine.from_pretrained(str(flux_folder), num_gpus=2)
    assert error.value.message == "num_gpus: not available yet"


def test_a_device_that_is_not_there(flux_folder: Path) -> None:
    with pytest.raises(UsageError) as error:
        Engine.from_pretrained(str(flux_folder), device="mps")
    assert error.value.message == "device: mps is not available here; available: cpu"


def test_a_missing_folder() -> None:
    with pytest.raises(ModelError):
        Engine.from_pretrained("./no/such/folder")


def test_no_native_pipeline(sdxl_folder: Path) -> None:
    with pytest.raises(UsageError) as error:
        Engine.from_pretrained(str(sdxl_folder), backend="sglang")
    assert error.value.message == (
        f"backend: {sdxl_folder} (StableDiffusionXLPipeline) has no native pipeline; use --backend auto or diffusers"
    )


def test_image_input_without_the_encoder(flux_folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "image.png")
    with Engine.from_pretrained(str(flux_folder), vae_config={"load_encoder": False}, **FP32) as engine:
        assert engine.generate(**FIELDS)
        assert [e for e in engine.stream(**FIELDS, preview=True) if isinstance(e, Output)], "without previews then"
        with pytest.raises(UsageError) as error:
            engine.generate(**FIELDS, image_path=str(tmp_path / "image.png"))
    assert error.value.message == "image_path: needs the VAE encoder, but vae_config.load_encoder is false"


def test_a_closed_engine(flux_folder: Path) -> None:
    engine = Engine.from_pretrained(str(flux_folder), **FP32)
    engine.close()
    engine.close()
    with pytest.raises(UsageError, match=r"^the engine is closed$"):
        engine.generate(**FIELDS)


def test_tiling_and_precision_change_what_runs(flux_folder: Path) -> None:
    with Engine.from_pretrained(str(flux_folder), vae_tiling=True, vae_slicing=True) as engine:
        assert engine.executor is not None
        parts = engine.executor.scheduler.pipeline.model.components
        assert parts["vae"].use_tiling
        assert parts["vae"].use_slicing
        assert str(parts["transformer"].dtype) == "torch.bfloat16"
        assert engine.generate(**FIELDS)[0].frames.std() > 1
