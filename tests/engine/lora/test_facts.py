"""What a LoRA file tells of itself: ranks, alphas, layers, words, and the model that it looks made for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import UsageError
from engine.lora.facts import facts, guess, targets

BASE = "lora_unet_double_blocks_{}_img_attn_qkv"


def test_a_kohya_file_tells_its_ranks_alphas_and_words(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    state = {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.zeros(4, 8)}
    for i, rank in enumerate((4, 8)):
        base = BASE.format(i)
        state |= {f"{base}.lora_down.weight": torch.zeros(rank, 8, dtype=torch.bfloat16)}
        state |= {f"{base}.lora_up.weight": torch.zeros(24, rank, dtype=torch.bfloat16)}
        state |= {f"{base}.alpha": torch.tensor(2.0 * rank)}
    tags = json.dumps({"10_pxl": {"pxl style": 40, "a cat": 3}})
    metadata = {"modelspec.trigger_phrase": "pxl", "ss_tag_frequency": tags, "ss_base_model_version": "flux1"}
    save_file(state, path, metadata=metadata)
    told = facts(path)
    expected = {
        "kind": "LoRA",
        "layout": "kohya",
        "ranks": [4, 8],
        "alphas": [8.0, 16.0],
        "layers": 3,
        "trigger_words": ["pxl"],
        "training_tags": ["pxl style", "a cat"],
        "base_model": "flux1",
        "looks_like": "FLUX.1",
        "components": {"text_encoder": 1, "denoiser": 6},
        "dtypes": {"F32": 3, "BF16": 4},
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert {key: told[key] for key in expected} == expected
    assert told["targets"]["lora_unet_double_blocks_*_img_attn_qkv"] == 2


def test_differences_are_counted_and_settings_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    settings = json.dumps({"transformer.lora_alpha": 16, "transformer.use_rslora": True})
    state = {
        "diffusion_model.blocks.0.norm3.diff": torch.zeros(4),
        "diffusion_model.blocks.0.ffn.0.diff_b": torch.ones(4),
    }
    save_file(state, path, metadata={"lora_adapter_metadata": settings})
    told = facts(path)
    assert (told["full_differences"], told["bias_differences"], told["layers"]) == (1, 1, 0)
    assert told["alphas"] == [16.0] and told["rank_stabilized"] and told["ranks"] == []


def test_weights_of_a_model_are_no_lora(tmp_path: Path) -> None:
    save_file({"transformer_blocks.0.attn.to_q.weight": torch.zeros(4, 4)}, tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="weights of a model, not of a LoRA"):
        facts(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("module", "model"),
    [
        ("transformer.single_transformer_blocks.0.attn.to_q", "FLUX.1"),
        ("double_blocks.0.processor.qkv_lora1", "FLUX.1"),
        ("diffusion_model.double_stream_modulation_img.lin", "FLUX.2"),
        ("transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj", "FLUX.2"),
        ("diffusion_model.double_blocks.0.img_attn_qkv", "HunyuanVideo"),
        ("transformer_blocks.0.img_mlp.net.2", "Qwen-Image"),
        ("lora_unet_transformer_blocks_0_txt_mod_1", "Qwen-Image"),
        ("diffusion_model.layers.0.attention.qkv", "Z-Image"),
        ("lora_unet_layers_0_feed_forward_w1", "Z-Image"),
        ("lora_unet_joint_blocks_0_x_block_attn_qkv", "Stable Diffusion 3"),
        ("lora_unet_input_blocks_4_1_proj_in", "Stable Diffusion XL or 1.5"),
        ("unet.mid_block.attentions.0.proj_in", "Stable Diffusion XL or 1.5"),
        ("transformer.transformer_blocks.0.attn1.to_q", "GLM-Image"),
        ("diffusion_model.blocks.0.self_attn.q", "Wan"),
        ("lora_unet_blocks_0_cross_attn_k_img", "Wan"),
        ("transformer.blocks.0.attn1.to_q", "Wan"),
        ("transformer.transformer_blocks.0.attn.to_q", "FLUX.1, Qwen-Image or Stable Diffusion 3"),
        ("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", None),
    ],
)
def test_names_of_modules_tell_the_model(module: str, model: str | None) -> None:
    assert guess([module]) == model


def test_modules_that_differ_in_their_block_are_one_kind() -> None:
    names = ["transformer.blocks.0.ffn.net.2", "transformer.blocks.11.ffn.net.2", "transformer.blocks.11.ffn.net.2"]
    assert targets(names) == {"transformer.blocks.*.ffn.net.2": 2}
