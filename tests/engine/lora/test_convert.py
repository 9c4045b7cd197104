"""Diffusers' converters: what they add to our own names, and that both agree where both know a layout."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from engine.errors import UsageError
from engine.lora.convert import converted
from engine.lora.formats import read

State = dict[str, torch.Tensor]
# Modules of kohya's SDXL files, named as in the original UNet -> ours.
UNET = {
    "input_blocks_3_1_transformer_blocks_0_attn1_to_q": "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "input_blocks_3_1_proj_in": "down_blocks.1.attentions.0.proj_in",
    "middle_block_1_transformer_blocks_0_attn2_to_out_0": "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0",
    "output_blocks_0_1_transformer_blocks_0_ff_net_2": "up_blocks.0.attentions.0.transformer_blocks.0.ff.net.2",
    "input_blocks_1_0_in_layers_2": "down_blocks.0.resnets.0.conv1",
}


def halves(state: State, base: str, network: Any, targets: list[str], lora: Any, kohya: bool = False) -> None:
    down, up = lora.halves(network, targets)
    names = ("lora_down", "lora_up") if kohya else ("lora_A", "lora_B")
    state |= {f"{base}.{names[0]}.weight": down, f"{base}.{names[1]}.weight": up}
    if kohya:
        state[f"{base}.alpha"] = torch.tensor(1.5)


def wan(lora: Any, network: Any) -> State:
    state = State()
    for i in range(2):
        for ours, theirs in (("attn1", "self_attn"), ("attn2", "cross_attn")):
            for leaf, original in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o")):
                halves(
                    state,
                    f"diffusion_model.blocks.{i}.{theirs}.{original}",
                    network,
                    [f"blocks.{i}.{ours}.{leaf}"],
                    lora,
                )
        for leaf, original in (("net.0.proj", "0"), ("net.2", "2")):
            halves(state, f"diffusion_model.blocks.{i}.ffn.{original}", network, [f"blocks.{i}.ffn.{leaf}"], lora)
    return state


def musubi(lora: Any, network: Any) -> State:
    state = State()
    for key, value in wan(lora, network).items():
        base, side = key.removeprefix("diffusion_model.").removesuffix(".weight").rsplit(".", 1)
        base = f"lora_unet_{base.replace('.', '_')}"
        state[f"{base}.{'lora_down' if side == 'lora_A' else 'lora_up'}.weight"] = value
        state[f"{base}.alpha"] = torch.tensor(1.5)
    return state


def xlabs(lora: Any, network: Any) -> State:
    state = State()
    for i in range(2):
        for name, leaves in {
            "qkv_lora1": ["to_q", "to_k", "to_v"],
            "qkv_lora2": ["add_q_proj", "add_k_proj", "add_v_proj"],
            "proj_lora1": ["to_out.0"],
            "proj_lora2": ["to_add_out"],
        }.items():
            down, up = lora.halves(network, [f"transformer_blocks.{i}.attn.{leaf}" for leaf in leaves])
            base = f"double_blocks.{i}.processor.{name}"
            state |= {f"{base}.down.weight": down, f"{base}.up.weight": up}
    return state


def flux2(lora: Any, network: Any) -> State:
    state = State()
    block, single = "transformer_blocks.0", "single_transformer_blocks.1"
    qkv = [f"{block}.attn.to_{part}" for part in "qkv"]
    added = [f"{block}.attn.add_{part}_proj" for part in "qkv"]
    for name, targets in {
        "double_blocks.0.img_attn.qkv": qkv,
        "double_blocks.0.txt_attn.qkv": added,
        "double_blocks.0.img_attn.proj": [f"{block}.attn.to_out.0"],
        "double_blocks.0.txt_attn.proj": [f"{block}.attn.to_add_out"],
        "double_blocks.0.img_mlp.0": [f"{block}.ff.linear_in"],
        "double_blocks.0.txt_mlp.2": [f"{block}.ff_context.linear_out"],
        "single_blocks.1.linear1": [f"{single}.attn.to_qkv_mlp_proj"],
        "single_blocks.1.linear2": [f"{single}.attn.to_out"],
    }.items():
        halves(state, f"diffusion_model.{name}", network, targets, lora)
    return state


def hunyuan(lora: Any, network: Any) -> State:
    state = State()
    block = "transformer_blocks.0"
    for name, targets in {
        "double_blocks.0.img_attn_qkv": [f"{block}.attn.to_{part}" for part in "qkv"],
        "double_blocks.0.txt_attn_qkv": [f"{block}.attn.add_{part}_proj" for part in "qkv"],
        "double_blocks.0.img_mlp.fc1": [f"{block}.ff.net.0.proj"],
        "double_blocks.0.txt_attn_proj": [f"{block}.attn.to_add_out"],
        "double_blocks.0.txt_mod.linear": [f"{block}.norm1_context.linear"],
        "single_blocks.1.linear2": ["single_transformer_blocks.1.proj_out"],
    }.items():
        halves(state, f"diffusion_model.{name}", network, targets, lora)
    return state


def z_image(lora: Any, network: Any) -> State:
    state = State()
    for name in ("layers.0.attention.to_q", "layers.1.feed_forward.w1", "layers.0.adaLN_modulation.0"):
        halves(state, f"lora_unet_{name.replace('.', '_')}", network, [name], lora, kohya=True)
    return state


def qwen(lora: Any, network: Any) -> State:
    state = State()
    for name in ("transformer_blocks.0.attn.to_q", "transformer_blocks.1.img_mlp.net.0.proj"):
        halves(state, name, network, [name], lora, kohya=True)
    return state


@pytest.mark.parametrize(
    ("family", "make"),
    [
        ("wan", wan), ("wan", musubi), ("flux", xlabs), ("flux2", flux2), ("hunyuan-video", hunyuan),
        ("z-image", z_image), ("qwen-image", qwen),
    ],
)  # fmt: skip
def test_our_names_agree_with_diffusers(family: str, make: Any, lora: Any) -> None:
    network = lora.denoiser(family)
    state = make(lora, network)
    theirs = read(converted(state, network), network)
    ours = read(state, network)
    assert ours.layers.keys() == theirs.layers.keys() and len(ours.layers) > 1
    for path, delta in ours.layers.items():
        torch.testing.assert_close(lora.added(delta), lora.added(theirs.layers[path]), rtol=1e-5, atol=1e-5)


def test_kohya_files_of_sdxl_with_the_names_of_the_original_unet(lora: Any) -> None:
    network, state, expected = lora.denoiser("sdxl"), State(), State()
    for i, (name, target) in enumerate(UNET.items()):
        base = f"lora_unet_{name}"
        halves(state, base, network, [target], lora, kohya=True)
        state[f"{base}.alpha"] = torch.tensor(1.0 + i)
        up, down = state[f"{base}.lora_up.weight"], state[f"{base}.lora_down.weight"]
        expected[target] = (1.0 + i) / 3 * torch.tensordot(up.flatten(1), down, 1)
    state |= {
        f"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_{side}.weight": lora.noise(3, 3) for side in ("down", "up")
    }
    adapter = read(state, network, target="unet")
    assert adapter.layers.keys() == expected.keys()
    for path, change in expected.items():
        torch.testing.assert_close(lora.added(adapter.layers[path]), change, rtol=1e-5, atol=1e-5)
    assert len(adapter.skipped) == 2


def test_a_file_that_a_converter_chokes_on_stays_unknown(lora: Any) -> None:
    state = {"lora_unet_blocks_0_self_attn_q.lora_down.weight": lora.noise(3, 64)}  # it wants every layer
    assert converted(state, lora.denoiser("wan")) == {}
    assert converted(state, lora.denoiser("glm-image")) == {}  # it has none


def test_the_message_names_the_keys_of_the_file_and_not_what_a_converter_makes_of_them(lora: Any) -> None:
    state = State()
    for name in ("input_blocks_9_1_proj_in", "input_blocks_9_1_proj_out"):
        state |= {f"lora_unet_{name}.lora_down.weight": lora.noise(3, 16), f"lora_unet_{name}.alpha": torch.tensor(1.0)}
        state |= {f"lora_unet_{name}.lora_up.weight": lora.noise(16, 3)}
    with pytest.raises(UsageError, match="lora_unet_input_blocks_9_1_proj_in"):
        read(state, lora.denoiser("sdxl"), target="unet")


@pytest.mark.parametrize(
    ("cls", "base", "suffixes", "modules"),
    [
        (
            "FluxTransformer2DModel",
            "lora_unet_{}",
            ("lora_down.weight", "lora_up.weight", "alpha"),
            {
                "double_blocks_0_img_attn_qkv": (9216, 3072),
                "double_blocks_0_txt_mod_lin": (18432, 3072),
                "single_blocks_0_linear1": (21504, 3072),
                "single_blocks_0_linear2": (3072, 15360),
            },
        ),
        (
            "HunyuanVideoTransformer3DModel",
            "diffusion_model.{}",
            ("lora_A.weight", "lora_B.weight"),
            {"single_blocks.0.linear1": (21504, 3072), "single_blocks.0.modulation.linear": (9216, 3072)},
        ),
    ],
)
def test_both_agree_where_diffusers_knows_the_widths_of_the_real_model_alone(
    cls: str, base: str, suffixes: tuple[str, ...], modules: dict[str, tuple[int, int]], lora: Any
) -> None:
    with torch.device("meta"):
        network = getattr(diffusers, cls)(num_layers=1, num_single_layers=1)
    state = State()
    for name, (rows, columns) in modules.items():
        tensors = (lora.noise(1, columns), lora.noise(rows, 1), torch.tensor(2.0))
        state |= dict(zip((f"{base.format(name)}.{suffix}" for suffix in suffixes), tensors, strict=False))
    ours, theirs = read(state, network), read(converted(state, network), network)
    assert ours.layers.keys() == theirs.layers.keys() and len(ours.layers) > len(modules)
    for path, delta in ours.layers.items():
        other = theirs.layers[path]
        assert delta.up is not None and delta.down is not None and other.up is not None and other.down is not None
        torch.testing.assert_close(delta.scale * delta.up * delta.down[0, 0], other.scale * other.up * other.down[0, 0])
        torch.testing.assert_close(delta.scale * delta.up[0] * delta.down, other.scale * other.up[0] * other.down)


def test_a_layer_that_the_model_lacks_is_called_as_in_the_file(lora: Any) -> None:
    network, state = lora.denoiser("sdxl"), State()
    halves(
        state, "lora_unet_input_blocks_3_1_proj_in", network, ["down_blocks.1.attentions.0.proj_in"], lora, kohya=True
    )
    for i in range(3):
        halves(state, f"lora_unet_output_blocks_{i}_9_proj_in", network, ["mid_block.attentions.0.proj_in"], lora, True)
    with pytest.raises(UsageError, match=r"12 of its 12 tensors fit no layer: .*lora_unet_"):
        read(state, network, target="unet")
