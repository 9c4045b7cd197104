"""Settings of the VAE: its tiles, its slices, the precision of its halves; what it cannot do is refused by name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.configuration_utils import FrozenDict

from engine import schema
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import UsageError
from engine.passes import vae
from engine.types import Progress

FP32 = {"dit_precision": "fp32", "vae_precision": "fp32", "text_encoder_precisions": ["fp32"]}
REQUEST: dict[str, Any] = {"height": 64, "width": 96, "num_inference_steps": 2, "seed": 1}


def _config(**vae_config: Any) -> EngineConfig:
    return schema.read(EngineConfig, {"vae_config": vae_config})


def _engine(folder: Path, **settings: Any) -> Engine:
    return Engine.from_pretrained(str(folder), **{**FP32, **settings})


def _vae_of(engine: Engine) -> Any:
    assert engine.executor is not None
    return engine.executor.scheduler.pipeline.model.components["vae"]


def _drawn(engine: Engine, **fields: Any) -> np.ndarray[Any, Any]:
    (output,) = engine.generate("a cat", **{**REQUEST, **fields})
    return output.frames.astype(int)


@pytest.fixture(scope="module")
def whole(flux: Engine) -> np.ndarray[Any, Any]:
    return _drawn(flux)


def _calls(engine: Engine, **fields: Any) -> tuple[int, np.ndarray[Any, Any]]:
    """Draw, and count the calls of the decoder."""
    calls = []
    hook = _vae_of(engine).decoder.register_forward_pre_hook(lambda *_: calls.append(1))
    frames = _drawn(engine, **fields)
    hook.remove()
    return len(calls), frames


def test_tiles_have_the_size_that_is_set(flux_folder: Path, whole: np.ndarray[Any, Any]) -> None:
    tiles = {"tile_sample_min_height": 32, "tile_sample_stride_height": 16}
    with _engine(flux_folder, vae_tiling=True, vae_config=tiles) as engine:
        calls, frames = _calls(engine)
        used = engine.recipe["settings"]["vae_config"]
    assert calls == 4 * 6, "64x96 in strides of 16"
    assert frames.shape == whole.shape
    assert 0 < np.abs(frames - whole).mean() < 20
    assert schema.read(EngineConfig, {"vae_config": used}).vae_config == _config(**tiles).vae_config, "replays"


def test_tiling_may_be_refused_or_wanted(flux_folder: Path, whole: np.ndarray[Any, Any]) -> None:
    with _engine(flux_folder, vae_tiling=False, vae_config={"tile_sample_min_height": 32}) as engine:
        calls, frames = _calls(engine)
    assert calls == 1
    assert (frames == whole).all()


def test_slices_do_not_change_pixels(flux_folder: Path, whole: np.ndarray[Any, Any]) -> None:
    with _engine(flux_folder, vae_slicing=True) as engine:
        assert _vae_of(engine).use_slicing
        assert (_drawn(engine) == whole).all()


def test_the_decoder_has_a_precision_of_its_own(
    flux_folder: Path, whole: np.ndarray[Any, Any], sdxl_folder: Path
) -> None:
    image = Path(__file__).parents[3] / "assets" / "examples" / "sunset.png"
    with _engine(flux_folder, vae_decode_precision="bf16") as engine:
        parts = _vae_of(engine)
        assert parts.encoder.conv_in.weight.dtype == torch.float32
        assert parts.decoder.conv_in.weight.dtype == torch.bfloat16
        assert 0 < np.abs(_drawn(engine) - whole).max() < 16
        assert _drawn(engine, image_path=[str(image)], strength=0.6).std() > 1
        assert engine.recipe["settings"]["vae_decode_precision"] == "bf16"
    with _engine(sdxl_folder, vae_decode_precision="bf16") as engine:
        assert _drawn(engine, num_inference_steps=1).std() > 1


def test_a_vae_of_video_tiles_over_space(wan_folder: Path) -> None:
    tiles = {
        f"tile_sample_{kind}_{side}": size
        for kind, size in (("min", 32), ("stride", 16))
        for side in ("height", "width")
    }
    with _engine(wan_folder, vae_tiling=True, vae_config=tiles) as engine:
        network = _vae_of(engine)
        assert (network.tile_sample_min_width, network.tile_sample_stride_height) == (32, 16)
        assert _drawn(engine, num_frames=5, width=64).shape == (5, 64, 64, 3)


def test_a_vae_that_tiles_over_time() -> None:
    from diffusers import AutoencoderKLHunyuanVideo

    network = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    )
    vae.apply(network, _config(tile_sample_min_num_frames=32, blend_num_frames=8, use_temporal_tiling=False))
    assert (network.tile_sample_min_num_frames, network.tile_sample_stride_num_frames) == (32, 24)
    assert not network.use_framewise_decoding


@pytest.mark.parametrize(
    ("asked", "stride"),
    [({"tile_sample_min_height": 128}, 96), ({"tile_sample_min_height": 40}, 24), ({"tile_sample_min_height": 8}, 8)],
)
def test_a_tile_size_alone_keeps_the_share_of_its_overlap(asked: dict[str, int], stride: int) -> None:
    from diffusers import AutoencoderKLWan

    network = AutoencoderKLWan(base_dim=8, z_dim=4, num_res_blocks=1, dim_mult=[1, 1, 1, 1])
    vae.apply(network, _config(**asked))
    found = (network.tile_sample_min_height, network.tile_sample_stride_height, network.tile_sample_stride_width)
    assert found == (asked["tile_sample_min_height"], stride, 192)


@pytest.mark.parametrize("blend", [16, 20, 3])
def test_frames_that_no_tile_can_blend_are_refused_by_their_own_name(blend: int) -> None:
    from diffusers import AutoencoderKLHunyuanVideo

    network = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    )
    with pytest.raises(UsageError) as caught:
        vae.tiles(network, _config(blend_num_frames=blend))
    expected = f"must be below the 16 frames of a tile by a multiple of 4, got {blend}"
    assert caught.value.message == f"vae_config.blend_num_frames: {expected}"


def test_a_vae_of_another_class_draws_edits_and_previews(
    flux_folder: Path, whole: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    channels = (8,) * 4
    AutoencoderTiny(
        latent_channels=4, encoder_block_out_channels=channels, decoder_block_out_channels=channels
    ).save_pretrained(tmp_path)
    image = Path(__file__).parents[3] / "assets" / "examples" / "sunset.png"
    with _engine(flux_folder, component_paths={"vae": str(tmp_path)}) as engine:
        frames = _drawn(engine)
        assert frames.shape == whole.shape
        assert frames.std() > 1 and np.abs(frames - whole).mean() > 1
        edited = _drawn(engine, image_path=[str(image)], strength=0.5, num_inference_steps=4)
        assert np.abs(edited - _drawn(engine, num_inference_steps=4)).mean() > 0.1
        told = [event for event in engine.stream("a cat", preview=True, **REQUEST) if isinstance(event, Progress)]
        assert any(event.preview for event in told)
        assert "vae" in engine.recipe["overrides"]


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("flux", {"load_decoder": False}, "load_decoder: must be true: pictures and clips are what the decoder makes"),
        ("flux", {"tile_sample_min_height": 30}, "tile_sample_min_height: must be a multiple of 8, got 30"),
        ("flux", {"tile_sample_stride_height": 40}, "a stride of 40 leaves gaps between tiles of 32"),
        ("flux", {"tile_sample_min_height": 32, "tile_sample_min_width": 64}, "AutoencoderKL has square tiles"),
        ("flux", {"tile_sample_min_num_frames": 8}, "AutoencoderKL has no tiles over time"),
        ("flux", {"blend_num_frames": 4}, "blend_num_frames: AutoencoderKL has no tiles over time"),
        ("wan", {"blend_num_frames": 4}, "blend_num_frames: AutoencoderKLWan has no tiles over time"),
        ("flux", {"use_temporal_tiling": True}, "use_temporal_tiling: AutoencoderKL has no tiles over time"),
        ("wan", {"tile_sample_min_num_frames": 8}, "AutoencoderKLWan has no such tiles; what can be set: tile_sample_"),
        ("wan", {"tile_sample_stride_width": 512}, "a stride of 512 leaves gaps between tiles of 256"),
    ],
)
def test_what_a_vae_cannot_do_is_refused_before_weights_are_read(
    family: str, settings: dict[str, Any], message: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine import loader

    monkeypatch.setattr(loader, "load", None)
    with pytest.raises(UsageError) as caught:
        _engine(request.getfixturevalue(f"{family}_folder"), vae_config=settings)
    assert caught.value.message.startswith("vae_config.")
    assert message in caught.value.message


WAN = {"base_dim": 96, "decoder_base_dim": None, "patch_size": None, "is_residual": False}
WAN_5B = {"base_dim": 160, "decoder_base_dim": 256, "patch_size": 2, "is_residual": True}
QWEN = {"base_dim": 96}


@pytest.mark.parametrize(
    ("config", "size", "frames", "dtype", "gib"),
    [
        (WAN, (480, 832), 1, torch.float32, 3.15),
        (WAN, (480, 832), 9, torch.float32, 8.43),
        (WAN, (480, 832), 81, torch.float32, 8.76),
        (WAN, (480, 832), 81, torch.bfloat16, 4.38),
        (WAN, (720, 1280), 9, torch.float32, 19.44),
        (WAN_5B, (704, 1280), 1, torch.float32, 6.19),
        (WAN_5B, (704, 1280), 33, torch.float32, 20.14),
        (WAN_5B, (704, 1280), 33, torch.bfloat16, 10.08),
        (QWEN, (1024, 1024), 1, torch.float32, 8.26),
        (QWEN, (1328, 1328), 1, torch.bfloat16, 6.95),
    ],
)
def test_the_estimated_peak_is_close_above_the_measured(
    config: dict[str, Any], size: tuple[int, int], frames: int, dtype: torch.dtype, gib: float
) -> None:
    """`gib` was measured on an H200 with the real decoders and random weights."""
    decoder = SimpleNamespace(config=FrozenDict(config), dtype=dtype)
    assert gib < vae.peak_bytes(decoder, size, frames) / 2**30 < gib * 1.05
