"""Every layout that LoRA files come in, for every family that has it: the effect on each weight, computed by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from engine.lora.blocks import pack
from engine.lora.formats import read
from engine.lora.layers import Merged

Names = dict[str, list[str]]  # module in the file -> modules of ours whose rows it holds, in order
State = dict[str, torch.Tensor]

# Modules under diffusers' own names.
OWN: dict[str, list[str]] = {
    "flux": [
        "transformer_blocks.1.attn.to_q", "transformer_blocks.1.attn.add_k_proj", "transformer_blocks.0.attn.to_out.0",
        "transformer_blocks.0.ff.net.0.proj", "single_transformer_blocks.1.proj_mlp", "x_embedder",
    ],
    "flux2": [
        "transformer_blocks.1.attn.to_q", "transformer_blocks.0.attn.to_out.0", "transformer_blocks.0.ff.linear_in",
        "single_transformer_blocks.1.attn.to_qkv_mlp_proj", "single_transformer_blocks.0.attn.to_out",
    ],
    "z-image": [
        "layers.0.attention.to_q", "layers.1.attention.to_out.0", "layers.1.feed_forward.w1",
        "layers.0.feed_forward.w3", "layers.0.adaLN_modulation.0",
        "context_refiner.0.attention.to_k", "noise_refiner.0.feed_forward.w2",
    ],
    "qwen-image": [
        "transformer_blocks.0.attn.to_q", "transformer_blocks.1.attn.add_q_proj", "transformer_blocks.1.attn.to_out.0",
        "transformer_blocks.0.img_mlp.net.0.proj", "transformer_blocks.1.txt_mlp.net.2",
        "transformer_blocks.0.img_mod.1",
    ],
    "wan": ["blocks.0.attn1.to_q", "blocks.1.attn2.to_out.0", "blocks.0.ffn.net.0.proj", "blocks.1.ffn.net.2"],
    "wan-i2v": ["blocks.0.attn1.to_q", "blocks.1.attn2.add_k_proj", "blocks.0.ffn.net.2"],
    "wan-a14b": ["blocks.0.attn1.to_q", "blocks.1.attn2.to_k"],
    "hunyuan-video": [
        "transformer_blocks.0.attn.to_q", "single_transformer_blocks.1.attn.to_v",
        "single_transformer_blocks.0.proj_out",
        "context_embedder.token_refiner.refiner_blocks.0.attn.to_k",
    ],
    "glm-image": [
        "transformer_blocks.0.attn1.to_q", "transformer_blocks.1.attn1.to_out.0", "transformer_blocks.1.ff.net.2",
    ],
    "sd3": ["transformer_blocks.0.attn.to_q", "transformer_blocks.1.attn.to_k", "transformer_blocks.0.ff.net.0.proj"],
    "ovis": ["transformer_blocks.0.attn.to_q", "single_transformer_blocks.1.proj_mlp"],
    "sdxl": [
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "mid_block.attentions.0.proj_in",
        "up_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj", "down_blocks.0.resnets.0.conv1",
        "down_blocks.1.resnets.0.conv_shortcut", "up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0",
    ],
}  # fmt: skip


def qkv(path: str) -> list[str]:
    return [f"{path}.to_q", f"{path}.to_k", f"{path}.to_v"]


def added_qkv(path: str) -> list[str]:
    return [f"{path}.add_q_proj", f"{path}.add_k_proj", f"{path}.add_v_proj"]


# Names of the repositories that the models come from.
BFL: Names = {
    "double_blocks.0.img_attn.qkv": qkv("transformer_blocks.0.attn"),
    "double_blocks.1.txt_attn.qkv": added_qkv("transformer_blocks.1.attn"),
    "double_blocks.1.img_attn.proj": ["transformer_blocks.1.attn.to_out.0"],
    "double_blocks.0.txt_attn.proj": ["transformer_blocks.0.attn.to_add_out"],
}
ORIGINAL: dict[str, Names] = {
    "flux": BFL
    | {
        "double_blocks.0.img_mod.lin": ["transformer_blocks.0.norm1.linear"],
        "double_blocks.1.txt_mod.lin": ["transformer_blocks.1.norm1_context.linear"],
        "double_blocks.1.img_mlp.0": ["transformer_blocks.1.ff.net.0.proj"],
        "double_blocks.1.txt_mlp.2": ["transformer_blocks.1.ff_context.net.2"],
        "single_blocks.1.linear1": [*qkv("single_transformer_blocks.1.attn"), "single_transformer_blocks.1.proj_mlp"],
        "single_blocks.0.linear2": ["single_transformer_blocks.0.proj_out"],
        "single_blocks.0.modulation.lin": ["single_transformer_blocks.0.norm.linear"],
        "img_in": ["x_embedder"],
        "txt_in": ["context_embedder"],
        "time_in.in_layer": ["time_text_embed.timestep_embedder.linear_1"],
        "vector_in.out_layer": ["time_text_embed.text_embedder.linear_2"],
        "guidance_in.in_layer": ["time_text_embed.guidance_embedder.linear_1"],
        "final_layer.linear": ["proj_out"],
    },
    "flux2": BFL
    | {
        "double_blocks.0.img_mlp.0": ["transformer_blocks.0.ff.linear_in"],
        "double_blocks.0.txt_mlp.2": ["transformer_blocks.0.ff_context.linear_out"],
        "single_blocks.1.linear1": ["single_transformer_blocks.1.attn.to_qkv_mlp_proj"],
        "single_blocks.0.linear2": ["single_transformer_blocks.0.attn.to_out"],
        "double_stream_modulation_img.lin": ["double_stream_modulation_img.linear"],
        "single_stream_modulation.lin": ["single_stream_modulation.linear"],
        "time_in.in_layer": ["time_guidance_embed.timestep_embedder.linear_1"],
    },
    "z-image": {
        "layers.0.attention.qkv": qkv("layers.0.attention"),
        "layers.1.attention.out": ["layers.1.attention.to_out.0"],
        "noise_refiner.0.attention.qkv": qkv("noise_refiner.0.attention"),
        "x_embedder": ["all_x_embedder.2-1"],
        "final_layer.linear": ["all_final_layer.2-1.linear"],
    },
    "wan": {
        "blocks.0.self_attn.q": ["blocks.0.attn1.to_q"],
        "blocks.1.self_attn.o": ["blocks.1.attn1.to_out.0"],
        "blocks.1.cross_attn.k": ["blocks.1.attn2.to_k"],
        "blocks.0.cross_attn.v": ["blocks.0.attn2.to_v"],
        "blocks.0.ffn.0": ["blocks.0.ffn.net.0.proj"],
        "blocks.1.ffn.2": ["blocks.1.ffn.net.2"],
        "text_embedding.0": ["condition_embedder.text_embedder.linear_1"],
        "time_embedding.2": ["condition_embedder.time_embedder.linear_2"],
        "time_projection.1": ["condition_embedder.time_proj"],
        "head.head": ["proj_out"],
    },
    "wan-i2v": {
        "blocks.0.self_attn.q": ["blocks.0.attn1.to_q"],
        "blocks.1.cross_attn.k_img": ["blocks.1.attn2.add_k_proj"],
        "blocks.0.cross_attn.v_img": ["blocks.0.attn2.add_v_proj"],
        "img_emb.proj.1": ["condition_embedder.image_embedder.ff.net.0.proj"],
        "img_emb.proj.3": ["condition_embedder.image_embedder.ff.net.2"],
    },
    "hunyuan-video": {
        "double_blocks.0.img_attn_qkv": qkv("transformer_blocks.0.attn"),
        "double_blocks.1.txt_attn_qkv": added_qkv("transformer_blocks.1.attn"),
        "double_blocks.1.img_attn_proj": ["transformer_blocks.1.attn.to_out.0"],
        "double_blocks.1.txt_attn_proj": ["transformer_blocks.1.attn.to_add_out"],
        "double_blocks.0.img_mlp.fc1": ["transformer_blocks.0.ff.net.0.proj"],
        "double_blocks.0.txt_mlp.fc2": ["transformer_blocks.0.ff_context.net.2"],
        "double_blocks.0.img_mod.linear": ["transformer_blocks.0.norm1.linear"],
        "single_blocks.1.linear1": [*qkv("single_transformer_blocks.1.attn"), "single_transformer_blocks.1.proj_mlp"],
        "single_blocks.0.linear2": ["single_transformer_blocks.0.proj_out"],
        "txt_in.individual_token_refiner.blocks.0.self_attn_qkv": qkv(
            "context_embedder.token_refiner.refiner_blocks.0.attn"
        ),
    },
    "sd3": {
        "joint_blocks.0.x_block.attn.qkv": qkv("transformer_blocks.0.attn"),
        "joint_blocks.0.context_block.attn.qkv": added_qkv("transformer_blocks.0.attn"),
        "joint_blocks.0.x_block.attn2.qkv": qkv("transformer_blocks.0.attn2"),
        "joint_blocks.1.x_block.attn.proj": ["transformer_blocks.1.attn.to_out.0"],
        "joint_blocks.0.context_block.mlp.fc1": ["transformer_blocks.0.ff_context.net.0.proj"],
        "joint_blocks.1.x_block.mlp.fc2": ["transformer_blocks.1.ff.net.2"],
    },
}
XLABS: Names = {
    "double_blocks.0.processor.qkv_lora1": qkv("transformer_blocks.0.attn"),
    "double_blocks.1.processor.qkv_lora2": added_qkv("transformer_blocks.1.attn"),
    "double_blocks.0.processor.proj_lora1": ["transformer_blocks.0.attn.to_out.0"],
    "double_blocks.0.processor.proj_lora2": ["transformer_blocks.0.attn.to_add_out"],
    "single_blocks.1.processor.qkv_lora": qkv("single_transformer_blocks.1.attn"),
    "single_blocks.1.processor.proj_lora": ["single_transformer_blocks.1.proj_out"],
}


def held(module: str) -> str:
    """The name of a layer of attention in files from before PEFT, when processors held the LoRA layers."""
    return re.sub(r"\.(to_[qkv]|to_out)(\.0)?$", r".processor.\1_lora", module)


# Layout -> how a module's tensors are called: down, up and, where the layout has one, alpha.
KEYS: dict[str, Callable[[str], tuple[str, ...]]] = {
    "A": lambda m: (f"transformer.{m}.lora_A.weight", f"transformer.{m}.lora_B.weight"),
    "A, alpha": lambda m: (*KEYS["A"](m), f"transformer.{m}.alpha"),
    "A, unet": lambda m: (f"unet.{m}.lora_A.weight", f"unet.{m}.lora_B.weight"),
    "A2": lambda m: (f"transformer.{m}.lora.down.weight", f"transformer.{m}.lora.up.weight"),
    "A2, unet": lambda m: (f"unet.{m}.lora.down.weight", f"unet.{m}.lora.up.weight"),
    "processor, unet": lambda m: tuple(f"unet.{held(m)}.{side}.weight" for side in ("down", "up")),
    "A, down": lambda m: tuple(f"transformer.{key}" for key in KEYS["B"](m)),
    "B": lambda m: (f"{m}.lora_down.weight", f"{m}.lora_up.weight", f"{m}.alpha"),
    "bare": lambda m: (f"{m}.lora_A.weight", f"{m}.lora_B.weight"),
    "C": lambda m: (f"diffusion_model.{m}.lora_A.weight", f"diffusion_model.{m}.lora_B.weight"),
    "C, alpha": lambda m: tuple(f"diffusion_model.{key}" for key in KEYS["B"](m)),
    "doubled": lambda m: tuple(f"transformer.{key}" for key in KEYS["A, alpha"](m)),
    "default": lambda m: (f"{m}.lora_A.default.weight", f"{m}.lora_B.default.weight"),
    "default, C": lambda m: tuple(f"diffusion_model.{key}" for key in KEYS["default"](m)),
    "peft": lambda m: tuple(f"base_model.model.{key}" for key in KEYS["bare"](m)),
    "E": lambda m: tuple(f"lora_unet_{key}" for key in KEYS["B"](m.replace(".", "_"))),
    "lycoris": lambda m: tuple(f"lycoris_{key.removeprefix('lora_unet_')}" for key in KEYS["E"](m)),
    "F": lambda m: (f"{m}.down.weight", f"{m}.up.weight"),
}  # fmt: skip


def cases() -> Iterator[Any]:
    for family, modules in OWN.items():
        layouts = [layout for layout in KEYS if layout != "F" and not layout.endswith("unet")]
        for layout in [*layouts, "A, unet", "A2, unet"] if family == "sdxl" else layouts:
            yield pytest.param(family, layout, {module: [module] for module in modules}, id=f"{family}, {layout}")
    for family, names in ORIGINAL.items():
        for layout in ("bare", "B", "C", "C, alpha", "E", "default", "default, C"):  # D and D2 are C of these names
            yield pytest.param(family, layout, names, id=f"{family}, original, {layout}")
    yield pytest.param("flux", "F", XLABS, id="flux, F")
    attention = {module: [module] for module in OWN["sdxl"] if "attn" in module}
    yield pytest.param("sdxl", "processor, unet", attention, id="sdxl, processor")


@pytest.mark.parametrize(("family", "layout", "names"), list(cases()))
def test_each_weight_changes_by_alpha_over_rank_times_up_times_down(
    family: str, layout: str, names: Names, lora: Any
) -> None:
    network, state, expected = lora.denoiser(family), State(), State()
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    for i, (module, targets) in enumerate(names.items()):
        down, up = lora.halves(network, targets)
        keys = KEYS[layout](module)
        state |= dict(zip(keys, (down, up, torch.tensor(2.0 + i)), strict=False))
        scale = (2.0 + i) / 3 if len(keys) == 3 else 1.0
        whole = scale * torch.tensordot(up.flatten(1), down, 1)
        rows = 0
        for target in targets:
            count = network.get_submodule(target).weight.shape[0]
            expected[target] = whole[rows : rows + count]
            rows += count
        assert rows == len(whole)
    adapter = read(state, network, target="unet" if family == "sdxl" else "transformer")
    assert not adapter.unknown and not adapter.skipped
    layers = Merged(network, torch.device("cpu"))
    try:
        layers.apply([(pack(adapter, pin=False), 0.5)])
        after = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    finally:
        layers.release()
    for name, weight in before.items():
        change = expected.get(name.removesuffix(".weight"))
        if change is None:
            assert torch.equal(after[name], weight), name
        else:
            torch.testing.assert_close(after[name], weight + 0.5 * change, rtol=1e-5, atol=1e-5)
        assert torch.equal(network.get_parameter(name), weight)


def test_full_differences_of_wan_reach_norms_biases_tables_and_the_patch_embedding(lora: Any) -> None:
    network = lora.denoiser("wan-i2v")
    width = 64
    changes = {
        "blocks.0.self_attn.q.diff_b": ("blocks.0.attn1.to_q.bias", lora.noise(width)),
        "blocks.0.norm3.diff": ("blocks.0.norm2.weight", lora.noise(width)),
        "blocks.0.norm3.diff_b": ("blocks.0.norm2.bias", lora.noise(width)),
        "blocks.1.self_attn.norm_q.diff": ("blocks.1.attn1.norm_q.weight", lora.noise(width)),
        "blocks.1.cross_attn.norm_k_img.diff": ("blocks.1.attn2.norm_added_k.weight", lora.noise(width)),
        "patch_embedding.diff": ("patch_embedding.weight", lora.noise(width, 12, 1, 2, 2)),
        "patch_embedding.diff_b": ("patch_embedding.bias", lora.noise(width)),
        "head.head.diff": ("proj_out.weight", lora.noise(16, width)),
        "img_emb.proj.0.diff": ("condition_embedder.image_embedder.norm1.weight", lora.noise(32)),
        "blocks.0.diff_m": ("blocks.0.scale_shift_table", lora.noise(1, 6, width)),
        "head.diff_m": ("scale_shift_table", lora.noise(1, 2, width)),
    }
    state = {f"diffusion_model.{key}": change for key, (_, change) in changes.items()}
    down, up = lora.noise(3, width), lora.noise(width, 3)
    state |= {"diffusion_model.blocks.0.self_attn.q.lora_down.weight": down}
    state |= {"diffusion_model.blocks.0.self_attn.q.lora_up.weight": up}
    adapter = read(state, network)
    found = dict(adapter.parameters)
    for path, delta in adapter.layers.items():
        found |= {
            f"{path}.{name}": part for name, part in (("weight", delta.diff), ("bias", delta.bias)) if part is not None
        }
    assert found.keys() == {path for path, _ in changes.values()}
    for path, change in changes.values():
        assert found[path].shape == network.get_parameter(path).shape
        torch.testing.assert_close(found[path], change)
    low = lora.added(adapter.layers["blocks.0.attn1.to_q"])
    torch.testing.assert_close(low, up @ down)


def test_a_text_to_video_adapter_leaves_the_image_channels_of_image_to_video_alone(lora: Any) -> None:
    diff, down, up = lora.noise(64, 4, 1, 2, 2), lora.noise(3, 4, 1, 2, 2), lora.noise(64, 3, 1, 1, 1)
    prefix = "diffusion_model.patch_embedding"
    state = {f"{prefix}.diff": diff, f"{prefix}.lora_down.weight": down, f"{prefix}.lora_up.weight": up}
    change = lora.added(read(state, lora.denoiser("wan-i2v")).layers["patch_embedding"])
    assert change.shape == (64, 12, 1, 2, 2)
    torch.testing.assert_close(change[:, :4], diff + torch.tensordot(up.flatten(1), down, 1), rtol=1e-5, atol=1e-5)
    assert not change[:, 4:].any()


@pytest.mark.parametrize("family", ["flux", "flux2", "sd3", "hunyuan-video"])
def test_the_final_modulation_of_original_files_has_shift_before_scale(family: str, lora: Any) -> None:
    network = lora.denoiser(family)
    down, up = lora.halves(network, ["norm_out.linear"])
    prefix = "diffusion_model.final_layer.adaLN_modulation.1"
    adapter = read({f"{prefix}.lora_A.weight": down, f"{prefix}.lora_B.weight": up}, network)
    change = lora.added(adapter.layers["norm_out.linear"])
    shift, scale = (up @ down).chunk(2)
    torch.testing.assert_close(change, torch.cat([scale, shift]), rtol=1e-5, atol=1e-5)


def test_each_expert_of_wan_takes_its_own_part_of_a_file_or_the_whole_of_one_that_names_none(lora: Any) -> None:
    network = lora.denoiser("wan-a14b")
    high, low = lora.halves(network, ["blocks.0.attn1.to_q"]), lora.halves(network, ["blocks.0.attn1.to_q"])

    def named(expert: str, halves: tuple[torch.Tensor, torch.Tensor]) -> State:
        return dict(zip((f"{expert}.blocks.0.attn1.to_q.lora_{side}.weight" for side in "AB"), halves, strict=True))

    both = named("transformer", high) | named("transformer_2", low)
    for target, (down, up) in (("transformer", high), ("transformer_2", low)):
        adapter = read(both, network, target=target)
        change = lora.added(adapter.layers["blocks.0.attn1.to_q"])
        assert len(adapter.skipped) == 2
        torch.testing.assert_close(change, up @ down)
    assert not read(named("transformer", low), network, target="transformer_2").skipped


def test_the_encoders_of_sdxl_take_their_part_of_a_kohya_file(lora: Any) -> None:
    from engine.models.tiny import stock
    from engine.models.tiny.parts import Seeds

    pipeline = stock.sdxl(Seeds(0))
    name = "text_model_encoder_layers_1_self_attn_q_proj"
    state = State()
    for prefix in ("lora_te1", "lora_te2"):
        state |= {f"{prefix}_{name}.lora_down.weight": lora.noise(3, 32), f"{prefix}_{name}.alpha": torch.tensor(3.0)}
        state |= {f"{prefix}_{name}.lora_up.weight": lora.noise(32, 3)}
    for target, prefix in (("text_encoder", "lora_te1"), ("text_encoder_2", "lora_te2")):
        adapter = read(state, getattr(pipeline, target), target=target)
        ((path, delta),) = adapter.layers.items()
        change = lora.added(delta)
        assert path.endswith("encoder.layers.1.self_attn.q_proj")
        assert len(adapter.skipped) == 3
        up, down = state[f"{prefix}_{name}.lora_up.weight"], state[f"{prefix}_{name}.lora_down.weight"]
        torch.testing.assert_close(change, up @ down)
