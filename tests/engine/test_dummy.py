"""Random weights at the size that configs say: the published sizes, the dtypes of a loaded model, no weight file."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import catalog, dummy, env, loader, weights
from engine.config import EngineConfig
from engine.engine import Engine, spec_of
from engine.errors import ModelError

CONFIGS = Path(__file__).parents[2] / "assets" / "configs"
CLIP_L, T5, UMT5, QWEN3_4B, QWEN_VL, KL = 0.123, 4.76, 5.68, 4.02, 8.29, 0.0838
WAN = {"text_encoder": UMT5, "vae": 0.127}
WAN_5B = {"text_encoder": UMT5, "vae": 0.705, "transformer": 5.00}
I2V = WAN | {"transformer": 16.40, "image_encoder": 0.632}
# Billions of parameters of the published models.
SIZES: dict[str, dict[str, float]] = {
    "FLUX.1-dev": {"text_encoder": CLIP_L, "text_encoder_2": T5, "transformer": 11.90, "vae": KL},
    "FLUX.1-schnell": {"text_encoder": CLIP_L, "text_encoder_2": T5, "transformer": 11.89, "vae": KL},
    "FLUX.2-dev": {"text_encoder": 23.3, "transformer": 32.22, "vae": 0.084},
    "FLUX.2-klein-4B": {"text_encoder": QWEN3_4B, "transformer": 3.88},
    "FLUX.2-klein-base-4B": {"text_encoder": QWEN3_4B, "transformer": 3.88},
    "FLUX.2-klein-9B": {"text_encoder": 8.19, "transformer": 9.08},
    "FLUX.2-klein-base-9B": {"text_encoder": 8.19, "transformer": 9.08},
    "Z-Image": {"text_encoder": QWEN3_4B, "transformer": 6.15, "vae": KL},
    "Z-Image-Turbo": {"text_encoder": QWEN3_4B, "transformer": 6.15, "vae": KL},
    "GLM-Image": {"text_encoder": 0.217, "vision_language_encoder": 10.1, "transformer": 6.93, "vae": 0.406},
    "Qwen-Image": {"text_encoder": QWEN_VL, "transformer": 20.43, "vae": 0.127},
    "Qwen-Image-2512": {"text_encoder": QWEN_VL, "transformer": 20.43},
    "Qwen-Image-Edit": {"text_encoder": QWEN_VL, "transformer": 20.43},
    "Qwen-Image-Edit-2509": {"text_encoder": QWEN_VL, "transformer": 20.43},
    "Qwen-Image-Edit-2511": {"text_encoder": QWEN_VL, "transformer": 20.43},
    "Wan2.1-T2V-1.3B-Diffusers": WAN | {"transformer": 1.42},
    "Wan2.1-T2V-14B-Diffusers": WAN | {"transformer": 14.29},
    "Wan2.1-I2V-14B-480P-Diffusers": I2V,
    "Wan2.1-I2V-14B-720P-Diffusers": I2V,
    "Wan2.2-T2V-A14B-Diffusers": WAN | {"transformer": 14.29, "transformer_2": 14.29},
    "Wan2.2-I2V-A14B-Diffusers": WAN | {"transformer": 14.29, "transformer_2": 14.29},
    "Wan2.2-TI2V-5B-Diffusers": WAN_5B,
    "FastWan2.1-T2V-1.3B-Diffusers": WAN | {"transformer": 1.42},
    "FastWan2.2-TI2V-5B-FullAttn-Diffusers": WAN_5B,
    "HunyuanVideo": {"text_encoder": 7.5, "text_encoder_2": CLIP_L, "transformer": 12.82, "vae": 0.246},
    "FastHunyuan-diffusers": {"text_encoder": 7.5, "text_encoder_2": CLIP_L, "transformer": 12.82},
    "Ovis-Image-7B": {"text_encoder": 1.72, "transformer": 7.37, "vae": KL},
    "stable-diffusion-3.5-large": {
        "text_encoder": CLIP_L,
        "text_encoder_2": 0.695,
        "text_encoder_3": T5,
        "transformer": 8.06,
        "vae": KL,
    },
    "stable-diffusion-xl-base-1.0": {"text_encoder": CLIP_L, "text_encoder_2": 0.695, "unet": 2.567, "vae": KL},
}
_counted: dict[str, float] = {}


def _parameters(library: str, class_name: str, folder: Path) -> float:
    """Billions of parameters; the same config is counted once."""
    key = class_name + (folder / "config.json").read_text()
    if key not in _counted:
        cls = getattr(importlib.import_module(library), class_name)
        module = weights.skeleton(cls, weights.config_of(cls, folder), torch.bfloat16)
        assert all(parameter.is_meta for parameter in module.parameters())
        _counted[key] = sum(parameter.numel() for parameter in module.parameters()) / 1e9
    return _counted[key]


@pytest.mark.parametrize("name", sorted(SIZES))
def test_configs_build_the_published_size(name: str) -> None:
    index = json.loads((CONFIGS / name / "model_index.json").read_text())
    for component, billions in SIZES[name].items():
        assert _parameters(*index[component], CONFIGS / name / component) == pytest.approx(billions, rel=0.01)


def test_every_model_of_the_catalog_has_configs() -> None:
    ids = {spec.id.rsplit("/", 1)[-1] for spec in catalog.MODELS if "/" in spec.id}
    assert {folder.name for folder in CONFIGS.iterdir()} == set(SIZES)
    assert ids <= set(SIZES)


def test_a_hub_id_means_the_configs_that_travel_along() -> None:
    for spec in catalog.MODELS:
        if (CONFIGS / spec.id.rsplit("/", 1)[-1]).is_dir():
            source, found = spec_of(EngineConfig(model_path=spec.id, load_format="dummy"), env.read())
            assert found.id == spec.id
            assert source.folder == CONFIGS / spec.id.rsplit("/", 1)[-1]
            by_configs = catalog.match("copy", None, spec.pipeline, {**source.configs, "model_index": source.index})
            assert by_configs is not None
            assert by_configs.family == spec.family


def _bare(folder: Path, place: Path) -> Path:
    """Copy a model's configs and tokenizers, without its weights."""
    shutil.copytree(folder, place, ignore=shutil.ignore_patterns("*.safetensors"))
    return place


def _load(folder: Path, **settings: Any) -> dict[str, Any]:
    config = EngineConfig(model_path=str(folder), **settings)
    source, spec = spec_of(config, env.read())
    return loader.load(source, spec, config)


def test_a_folder_of_configs_draws(flux_folder: Path, tmp_path: Path) -> None:
    folder = _bare(flux_folder, tmp_path / "bare")
    with pytest.raises(ModelError, match="has no safetensors weights"):
        Engine.from_pretrained(str(folder))
    pictures = []
    for _ in range(2):
        with Engine.from_pretrained(str(folder), load_format="dummy") as engine:
            (output,) = engine.generate("a cat", height=64, width=64, num_inference_steps=2, seed=1)
            assert output.recipe["engine"]["settings"]["load_format"] == "dummy"
            pictures.append(output.frames)
    assert pictures[0].shape == (1, 64, 64, 3)
    assert pictures[0].std() > 1
    assert (pictures[0] == pictures[1]).all(), "the same weights each time"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("family", ["flux", "wan", "sdxl"])
def test_dtypes_are_those_of_a_loaded_model(
    family: str, precision: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(f"{family}_folder")
    same = {"dit_precision": precision, "vae_precision": precision, "text_encoder_precisions": (precision,)}
    loaded = _load(folder, **same)
    drawn = _load(_bare(folder, tmp_path / folder.name), load_format="dummy", **same)
    for name, part in loaded.items():
        if isinstance(part, torch.nn.Module):
            for kind in ("named_parameters", "named_buffers"):
                expected = {key: (tensor.dtype, tensor.shape) for key, tensor in getattr(part, kind)()}
                assert {key: (tensor.dtype, tensor.shape) for key, tensor in getattr(drawn[name], kind)()} == expected
            assert not drawn[name].training
            assert not any(parameter.requires_grad for parameter in drawn[name].parameters())


def test_weights_have_a_seed_of_their_own(flux_folder: Path, tmp_path: Path) -> None:
    parts = _load(_bare(flux_folder, tmp_path / "bare"), load_format="dummy", dit_precision="fp32")
    weights = dict(parts["transformer"].named_parameters())
    first, second = (weights[f"transformer_blocks.{i}.attn.to_q.weight"] for i in (0, 1))
    assert not torch.equal(first, second)
    assert first.std().item() == pytest.approx(0.02, rel=0.1)
    assert (weights["transformer_blocks.0.attn.norm_q.weight"] == 1).all()
    tied = _load(_bare(flux_folder, tmp_path / "again"), load_format="dummy")["text_encoder_2"]
    assert tied.shared.weight is tied.encoder.embed_tokens.weight


def test_configs_alone_get_a_tokenizer(tmp_path: Path, flux_folder: Path) -> None:
    folder = _bare(flux_folder, tmp_path / "bare")
    shutil.rmtree(folder / "tokenizer")
    shutil.rmtree(folder / "tokenizer_2")
    parts = _load(folder, load_format="dummy")
    ids = parts["tokenizer"]("a cat")["input_ids"]
    assert parts["text_encoder"].config.eos_token_id == parts["tokenizer"].eos_token_id == ids[-1]
    assert type(parts["tokenizer_2"]).__name__.startswith("T5Tokenizer")


@pytest.mark.parametrize(
    ("name", "encoder", "ids"),
    [
        ("Qwen-Image-Edit", "text_encoder", {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}),
        ("GLM-Image", "vision_language_encoder", {"image_token_id": "<|image|>", "image_end_token_id": "<|img_eos|>"}),
    ],
)
def test_an_encoder_knows_the_marks_of_its_stand_in(name: str, encoder: str, ids: dict[str, str]) -> None:
    index = json.loads((CONFIGS / name / "model_index.json").read_text())
    library, class_name = index[encoder]
    config = weights.config_of(getattr(importlib.import_module(library), class_name), CONFIGS / name / encoder)
    tokenizer = dummy.stand_in(index[dummy.tokenizer_of(encoder)][1])
    dummy.match(config, tokenizer)
    known = getattr(tokenizer, "tokenizer", tokenizer).get_vocab()
    assert {key: getattr(config, key) for key in ids} == {key: known[mark] for key, mark in ids.items()}


def test_every_component_without_a_config_has_a_stand_in() -> None:
    for spec in catalog.MODELS:
        folder = CONFIGS / spec.id.rsplit("/", 1)[-1]
        if folder.is_dir():
            index = json.loads((folder / "model_index.json").read_text())
            missing = [key for key, value in index.items() if isinstance(value, list) and not (folder / key).is_dir()]
            assert all(dummy.stand_in(spec.classes.get(key, index[key][1])) is not None for key in missing), spec.id


def test_what_has_no_stand_in_is_named(tmp_path: Path, flux_folder: Path) -> None:
    folder = _bare(flux_folder, tmp_path / "bare")
    shutil.rmtree(folder / "scheduler")
    with pytest.raises(ModelError, match=r"^scheduler: there is no stand-in for FlowMatchEulerDiscreteScheduler"):
        _load(folder, load_format="dummy")
