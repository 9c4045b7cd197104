"""Any other diffusers pipeline runs as it is, watched step by step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    FluxImg2ImgPipeline,
    HunyuanVideoPipeline,
    OvisImagePipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    WanImageToVideoPipeline,
    WanPipeline,
)
from PIL import Image

from engine import media
from engine.engine import Engine
from engine.errors import Cancelled, ModelError, UsageError
from engine.models import passthrough
from engine.runtime.control import Control
from engine.types import Progress, Request

FP32: dict[str, Any] = {"dit_precision": "fp32", "vae_precision": "fp32", "text_encoder_precisions": ["fp32"]}


@pytest.fixture(scope="module")
def sdxl(sdxl_folder: Path) -> Iterator[Engine]:
    with Engine.from_pretrained(str(sdxl_folder), **FP32) as engine:
        yield engine


@pytest.fixture(scope="module")
def wan(wan_folder: Path) -> Iterator[Engine]:
    with Engine.from_pretrained(str(wan_folder), backend="diffusers", **FP32) as engine:
        yield engine


def _parts(engine: Engine) -> Any:
    assert engine.executor is not None
    return engine.executor.scheduler.pipeline.model.components


def test_an_image_equals_the_stock_call(sdxl: Engine) -> None:
    fields = {"prompt": "a hill", "height": 64, "width": 64, "num_inference_steps": 3, "guidance_scale": 4.0}
    (output,) = sdxl.generate(**fields, negative_prompt="fog", seed=6)
    stock = StableDiffusionXLPipeline(**_parts(sdxl))
    stock.set_progress_bar_config(disable=True)
    image = stock(**fields, negative_prompt="fog", generator=torch.Generator().manual_seed(6)).images[0]
    np.testing.assert_array_equal(output.frames[0], np.asarray(image))
    assert output.frames.std() > 1


def test_a_video_equals_the_stock_call(wan: Engine) -> None:
    fields = {"prompt": "a hill", "height": 32, "width": 32, "num_frames": 9, "num_inference_steps": 3}
    fields |= {"guidance_scale": 4.0, "negative_prompt": "fog", "max_sequence_length": 64}
    (output,) = wan.generate(**fields, seed=6)
    stock = WanPipeline(**_parts(wan))
    stock.set_progress_bar_config(disable=True)
    frames = stock(**fields, generator=torch.Generator().manual_seed(6), output_type="np").frames[0]
    np.testing.assert_array_equal(output.frames, (frames * 255).round().astype(np.uint8))
    assert output.frames.shape == (9, 32, 32, 3)
    assert output.request.output_format == "mp4"


@pytest.mark.parametrize("name", ["sdxl", "wan"])
def test_steps_are_counted_whatever_guidance_costs(name: str, request: pytest.FixtureRequest) -> None:
    engine = request.getfixturevalue(name)
    heard: list[Progress] = []
    fields = {"height": 32, "width": 32, "num_inference_steps": 4}
    (output,) = engine.generate("a hill", on_progress=heard.append, seed=1, **fields)
    steps = [progress.step for progress in heard if progress.stage == "denoising"]
    assert steps == [1, 2, 3, 4]
    assert len(output.timings.denoise_steps) == 4


def test_the_decode_is_no_part_of_the_last_step(sdxl: Engine) -> None:
    heard: list[Any] = []
    hook = _parts(sdxl)["vae"].decoder.conv_in.register_forward_pre_hook(lambda *_: heard.append("decode"))
    try:
        sdxl.generate("x", on_progress=lambda progress: heard.append(progress.step), **SMALL)
    finally:
        hook.remove()
    assert heard.index(SMALL["num_inference_steps"]) < heard.index("decode")


def test_cancel_within_a_step(sdxl: Engine) -> None:
    steps: list[int] = []

    def report(progress: Progress) -> None:
        steps.append(progress.step)
        if progress.step == 2:
            control.cancel()

    control = Control(report)
    with pytest.raises(Cancelled):
        list(sdxl.run(Request(prompt="x", height=64, width=64, num_inference_steps=20), control))
    assert max(steps) == 2
    assert sdxl.generate("x", height=64, width=64, num_inference_steps=2, seed=1)


def test_defaults_come_from_the_catalog_and_else_from_the_signature(sdxl: Engine, wan: Engine) -> None:
    assert sdxl.spec.id == "stabilityai/stable-diffusion-xl-base-1.0"
    assert (sdxl.spec.defaults["guidance_scale"], sdxl.spec.tasks) == (7.5, ("T2I",))
    assert (wan.spec.defaults["num_frames"], wan.spec.defaults["fps"], wan.spec.tasks) == (81, 16, ("T2V",))
    assert wan.spec.is_video
    unknown = passthrough.spec("someone/else", "StableDiffusionXLPipeline")
    assert unknown.defaults == {"num_inference_steps": 50, "guidance_scale": 5.0, "guidance_rescale": 0.0}
    assert unknown.features == ()


def test_a_field_that_the_call_lacks_is_refused(sdxl: Engine) -> None:
    with pytest.raises(UsageError, match=r"^num_frames: not used by .*; optional settings that it uses: guidance"):
        sdxl.resolve(Request(prompt="x", num_frames=9))


def test_extra_arguments_reach_the_call(sdxl: Engine) -> None:
    fields = {"height": 64, "width": 64, "num_inference_steps": 2, "seed": 3}
    plain = sdxl.generate("x", **fields)[0].frames
    changed = sdxl.generate("x", **fields, diffusers_kwargs={"guidance_rescale": 0.9, "eta": 0.0})[0].frames
    assert (plain != changed).any()


@pytest.mark.parametrize("name", ["nope", "output_type", "num_images_per_prompt", "generator", "height"])
def test_extra_arguments_that_the_call_lacks_or_we_give(sdxl: Engine, name: str) -> None:
    with pytest.raises(UsageError) as error:
        sdxl.resolve(Request(prompt="x", diffusers_kwargs={name: 1}))
    assert error.value.message.startswith(
        f"diffusers_kwargs: StableDiffusionXLPipeline takes no argument '{name}' from here"
    )


def test_an_unknown_class() -> None:
    with pytest.raises(ModelError, match=r"^'NopePipeline' is not a pipeline of the installed diffusers .*not run$"):
        passthrough.pipeline_class("NopePipeline")


def test_flux_through_the_stock_pipeline_when_asked(flux_folder: Path, flux: Engine) -> None:
    fields: dict[str, Any] = {"prompt": "a hill", "height": 64, "width": 64, "num_inference_steps": 2, "seed": 5}
    with Engine.from_pretrained(str(flux_folder), backend="diffusers", **FP32) as stock:
        assert stock.spec.family == "passthrough"
        assert stock.spec.defaults["num_inference_steps"] == 50, "the catalog's default, not the call's"
        difference = stock.generate(**fields)[0].frames.astype(int) - flux.generate(**fields)[0].frames
    assert np.abs(difference).max() <= 1, "another copy of the weights may round differently"


@pytest.mark.parametrize(("model", "size"), [("sdxl", (60, 75)), ("wan", (30, 20))])
def test_the_output_has_exactly_the_size_asked_for(
    model: str, size: tuple[int, int], request: pytest.FixtureRequest
) -> None:
    engine: Engine = request.getfixturevalue(model)
    frames = {"num_frames": 5} if model == "wan" else {}
    (output,) = engine.generate("x", height=size[0], width=size[1], num_inference_steps=1, seed=1, **frames)
    assert output.frames.shape[1:] == (*size, 3)


def test_frames_are_rounded_with_a_warning(wan: Engine, caplog: pytest.LogCaptureFixture) -> None:
    request = wan.resolve(Request(prompt="x", num_frames=6))
    assert request.num_frames == 5
    assert caplog.messages == [f"num_frames: 6 becomes 5, since {wan.spec.id} needs 4k + 1"]


def test_previews_of_a_stock_call(sdxl: Engine, wan: Engine) -> None:
    fields: dict[str, Any] = {"height": 64, "width": 64, "num_inference_steps": 3, "seed": 1}
    seen: list[Progress] = []
    list(sdxl.run(Request(prompt="x", **fields), Control(seen.append, preview=True)))
    fields |= {"num_frames": 5, "height": 32, "width": 32}
    list(wan.run(Request(prompt="x", **fields), Control(seen.append, preview=True)))
    steps = [progress for progress in seen if progress.stage == "denoising"]
    assert len(steps) == 6
    assert all(progress.preview for progress in steps)


def test_cancel_while_a_stock_call_decodes(sdxl: Engine) -> None:
    decoder = _parts(sdxl)["vae"].decoder
    control, decoded = Control(), list[None]()
    before = decoder.register_forward_pre_hook(lambda *_: control.cancel())
    after = decoder.register_forward_hook(lambda *_: decoded.append(None))
    with pytest.raises(Cancelled):
        list(sdxl.run(Request(prompt="x", height=64, width=64, num_inference_steps=1), control))
    before.remove()
    after.remove()
    assert decoded == []


def test_a_pipeline_that_edits_needs_a_picture(flux_folder: Path) -> None:
    with Engine.from_pretrained(str(flux_folder), pipeline_class_name="FluxImg2ImgPipeline", **FP32) as engine:
        assert engine.spec.tasks == ("I2I",)
        with pytest.raises(UsageError) as error:
            engine.resolve(Request(prompt="x"))
    assert error.value.message == f"image_path: {flux_folder} needs one"


def test_a_stock_pipeline_runs_alone(sdxl: Engine) -> None:
    assert sdxl.executor is not None
    assert sdxl.executor.scheduler.max_running == 1


@pytest.mark.parametrize("backend", ["auto", "diffusers"])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_ovis_equals_the_stock_call(tiny_engine: Any, parity: Any, backend: str, guidance: float) -> None:
    engine = tiny_engine("ovis", backend=backend)
    assert (engine.spec.id, engine.spec.family) == ("AIDC-AI/Ovis-Image-7B", "passthrough")
    fields = {"height": 48, "width": 80, "num_inference_steps": 3, "guidance_scale": guidance}
    fields |= {"prompt": "a red house", "negative_prompt": "fog", "max_sequence_length": 64}
    (output,) = engine.generate(**fields, seed=2)
    parity.same(output.frames, parity.stock_frames(engine, OvisImagePipeline, 2, **fields))
    other = engine.generate(**{**fields, "negative_prompt": "the sea"}, seed=2)[0].frames
    assert (other != output.frames).any() == (guidance > 1)


EDITED: dict[str, Any] = {"prompt": "a hill", "negative_prompt": "fog", "num_inference_steps": 5, "guidance_scale": 4.0}


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_image_to_image_of_sdxl(sdxl: Engine, parity: Any, picture: Path, strength: float) -> None:
    fields = {**EDITED, "strength": strength}
    (output,) = sdxl.generate(**fields, height=64, width=96, image_path=str(picture), seed=5)
    image = Image.open(picture).resize((96, 64), Image.Resampling.LANCZOS)
    cls = StableDiffusionXLImg2ImgPipeline
    parity.same(output.frames, parity.stock_frames(sdxl, cls, 5, image=image, **fields))
    assert len(output.timings.denoise_steps) == 5 * strength


def test_inpainting_of_sdxl(sdxl: Engine, parity: Any, picture: Path, mask: Path) -> None:
    fields = {**EDITED, "strength": 0.6, "height": 48, "width": 80}
    (output,) = sdxl.generate(**fields, image_path=str(picture), mask_path=str(mask), seed=5)
    images = {"image": Image.open(picture), "mask_image": Image.open(mask)}
    parity.same(output.frames, parity.stock_frames(sdxl, StableDiffusionXLInpaintPipeline, 5, **images, **fields))
    unmasked = sdxl.generate(**fields, image_path=str(picture), seed=5)[0].frames
    assert (unmasked != output.frames).any()


def test_an_edit_that_is_padded_lies_on_its_picture(sdxl: Engine, parity: Any, picture: Path) -> None:
    (output,) = sdxl.generate(**EDITED, height=44, width=76, image_path=str(picture), strength=0.4, seed=5)
    image = media.fit(Image.open(picture), (44, 76), (48, 80))
    stock = parity.stock_frames(sdxl, StableDiffusionXLImg2ImgPipeline, 5, **EDITED, image=image, strength=0.4)
    parity.same(output.frames, stock[:, :44, :76])


def test_settings_of_variants(sdxl: Engine, picture: Path) -> None:
    assert {"strength", "image_path", "mask_path"} <= set(sdxl.spec.uses)
    given = Request(prompt="x", image_path=(str(picture),))
    assert sdxl.resolve(given).strength == 0.6, "the catalog's default"
    assert sdxl.resolve(Request(prompt="x")).strength is None
    assert sdxl.resolve(given.replace(diffusers_kwargs={"aesthetic_score": 7.0}))
    with pytest.raises(UsageError, match="StableDiffusionXLPipeline takes no argument 'aesthetic_score'"):
        sdxl.resolve(Request(prompt="x", diffusers_kwargs={"aesthetic_score": 7.0}))
    with pytest.raises(UsageError, match="StableDiffusionXLImg2ImgPipeline takes no argument 'padding_mask_crop'"):
        sdxl.resolve(given.replace(diffusers_kwargs={"padding_mask_crop": 8}))


def test_a_strength_that_leaves_no_step(sdxl: Engine, picture: Path) -> None:
    with pytest.raises(UsageError) as error:
        sdxl.resolve(Request(prompt="x", image_path=(str(picture),), num_inference_steps=4, strength=0.2))
    assert error.value.message == (
        "strength: 0.2 of 4 steps leaves stabilityai/stable-diffusion-xl-base-1.0 none; it must be at least 0.25"
    )


def test_a_native_model_keeps_the_meaning_of_its_settings(tiny_engine: Any, parity: Any) -> None:
    engine = tiny_engine("hunyuan-video", backend="diffusers")
    fields: dict[str, Any] = {"prompt": "a hill", "height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2}
    fields |= {"max_sequence_length": 64, "negative_prompt": "fog"}
    (output,) = engine.generate(**fields, embedded_cfg_scale=3.0, guidance_scale=2.0, seed=4)
    stock = parity.stock_frames(engine, HunyuanVideoPipeline, 4, guidance_scale=3.0, true_cfg_scale=2.0, **fields)
    parity.same(output.frames, stock)
    request = engine.resolve(Request(prompt="x"))
    assert (request.embedded_cfg_scale, request.guidance_scale) == (6.0, 1.0)


def test_a_class_that_diffusers_lacks_says_what_draws_it(wan_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fast"
    shutil.copytree(wan_folder, folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "WanDMDPipeline"}))
    with pytest.raises(ModelError) as error:
        Engine.from_pretrained(str(folder), backend="diffusers")
    assert error.value.message == (
        f"'WanDMDPipeline' is not a pipeline of the installed diffusers {diffusers.__version__}; "
        "without --backend diffusers it runs natively"
    )


MIXED: dict[str, Any] = {"dit_precision": "bf16", "vae_precision": "fp32", "text_encoder_precisions": ("fp32",)}
SMALL: dict[str, Any] = {"height": 64, "width": 64, "num_inference_steps": 2, "seed": 3}


@pytest.mark.parametrize(
    ("family", "precision"),
    [
        ("sdxl", ("bf16", "fp32", "fp32")),
        ("sdxl", ("fp32", "bf16", "fp32")),
        ("sdxl", ("fp32", "fp32", "bf16")),
        ("ovis", ("bf16", "bf16", "fp32")),
    ],
)
def test_components_may_differ_in_precision(tiny_engine: Any, family: str, precision: tuple[str, str, str]) -> None:
    names = ("dit_precision", "vae_precision", "text_encoder_precisions")
    given = dict(zip(names, (*precision[:2], precision[2:]), strict=True))
    mixed = tiny_engine(family, **given).generate("a hill", **SMALL)[0].frames
    exact = tiny_engine(family).generate("a hill", **SMALL)[0].frames
    assert 0 < np.abs(mixed - exact.astype(float)).mean() < 2 < exact.std()


def test_components_of_one_precision_are_not_cast(sdxl: Engine, tiny_engine: Any) -> None:
    assert not sdxl.spec.autocast
    assert tiny_engine("sdxl", **MIXED).spec.autocast


def test_without_autocast_components_must_fit(tiny_engine: Any) -> None:
    engine = tiny_engine("sdxl", **MIXED, disable_autocast=True)
    with pytest.raises(ModelError) as error:
        engine.generate("a hill", **SMALL)
    assert error.value.message.startswith(
        "StableDiffusionXLPipeline: its components differ in precision (text_encoder float32, "
        "text_encoder_2 float32, unet bfloat16, vae float32) and --disable-autocast forbids casts: "
    )


def test_an_edit_by_components_that_differ_in_precision(tiny_engine: Any, picture: Path, mask: Path) -> None:
    given = {"dit_precision": "bf16", "vae_precision": "bf16"}
    engine = tiny_engine("sdxl", **given)
    fields = {**SMALL, "image_path": str(picture), "mask_path": str(mask), "strength": 0.9}
    assert engine.generate("a hill", **fields)[0].frames.std() > 1


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_a_clip_is_written(wan: Engine, tmp_path: Path, suffix: str) -> None:
    fields = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 1, "seed": 1}
    (output,) = wan.generate("x", output_format=suffix, **fields)
    artifact = output.save(str(tmp_path / f"clip.{suffix}"))
    assert (artifact.frames, artifact.width, artifact.height) == (5, 32, 32)
    head = Path(artifact.location).read_bytes()[:12]
    assert head.startswith(b"GIF8") if suffix == "gif" else head[4:8] == b"ftyp"


@pytest.mark.parametrize("family", ["flux", "z-image", "qwen-image"])
def test_edits_of_native_models(tiny_engine: Any, parity: Any, picture: Path, mask: Path, family: str) -> None:
    engine = tiny_engine(family, backend="diffusers")
    assert set(engine.spec.features) == {"img2img", "inpaint"}
    fields: dict[str, Any] = {"prompt": "a hill", "height": 48, "width": 80, "num_inference_steps": 3, "strength": 0.7}
    fields |= {"max_sequence_length": 64}
    defaults = {key: engine.spec.defaults[key] for key in ("guidance_scale", "true_cfg_scale", "negative_prompt")
                if key in engine.spec.defaults}  # fmt: skip
    (output,) = engine.generate(**fields, image_path=str(picture), mask_path=str(mask), seed=5)
    images = {"image": Image.open(picture), "mask_image": Image.open(mask)}
    cls = getattr(diffusers, engine.spec.variants["inpaint"])
    parity.same(output.frames, parity.stock_frames(engine, cls, 5, **images, **fields, **defaults))


def test_a_clip_from_a_picture(tiny_engine: Any, parity: Any, picture: Path) -> None:
    engine = tiny_engine("wan-ti2v", backend="diffusers")
    fields: dict[str, Any] = {"prompt": "a hill", "height": 64, "width": 96, "num_frames": 5, "num_inference_steps": 2}
    fields |= {"guidance_scale": 3.0, "negative_prompt": "fog", "max_sequence_length": 64}
    (output,) = engine.generate(**fields, image_path=str(picture), seed=5)
    image = Image.open(picture).resize((96, 64), Image.Resampling.LANCZOS)
    stock = parity.stock_frames(engine, WanImageToVideoPipeline, 5, image=image, **fields)
    parity.same(output.frames, stock)
    assert (engine.generate(**fields, seed=5)[0].frames != output.frames).any(), "without it, from the prompt alone"


def test_the_class_that_is_asked_for_draws(tiny_engine: Any, parity: Any, picture: Path) -> None:
    engine = tiny_engine("flux", pipeline_class_name="FluxImg2ImgPipeline")
    fields: dict[str, Any] = {"prompt": "a hill", "height": 48, "width": 80, "num_inference_steps": 3, "strength": 0.7}
    (output,) = engine.generate(**fields, max_sequence_length=64, guidance_scale=3.0, image_path=str(picture), seed=5)
    fields |= {"max_sequence_length": 64, "guidance_scale": 3.0, "image": Image.open(picture)}
    parity.same(output.frames, parity.stock_frames(engine, FluxImg2ImgPipeline, 5, **fields))


@pytest.mark.parametrize("precision", [("bf16", "fp32", "bf16"), ("bf16", "bf16", "fp32")])
def test_an_edit_leaves_the_vae_as_it_was(tiny_engine: Any, picture: Path, precision: tuple[str, str, str]) -> None:
    names = ("dit_precision", "vae_precision", "text_encoder_precisions")
    engine = tiny_engine("sdxl", **dict(zip(names, (*precision[:2], precision[2:]), strict=True)))
    vae = _parts(engine)["vae"]
    weights = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    before = engine.generate("a hill", **SMALL)[0].frames
    engine.generate("a hill", **SMALL, image_path=str(picture))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in vae.state_dict().items())
    assert {tensor.dtype for tensor in vae.state_dict().values()} == {tensor.dtype for tensor in weights.values()}
    np.testing.assert_array_equal(engine.generate("a hill", **SMALL)[0].frames, before)
    assert vae.config.force_upcast


@pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated:FutureWarning")  # by its own caller
def test_a_cancel_leaves_the_vae_as_it_was(tiny_engine: Any) -> None:
    engine = tiny_engine("sdxl", dit_precision="fp16", vae_precision="fp16", text_encoder_precisions=("fp16",))
    before = engine.generate("a hill", **SMALL)[0].frames
    control = Control()
    hook = _parts(engine)["vae"].decoder.register_forward_pre_hook(lambda *_: control.cancel())
    with pytest.raises(Cancelled):
        list(engine.run(Request(prompt="a hill", **SMALL), control))
    hook.remove()
    np.testing.assert_array_equal(engine.generate("a hill", **SMALL)[0].frames, before)


def test_sdxl_in_its_own_precisions(sdxl_folder: Path, sdxl: Engine) -> None:
    with Engine.from_pretrained(str(sdxl_folder)) as engine:
        parts = {name: part.dtype for name, part in _parts(engine).items() if isinstance(part, torch.nn.Module)}
        assert parts.pop("vae") is torch.float32
        assert set(parts.values()) == {torch.float16}
        frames = engine.generate("a hill", **SMALL)[0].frames
    assert np.abs(frames - sdxl.generate("a hill", **SMALL)[0].frames.astype(float)).mean() < 2 < frames.std()
