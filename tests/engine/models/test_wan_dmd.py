"""FastWan draws what the published update rule of distribution matching gives, written here once more in fp64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanPipeline

from engine.engine import Engine
from engine.errors import UsageError
from engine.models.wan_dmd import DMDScheduler
from engine.runtime.control import Control
from engine.types import Request

SHARED: dict[str, Any] = {"prompt": "a red house", "height": 32, "width": 32, "num_frames": 9}


def grid_sigma(timestep: float, shift: float) -> float:
    """The noise level of the trained timestep that is nearest: sigma = shift s / (1 + (shift - 1) s), s = k / 1000."""
    s = np.arange(1, 1001) / 1000
    sigmas = shift * s / (1 + (shift - 1) * s)
    level: float = sigmas[np.abs(sigmas * 1000 - timestep).argmin()]
    return level


def published(pipeline: Any, seed: int, shift: float, steps: int = 3, expand: bool = False, **fields: Any) -> Any:
    """x0 = x - sigma v; x' = (1 - sigma') x0 + sigma' noise; the last x0 is the clip. Returns it in fp64."""
    given = {**SHARED, **fields}
    generator = torch.Generator().manual_seed(seed)
    embeds, _ = pipeline.encode_prompt(given["prompt"], do_classifier_free_guidance=False, max_sequence_length=512)
    factor = pipeline.vae.config.scale_factor_spatial
    frames, height, width = (given["num_frames"] - 1) // 4 + 1, given["height"] // factor, given["width"] // factor
    x = torch.randn(1, 4, frames, height, width, generator=generator).double()
    timesteps = [1000, 757, 522][:steps]
    sigmas = [grid_sigma(timestep, shift) for timestep in timesteps]
    for i, (timestep, sigma) in enumerate(zip(timesteps, sigmas, strict=True)):
        t = torch.full((1, frames * height * width // 4) if expand else (1,), float(timestep))
        with torch.no_grad():
            v = pipeline.transformer(x.float(), t, embeds, return_dict=False)[0].double()
        x = x - sigma * v
        if i + 1 < steps:
            x = (1 - sigmas[i + 1]) * x + sigmas[i + 1] * torch.randn(x.shape, generator=generator).double()
    return x


def latents(engine: Engine, seed: int, **fields: Any) -> torch.Tensor:
    """The latents of ours before they are decoded."""
    assert engine.executor is not None
    pipeline = engine.executor.scheduler.pipeline
    state = pipeline.begin(engine.resolve(Request(**{**SHARED, "seed": seed, **fields})), Control())
    while pipeline.advance(state):
        pass
    assert state.latents is not None
    return state.latents


@pytest.fixture(scope="module")
def fast(tiny_engine: Any) -> Engine:
    engine: Engine = tiny_engine("fastwan")
    return engine


@pytest.fixture(scope="module")
def fast_5b(tiny_engine: Any) -> Engine:
    engine: Engine = tiny_engine("fastwan-ti2v")
    return engine


@pytest.mark.parametrize("steps", [3, 2, 1])
def test_the_published_rule(fast: Engine, parity: Any, steps: int) -> None:
    with parity.stock(fast, WanPipeline) as pipeline:
        expected = published(pipeline, 5, 8.0, steps)
    found = latents(fast, 5, num_inference_steps=steps)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


def test_the_shift_names_the_grid_of_noise_levels(fast: Engine, parity: Any) -> None:
    with parity.stock(fast, WanPipeline) as pipeline:
        expected, default = published(pipeline, 5, 40.0), published(pipeline, 5, 8.0)
    found = latents(fast, 5, flow_shift=40.0)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)
    assert (expected - default).abs().max() > 1e-4


def test_5b_has_a_timestep_per_token(fast_5b: Engine, parity: Any) -> None:
    size = {"height": 64, "width": 96}
    with parity.stock(fast_5b, WanPipeline) as pipeline:
        expected = published(pipeline, 6, 5.0, expand=True, **size)
    torch.testing.assert_close(latents(fast_5b, 6, **size).double(), expected, atol=1e-5, rtol=0)


def test_5b_takes_an_image_as_its_first_frame(fast_5b: Engine, picture: Path) -> None:
    fields = {"height": 64, "width": 96, "seed": 6}
    with_image = fast_5b.generate(**SHARED | fields, image_path=str(picture))[0].frames
    without = fast_5b.generate(**SHARED | fields)[0].frames
    assert (with_image != without).any()


def test_the_seed_decides_the_fresh_noise(fast: Engine) -> None:
    one, again, other = (fast.generate(**SHARED, seed=seed)[0].frames for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()
    assert one.std() > 1


def test_two_runs_in_turns_equal_each_alone(fast: Engine) -> None:
    assert fast.executor is not None
    pipeline = fast.executor.scheduler.pipeline
    requests = [fast.resolve(Request(**SHARED, seed=seed)) for seed in (1, 2)]
    states = [pipeline.begin(request, Control()) for request in requests]
    for _ in range(3):
        for state in states:
            pipeline.advance(state)
    for state, seed in zip(states, (1, 2), strict=True):
        assert state.latents is not None
        assert torch.equal(state.latents, latents(fast, seed))


def test_what_it_does_not_read_is_said(fast: Engine, caplog: pytest.LogCaptureFixture) -> None:
    plain = fast.generate(**SHARED, seed=1)[0].frames
    told = fast.generate(**SHARED, seed=1, guidance_scale=5.0, negative_prompt="snow")[0].frames
    assert (plain == told).all()
    for name in ("guidance_scale", "negative_prompt"):
        assert f"{name} has no effect on {fast.spec.id}: guidance is distilled into it" in caplog.text
    with pytest.raises(UsageError) as caught:
        fast.generate(**SHARED, num_inference_steps=4)
    assert caught.value.message == f"num_inference_steps: must be at most 3 for {fast.spec.id}, got 4"


def test_weights_for_sparse_attention_are_left_out_in_silence(
    fast: Engine, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    from safetensors import safe_open

    folder = Path(fast.config.model_path)
    with safe_open(folder / "transformer/diffusion_pytorch_model.safetensors", "pt") as file:
        assert "blocks.0.attn1.to_gate_compress.weight" in set(file.keys())
    with Engine.from_pretrained(str(folder), dit_precision="fp32") as engine:
        assert engine.spec.id == "FastVideo/FastWan2.1-T2V-1.3B-Diffusers"
        engine.generate(**SHARED, seed=1)
    assert "to_gate_compress" not in caplog.text + "".join(capfd.readouterr())


def test_a_schedule_begins_where_it_is_told() -> None:
    scheduler = DMDScheduler(8.0, torch.Generator().manual_seed(0))
    scheduler.set_timesteps(3, torch.device("cpu"))
    assert scheduler.timesteps.tolist() == [1000, 757, 522]
    assert scheduler.sigmas.tolist() == pytest.approx([1.0, grid_sigma(757, 8.0), grid_sigma(522, 8.0), 0.0])
    scheduler.set_begin_index(2)
    x, v = torch.ones(2), torch.full((2,), 0.5)
    torch.testing.assert_close(scheduler.step(v, None, x)[0], x - grid_sigma(522, 8.0) * v)
