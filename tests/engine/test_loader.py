"""Components come from folders: the right class, the right precision, safetensors only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from engine import env, loader
from engine.config import EngineConfig, VaeConfig
from engine.engine import spec_of
from engine.errors import ModelError


def _load(folder: Path, **settings: object) -> dict[str, object]:
    config = EngineConfig(model_path=str(folder), **settings)  # type: ignore[arg-type]
    source, spec = spec_of(config, env.read())
    return loader.load(source, spec, config)


def test_every_component_in_its_precision(flux_folder: Path) -> None:
    parts = _load(flux_folder, vae_precision="fp32", text_encoder_precisions=("fp16", "fp32"))
    dtypes = {name: part.dtype for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    assert dtypes == {
        "text_encoder": torch.float16,
        "text_encoder_2": torch.float32,
        "transformer": torch.bfloat16,
        "vae": torch.float32,
    }
    assert not any(part.training for part in parts.values() if isinstance(part, torch.nn.Module))


@pytest.mark.parametrize("load_format", ["auto", "dummy"])
def test_files_say_how_large_a_component_will_be(flux_folder: Path, load_format: str) -> None:
    config = EngineConfig(model_path=str(flux_folder), vae_precision="fp32", load_format=load_format)  # type: ignore[arg-type]
    source, spec = spec_of(config, env.read())
    parts = loader.load(source, spec, config)
    modules = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    bytes_of = {
        name: sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
        for name, module in modules.items()
    }
    sizes = loader.sizes(source, spec, config)
    assert sizes.keys() == bytes_of.keys()
    assert all(sizes[name] == pytest.approx(size, rel=0.02) for name, size in bytes_of.items())


def test_an_override_brings_its_own_class(flux_folder: Path, tmp_path: Path) -> None:
    from diffusers import AutoencoderTiny

    AutoencoderTiny(
        latent_channels=4, encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4
    ).save_pretrained(tmp_path / "tiny-vae")
    parts = _load(flux_folder, component_paths={"vae": str(tmp_path / "tiny-vae")})
    assert type(parts["vae"]) is AutoencoderTiny


def test_a_scheduler_in_its_place_keeps_its_class(flux_folder: Path, tmp_path: Path) -> None:
    from diffusers import FlowMatchHeunDiscreteScheduler

    FlowMatchHeunDiscreteScheduler(shift=2.0).save_pretrained(tmp_path / "heun")
    scheduler = _load(flux_folder, component_paths={"scheduler": str(tmp_path / "heun")})["scheduler"]
    assert type(scheduler) is FlowMatchHeunDiscreteScheduler
    assert scheduler.config["shift"] == 2.0


def test_weights_that_would_be_unpickled_are_refused(flux_folder: Path, tmp_path: Path) -> None:
    from diffusers import AutoencoderTiny

    folder = tmp_path / "pickled"
    AutoencoderTiny(
        latent_channels=4, encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4
    ).save_pretrained(folder, safe_serialization=False)
    assert (folder / "diffusion_pytorch_model.bin").is_file()
    given = {"vae": str(folder)}
    with pytest.raises(ModelError) as caught:
        _load(flux_folder, component_paths=given)
    assert caught.value.message == (
        "vae: AutoencoderTiny cannot be loaded: Error no file named diffusion_pytorch_model.safetensors found in "
        f"directory {folder}."
    )
    assert caught.value.code == "model_load_failed"
    assert type(_load(flux_folder, component_paths=given, trust_remote_code=True)["vae"]) is AutoencoderTiny


def test_the_encoder_of_the_vae_may_be_left_out(flux_folder: Path) -> None:
    assert _load(flux_folder)["vae"].encoder is not None  # type: ignore[attr-defined]
    vae = _load(flux_folder, vae_config=VaeConfig(load_encoder=False))["vae"]
    assert vae.encoder is None  # type: ignore[attr-defined]


def test_weights_that_cannot_be_read_name_the_component(flux_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(flux_folder, broken)
    (weights,) = (broken / "vae").glob("*.safetensors")
    weights.write_bytes(b"\x08\0\0\0\0\0\0\0{broken}")
    with pytest.raises(ModelError, match=r"^vae: AutoencoderKL cannot be loaded: "):
        _load(broken)


def test_code_of_a_model_folder_is_not_run(flux_folder: Path, tmp_path: Path) -> None:
    custom = tmp_path / "custom"
    shutil.copytree(flux_folder, custom)
    index = json.loads((custom / "model_index.json").read_text())
    index["transformer"] = ["my_code", "MyTransformer"]
    (custom / "model_index.json").write_text(json.dumps(index))
    (custom / "transformer" / "config.json").write_text("{}")
    config = EngineConfig(model_path=str(custom), model_id="FLUX.1-dev")
    source, spec = spec_of(config, env.read())
    with pytest.raises(ModelError, match=r"^transformer: class MyTransformer of 'my_code' is in neither diffusers"):
        loader.load(source, spec, config)
