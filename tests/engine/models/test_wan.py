"""Wan through our stages equals diffusers' own pipelines over the same modules, to the last bit."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
)
from PIL import Image

from engine.engine import Engine
from engine.errors import UsageError
from engine.runtime.control import Control
from engine.types import Progress, Request

Pixels = np.ndarray[Any, Any]
SHARED: dict[str, Any] = {
    "prompt": "a red house", "height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2,
    "negative_prompt": "snow", "guidance_scale": 4.0,
}  # fmt: skip


def ours(engine: Engine, seed: int, **fields: Any) -> Pixels:
    (output,) = engine.generate(**{**SHARED, **fields}, seed=seed)
    return output.frames


@pytest.fixture
def check(parity: Any) -> Any:
    """Assert that ours and the stock call draw the same, and return it; `shift` and `boundary` are the stock call's."""

    def run(
        engine: Engine, seed: int, shift: float, image: Path | None = None, boundary: float | None = None, **fields: Any
    ) -> Pixels:
        given = {**SHARED, **fields}
        cls = WanImageToVideoPipeline if image else WanPipeline
        sources = {"image_path": str(image)} if image else {}
        frames = ours(engine, seed, **fields, **sources)
        arguments = {name: value for name, value in given.items() if name not in ("flow_shift", "boundary_ratio")}
        if image:
            arguments["image"] = Image.open(image)
        with parity.stock(engine, cls) as pipeline:
            pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, flow_shift=shift)
            if boundary:
                pipeline.register_to_config(boundary_ratio=boundary)
            generator = torch.Generator().manual_seed(seed)
            parity.same(frames, pipeline(**arguments, generator=generator, output_type="np").frames[0])
        return frames

    return run


@pytest.fixture(scope="module")
def wan(tiny_engine: Any) -> Engine:
    engine: Engine = tiny_engine("wan")
    return engine


@pytest.fixture(scope="module")
def experts(tiny_engine: Any) -> Engine:
    engine: Engine = tiny_engine("wan-a14b")
    return engine


@pytest.fixture(scope="module")
def wan_5b(tiny_engine: Any) -> Engine:
    engine: Engine = tiny_engine("wan-ti2v")
    return engine


def test_a_folder_tells_which_wan_it_is(tiny_engine: Any) -> None:
    found = {name: tiny_engine(name).spec.id for name in ("wan", "wan-a14b", "wan-ti2v", "wan-i2v", "wan-i2v-a14b")}
    assert found == {
        "wan": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        "wan-a14b": "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
        "wan-ti2v": "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        "wan-i2v": "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
        "wan-i2v-a14b": "Wan-AI/Wan2.2-I2V-A14B-Diffusers",
    }


@pytest.mark.parametrize(("size", "frames"), [((32, 32), 9), ((32, 64), 5), ((48, 32), 1)])
def test_text_to_video(wan: Engine, check: Any, size: tuple[int, int], frames: int) -> None:
    assert check(wan, 7, 3.0, height=size[0], width=size[1], num_frames=frames).shape == (frames, *size, 3)


def test_guidance_negative_prompt_prompt_and_shift_matter(wan: Engine, check: Any) -> None:
    guided = check(wan, 3, 3.0)
    others = [
        check(wan, 3, 3.0, guidance_scale=1.0),
        check(wan, 3, 3.0, negative_prompt=""),
        check(wan, 3, 3.0, prompt="the sea at night", max_sequence_length=37),
        check(wan, 3, 11.0, flow_shift=11.0, num_inference_steps=3),
    ]
    for other in others:
        assert (guided != other).any()


def test_two_outputs_are_two_stock_calls(wan: Engine, check: Any) -> None:
    outputs = wan.generate(**SHARED, seed=21, n=2)
    for output, seed in zip(outputs, (21, 22), strict=True):
        np.testing.assert_array_equal(output.frames, check(wan, seed, 3.0))


def test_frames_are_rounded_with_a_warning(wan: Engine, caplog: pytest.LogCaptureFixture) -> None:
    seven = ours(wan, 7, num_frames=7)
    assert f"num_frames: 7 becomes 5, since {wan.spec.id} needs 4k + 1" in caplog.text
    np.testing.assert_array_equal(seven, ours(wan, 7))


@pytest.mark.parametrize("cls", [FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler])
def test_another_scheduler_takes_the_shift_too(tiny_engine: Any, parity: Any, tmp_path: Path, cls: Any) -> None:
    cls(shift=1.0).save_pretrained(tmp_path / "scheduler")
    engine = tiny_engine("wan", component_paths={"scheduler": str(tmp_path / "scheduler")})
    with parity.stock(engine, WanPipeline) as pipeline:
        pipeline.scheduler = cls(shift=7.0)
        stock = pipeline(**SHARED, generator=torch.Generator().manual_seed(3), output_type="np").frames[0]
    parity.same(ours(engine, 3, flow_shift=7.0), stock)
    assert (ours(engine, 3) != ours(engine, 3, flow_shift=7.0)).any()


@pytest.mark.parametrize("boundary", [None, 0.5, 1.0])
def test_two_experts_share_the_steps(experts: Engine, check: Any, boundary: float | None) -> None:
    fields = {"num_inference_steps": 4, "guidance_scale_2": 2.0, "num_frames": 5}
    check(experts, 7, 12.0, boundary=boundary, **fields, **({"boundary_ratio": boundary} if boundary else {}))


def test_each_expert_draws_its_part_with_its_own_guidance(experts: Engine) -> None:
    assert experts.executor is not None
    components = experts.executor.scheduler.pipeline.model.components
    calls: list[str] = []
    hooks = [
        components[name].register_forward_pre_hook(lambda *_, name=name: calls.append(name))
        for name in ("transformer", "transformer_2")
    ]
    first = ours(experts, 7, num_inference_steps=4, num_frames=5)
    for hook in hooks:
        hook.remove()
    assert calls == ["transformer"] * 6 + ["transformer_2"] * 2  # timesteps 999, 973, 923, 800; two calls each
    second = ours(experts, 7, num_inference_steps=4, num_frames=5, guidance_scale_2=9.0)
    assert (first != second).any()


@pytest.mark.parametrize(
    ("family", "shift", "fields"),
    [
        ("wan-i2v", 3.0, {"num_frames": 9}),
        ("wan-i2v", 3.0, {"height": 48, "width": 80, "num_frames": 5, "guidance_scale": 1.0}),
        ("wan-i2v", 3.0, {"num_frames": 1}),
        ("wan-i2v-a14b", 5.0, {"num_inference_steps": 4, "guidance_scale_2": 2.0, "num_frames": 5}),
        ("wan-ti2v", 5.0, {"height": 64, "width": 96}),
        ("wan-ti2v", 5.0, {"height": 32, "width": 64, "num_frames": 1, "guidance_scale": 1.0}),
    ],
)
def test_image_to_video(
    tiny_engine: Any, check: Any, picture: Path, family: str, shift: float, fields: dict[str, Any]
) -> None:
    check(tiny_engine(family), 7, shift, image=picture, **fields)


@pytest.mark.parametrize("family", ["wan-i2v", "wan-i2v-a14b", "wan-ti2v"])
def test_the_image_matters(tiny_engine: Any, picture: Path, tmp_path: Path, family: str) -> None:
    Image.new("RGB", (80, 48), "red").save(tmp_path / "red.png")
    engine, fields = tiny_engine(family), {"height": 32, "width": 64, "num_frames": 5}
    one = ours(engine, 7, image_path=str(picture), **fields)
    other = ours(engine, 7, image_path=str(tmp_path / "red.png"), **fields)
    assert np.abs(one.astype(int) - other).max() > 1


def test_an_image_reaches_21_through_clip_too(tiny_engine: Any, picture: Path) -> None:
    engine: Engine = tiny_engine("wan-i2v")
    assert engine.executor is not None
    pipeline = engine.executor.scheduler.pipeline
    request = engine.resolve(Request(**SHARED, seed=1, image_path=(str(picture),)))
    state = pipeline.begin(request, Control())
    assert state.uncond is not None
    assert state.cond["encoder_hidden_states"].shape[1] == 512
    assert torch.equal(state.cond["encoder_hidden_states_image"], state.uncond["encoder_hidden_states_image"])
    pipeline.advance(state)
    with_clip = state.latents
    state = pipeline.begin(request, Control())
    state.cond["encoder_hidden_states_image"] = torch.zeros_like(state.cond["encoder_hidden_states_image"])
    pipeline.advance(state)
    assert with_clip is not None and state.latents is not None
    assert (with_clip - state.latents).abs().max() > 1e-3


def test_a_size_between_multiples_is_drawn_larger_and_cut(wan: Engine, tiny_engine: Any, picture: Path) -> None:
    drawn = ours(tiny_engine("wan-i2v"), 1, image_path=str(picture), height=34, width=66, num_frames=1)
    assert drawn.shape == (1, 34, 66, 3)
    cut = ours(wan, 1, height=34, width=66, num_frames=5)
    np.testing.assert_array_equal(cut, ours(wan, 1, height=48, width=80, num_frames=5)[:, :34, :66])


def test_an_image_without_a_size_gives_its_shape(tiny_engine: Any, picture: Path) -> None:
    engine: Engine = tiny_engine("wan-i2v")
    request = engine.resolve(Request(prompt="x", image_path=(str(picture),)))
    assert (request.height, request.width, request.num_frames, request.fps) == (480, 800, 81, 16)  # in 480 x 832


def test_5b_draws_with_and_without_an_image(wan_5b: Engine, check: Any) -> None:
    check(wan_5b, 7, 5.0, height=64, width=96, num_frames=5)
    check(wan_5b, 7, 5.0, height=32, width=64, num_frames=1, guidance_scale=1.0)


def test_what_a_model_does_not_take_is_refused(wan: Engine, tiny_engine: Any, picture: Path) -> None:
    def refusal(engine: Engine, **fields: Any) -> str:
        with pytest.raises(UsageError) as caught:
            engine.generate(**{**SHARED, **fields})
        return caught.value.message

    assert refusal(wan, guidance_scale_2=3.0).startswith(f"guidance_scale_2: not used by {wan.spec.id}; optional")
    assert refusal(wan, image_path=str(picture)).startswith(f"image_path: not used by {wan.spec.id}")
    i2v = tiny_engine("wan-i2v")
    assert refusal(i2v) == f"image_path: {i2v.spec.id} needs one"
    long = refusal(i2v, image_path=str(picture), max_sequence_length=600)
    assert long.startswith(f"max_sequence_length: not used by {i2v.spec.id}")
    assert refusal(wan, max_sequence_length=600) == (
        f"max_sequence_length: must be at most 512 for {wan.spec.id}, got 600"
    )


@pytest.mark.parametrize("family", ["wan", "wan-a14b", "wan-ti2v"])
def test_two_runs_in_turns_equal_each_alone(tiny_engine: Any, family: str) -> None:
    engine: Engine = tiny_engine(family)
    assert engine.executor is not None
    pipeline = engine.executor.scheduler.pipeline
    fields: dict[str, Any] = {**SHARED, "height": 32, "width": 64, "num_inference_steps": 4, "num_frames": 5}
    requests = [engine.resolve(Request(**fields | {"seed": seed, "flow_shift": seed})) for seed in (3, 8)]

    def finish(*asked: Request) -> list[torch.Tensor]:
        states = [pipeline.begin(request, Control()) for request in asked]
        for _ in range(4):
            for state in states:
                pipeline.advance(state)
        return [state.latents for state in states if state.latents is not None]

    for together, alone in zip(finish(*requests), [finish(request)[0] for request in requests], strict=True):
        assert torch.equal(together, alone)


@pytest.mark.parametrize(
    ("family", "vae", "shift"), [("wan", "bf16", 3.0), ("wan-i2v", "fp32", 3.0), ("wan-ti2v", "bf16", 5.0)]
)
def test_bf16(tiny_engine: Any, check: Any, picture: Path, family: str, vae: str, shift: float) -> None:
    engine = tiny_engine(family, dit_precision="bf16", vae_precision=vae, image_encoder_precision="bf16",
                         text_encoder_precisions=("bf16",))  # fmt: skip
    image = None if family == "wan" else picture
    frames = check(engine, 7, shift, image=image, height=32, width=64)
    plain = check(tiny_engine(family), 7, shift, image=image, height=32, width=64)
    assert 0 < np.abs(frames.astype(int) - plain).mean() < 10, "the same clip, less exactly"


def test_a_bf16_model_keeps_what_must_stay_fp32(tiny_engine: Any) -> None:
    engine: Engine = tiny_engine("wan", dit_precision="bf16", vae_precision="bf16", image_encoder_precision="bf16",
                                 text_encoder_precisions=("bf16",))  # fmt: skip
    assert engine.executor is not None
    network = engine.executor.scheduler.pipeline.model.components["transformer"]
    kept = {name for name, weight in network.named_parameters() if weight.dtype == torch.float32}
    assert {"scale_shift_table", "blocks.0.norm2.weight", "condition_embedder.time_embedder.linear_1.weight"} <= kept
    assert network.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("family", ["wan", "wan-ti2v", "fastwan"])
def test_a_preview_of_the_middle_frame(tiny_engine: Any, picture: Path, family: str) -> None:
    engine: Engine = tiny_engine(family)
    fields: dict[str, Any] = {"prompt": "x", "height": 32, "width": 64, "num_frames": 9, "num_inference_steps": 2}
    if family == "wan-ti2v":
        fields["image_path"] = str(picture)
    pictures = []
    for event in engine.stream(**fields, seed=4, preview=True):
        if isinstance(event, Progress):
            pictures += [event.preview] if event.preview else []
        else:
            frames = event.frames
    assert [Image.open(io.BytesIO(jpeg)).size for jpeg in pictures] == [(256, 128)] * 2
    np.testing.assert_array_equal(frames, engine.generate(**fields, seed=4)[0].frames)


def test_a_preview_begins_with_the_image(wan_5b: Engine, picture: Path) -> None:
    assert wan_5b.executor is not None
    pipeline = wan_5b.executor.scheduler.pipeline
    state = pipeline.begin(wan_5b.resolve(Request(**SHARED, seed=1, image_path=(str(picture),))), Control(preview=True))
    pipeline.advance(state)
    assert state.x0 is not None and state.reference is not None
    assert state.x0.shape[2] == 2
    assert torch.equal(state.x0[:, :, :1], state.reference)
    assert not torch.equal(state.x0[:, :, 1:], state.reference)


@pytest.mark.parametrize(("family", "size"), [("wan", 80), ("wan-ti2v", 160)])
def test_tiles_give_almost_the_same_clip(tiny_engine: Any, family: str, size: int) -> None:
    fields: dict[str, Any] = {"height": size, "width": size, "num_frames": 5, "num_inference_steps": 1}
    tiled, whole = tiny_engine(family, vae_tiling=True), tiny_engine(family, vae_tiling=False)
    assert tiled.executor is not None
    vae = tiled.executor.scheduler.pipeline.model.components["vae"]
    for side in ("height", "width"):  # 256 and 192 would take a tiny model seconds
        setattr(vae, f"tile_sample_min_{side}", size * 4 // 5)
        setattr(vae, f"tile_sample_stride_{side}", size * 3 // 5)
    calls: list[None] = []
    hook = vae.decoder.register_forward_pre_hook(lambda *_: calls.append(None))
    one, other = ours(tiled, 2, **fields), ours(whole, 2, **fields)
    hook.remove()
    assert len(calls) == 8  # 2 x 2 tiles of 2 latent frames
    difference = np.abs(one.astype(int) - other)
    assert 0 < difference.mean() < other.std() / 2, "a tile in another place would differ as two clips do"
