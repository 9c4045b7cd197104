"""What files call the modules of a denoiser: its own names, and those of the repository that it comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

STREAMS = """
double_blocks.{n}.img_mod.lin: transformer_blocks.{n}.norm1.linear
double_blocks.{n}.txt_mod.lin: transformer_blocks.{n}.norm1_context.linear
double_blocks.{n}.img_mlp.0: transformer_blocks.{n}.ff.net.0.proj
double_blocks.{n}.img_mlp.2: transformer_blocks.{n}.ff.net.2
double_blocks.{n}.txt_mlp.0: transformer_blocks.{n}.ff_context.net.0.proj
double_blocks.{n}.txt_mlp.2: transformer_blocks.{n}.ff_context.net.2
single_blocks.{n}.modulation.lin: single_transformer_blocks.{n}.norm.linear
single_blocks.{n}.linear1:
    single_transformer_blocks.{n}.attn.to_q single_transformer_blocks.{n}.attn.to_k
    single_transformer_blocks.{n}.attn.to_v single_transformer_blocks.{n}.proj_mlp
single_blocks.{n}.linear2: single_transformer_blocks.{n}.proj_out
single_blocks.{n}.processor.qkv_lora:
    single_transformer_blocks.{n}.attn.to_q single_transformer_blocks.{n}.attn.to_k
    single_transformer_blocks.{n}.attn.to_v
single_blocks.{n}.processor.proj_lora: single_transformer_blocks.{n}.proj_out
vector_in.in_layer: time_text_embed.text_embedder.linear_1
vector_in.out_layer: time_text_embed.text_embedder.linear_2
time_in.in_layer: time_text_embed.timestep_embedder.linear_1
time_in.out_layer: time_text_embed.timestep_embedder.linear_2
guidance_in.in_layer: time_text_embed.guidance_embedder.linear_1
guidance_in.out_layer: time_text_embed.guidance_embedder.linear_2
"""
JOINT_ATTENTION = """
double_blocks.{n}.img_attn.qkv:
    transformer_blocks.{n}.attn.to_q transformer_blocks.{n}.attn.to_k transformer_blocks.{n}.attn.to_v
double_blocks.{n}.txt_attn.qkv:
    transformer_blocks.{n}.attn.add_q_proj transformer_blocks.{n}.attn.add_k_proj
    transformer_blocks.{n}.attn.add_v_proj
double_blocks.{n}.img_attn.proj: transformer_blocks.{n}.attn.to_out.0
double_blocks.{n}.txt_attn.proj: transformer_blocks.{n}.attn.to_add_out
double_blocks.{n}.processor.qkv_lora1:
    transformer_blocks.{n}.attn.to_q transformer_blocks.{n}.attn.to_k transformer_blocks.{n}.attn.to_v
double_blocks.{n}.processor.qkv_lora2:
    transformer_blocks.{n}.attn.add_q_proj transformer_blocks.{n}.attn.add_k_proj
    transformer_blocks.{n}.attn.add_v_proj
double_blocks.{n}.processor.proj_lora1: transformer_blocks.{n}.attn.to_out.0
double_blocks.{n}.processor.proj_lora2: transformer_blocks.{n}.attn.to_add_out
double_blocks.{n}.img_attn.norm.query_norm: transformer_blocks.{n}.attn.norm_q
double_blocks.{n}.img_attn.norm.key_norm: transformer_blocks.{n}.attn.norm_k
double_blocks.{n}.txt_attn.norm.query_norm: transformer_blocks.{n}.attn.norm_added_q
double_blocks.{n}.txt_attn.norm.key_norm: transformer_blocks.{n}.attn.norm_added_k
single_blocks.{n}.norm.query_norm: single_transformer_blocks.{n}.attn.norm_q
single_blocks.{n}.norm.key_norm: single_transformer_blocks.{n}.attn.norm_k
img_in: x_embedder
txt_in: context_embedder
final_layer.linear: proj_out
final_layer.adaLN_modulation.1: norm_out.linear
"""
FLUX_2 = """
double_blocks.{n}.img_mlp.0: transformer_blocks.{n}.ff.linear_in
double_blocks.{n}.img_mlp.2: transformer_blocks.{n}.ff.linear_out
double_blocks.{n}.txt_mlp.0: transformer_blocks.{n}.ff_context.linear_in
double_blocks.{n}.txt_mlp.2: transformer_blocks.{n}.ff_context.linear_out
single_blocks.{n}.linear1: single_transformer_blocks.{n}.attn.to_qkv_mlp_proj
single_blocks.{n}.linear2: single_transformer_blocks.{n}.attn.to_out
double_stream_modulation_img.lin: double_stream_modulation_img.linear
double_stream_modulation_txt.lin: double_stream_modulation_txt.linear
single_stream_modulation.lin: single_stream_modulation.linear
time_in.in_layer: time_guidance_embed.timestep_embedder.linear_1
time_in.out_layer: time_guidance_embed.timestep_embedder.linear_2
guidance_in.in_layer: time_guidance_embed.guidance_embedder.linear_1
guidance_in.out_layer: time_guidance_embed.guidance_embedder.linear_2
"""
HUNYUAN_VIDEO = """
double_blocks.{n}.img_attn_qkv:
    transformer_blocks.{n}.attn.to_q transformer_blocks.{n}.attn.to_k transformer_blocks.{n}.attn.to_v
double_blocks.{n}.txt_attn_qkv:
    transformer_blocks.{n}.attn.add_q_proj transformer_blocks.{n}.attn.add_k_proj
    transformer_blocks.{n}.attn.add_v_proj
double_blocks.{n}.img_attn_proj: transformer_blocks.{n}.attn.to_out.0
double_blocks.{n}.txt_attn_proj: transformer_blocks.{n}.attn.to_add_out
double_blocks.{n}.img_attn_q_norm: transformer_blocks.{n}.attn.norm_q
double_blocks.{n}.img_attn_k_norm: transformer_blocks.{n}.attn.norm_k
double_blocks.{n}.txt_attn_q_norm: transformer_blocks.{n}.attn.norm_added_q
double_blocks.{n}.txt_attn_k_norm: transformer_blocks.{n}.attn.norm_added_k
double_blocks.{n}.img_mod.linear: transformer_blocks.{n}.norm1.linear
double_blocks.{n}.txt_mod.linear: transformer_blocks.{n}.norm1_context.linear
double_blocks.{n}.img_mlp.fc1: transformer_blocks.{n}.ff.net.0.proj
double_blocks.{n}.img_mlp.fc2: transformer_blocks.{n}.ff.net.2
double_blocks.{n}.txt_mlp.fc1: transformer_blocks.{n}.ff_context.net.0.proj
double_blocks.{n}.txt_mlp.fc2: transformer_blocks.{n}.ff_context.net.2
single_blocks.{n}.modulation.linear: single_transformer_blocks.{n}.norm.linear
single_blocks.{n}.q_norm: single_transformer_blocks.{n}.attn.norm_q
single_blocks.{n}.k_norm: single_transformer_blocks.{n}.attn.norm_k
time_in.mlp.0: time_text_embed.timestep_embedder.linear_1
time_in.mlp.2: time_text_embed.timestep_embedder.linear_2
guidance_in.mlp.0: time_text_embed.guidance_embedder.linear_1
guidance_in.mlp.2: time_text_embed.guidance_embedder.linear_2
img_in.proj: x_embedder.proj
txt_in.input_embedder: context_embedder.proj_in
txt_in.t_embedder.mlp.0: context_embedder.time_text_embed.timestep_embedder.linear_1
txt_in.t_embedder.mlp.2: context_embedder.time_text_embed.timestep_embedder.linear_2
txt_in.c_embedder.linear_1: context_embedder.time_text_embed.text_embedder.linear_1
txt_in.c_embedder.linear_2: context_embedder.time_text_embed.text_embedder.linear_2
txt_in.individual_token_refiner.blocks.{n}.self_attn_qkv:
    context_embedder.token_refiner.refiner_blocks.{n}.attn.to_q
    context_embedder.token_refiner.refiner_blocks.{n}.attn.to_k
    context_embedder.token_refiner.refiner_blocks.{n}.attn.to_v
txt_in.individual_token_refiner.blocks.{n}.self_attn_proj:
    context_embedder.token_refiner.refiner_blocks.{n}.attn.to_out.0
txt_in.individual_token_refiner.blocks.{n}.mlp.fc1: context_embedder.token_refiner.refiner_blocks.{n}.ff.net.0.proj
txt_in.individual_token_refiner.blocks.{n}.mlp.fc2: context_embedder.token_refiner.refiner_blocks.{n}.ff.net.2
txt_in.individual_token_refiner.blocks.{n}.norm1: context_embedder.token_refiner.refiner_blocks.{n}.norm1
txt_in.individual_token_refiner.blocks.{n}.norm2: context_embedder.token_refiner.refiner_blocks.{n}.norm2
txt_in.individual_token_refiner.blocks.{n}.adaLN_modulation.1:
    context_embedder.token_refiner.refiner_blocks.{n}.norm_out.linear
final_layer.linear: proj_out
final_layer.adaLN_modulation.1: norm_out.linear
"""
SD3 = """
joint_blocks.{n}.x_block.attn.qkv:
    transformer_blocks.{n}.attn.to_q transformer_blocks.{n}.attn.to_k transformer_blocks.{n}.attn.to_v
joint_blocks.{n}.context_block.attn.qkv:
    transformer_blocks.{n}.attn.add_q_proj transformer_blocks.{n}.attn.add_k_proj
    transformer_blocks.{n}.attn.add_v_proj
joint_blocks.{n}.x_block.attn2.qkv:
    transformer_blocks.{n}.attn2.to_q transformer_blocks.{n}.attn2.to_k transformer_blocks.{n}.attn2.to_v
joint_blocks.{n}.x_block.attn.proj: transformer_blocks.{n}.attn.to_out.0
joint_blocks.{n}.x_block.attn2.proj: transformer_blocks.{n}.attn2.to_out.0
joint_blocks.{n}.context_block.attn.proj: transformer_blocks.{n}.attn.to_add_out
joint_blocks.{n}.x_block.mlp.fc1: transformer_blocks.{n}.ff.net.0.proj
joint_blocks.{n}.x_block.mlp.fc2: transformer_blocks.{n}.ff.net.2
joint_blocks.{n}.context_block.mlp.fc1: transformer_blocks.{n}.ff_context.net.0.proj
joint_blocks.{n}.context_block.mlp.fc2: transformer_blocks.{n}.ff_context.net.2
joint_blocks.{n}.x_block.adaLN_modulation.1: transformer_blocks.{n}.norm1.linear
joint_blocks.{n}.context_block.adaLN_modulation.1: transformer_blocks.{n}.norm1_context.linear
x_embedder.proj: pos_embed.proj
t_embedder.mlp.0: time_text_embed.timestep_embedder.linear_1
t_embedder.mlp.2: time_text_embed.timestep_embedder.linear_2
y_embedder.mlp.0: time_text_embed.text_embedder.linear_1
y_embedder.mlp.2: time_text_embed.text_embedder.linear_2
final_layer.linear: proj_out
final_layer.adaLN_modulation.1: norm_out.linear
"""
WAN = """
blocks.{n}.self_attn.q: blocks.{n}.attn1.to_q
blocks.{n}.self_attn.k: blocks.{n}.attn1.to_k
blocks.{n}.self_attn.v: blocks.{n}.attn1.to_v
blocks.{n}.self_attn.o: blocks.{n}.attn1.to_out.0
blocks.{n}.self_attn.norm_q: blocks.{n}.attn1.norm_q
blocks.{n}.self_attn.norm_k: blocks.{n}.attn1.norm_k
blocks.{n}.cross_attn.q: blocks.{n}.attn2.to_q
blocks.{n}.cross_attn.k: blocks.{n}.attn2.to_k
blocks.{n}.cross_attn.v: blocks.{n}.attn2.to_v
blocks.{n}.cross_attn.o: blocks.{n}.attn2.to_out.0
blocks.{n}.cross_attn.norm_q: blocks.{n}.attn2.norm_q
blocks.{n}.cross_attn.norm_k: blocks.{n}.attn2.norm_k
blocks.{n}.cross_attn.k_img: blocks.{n}.attn2.add_k_proj
blocks.{n}.cross_attn.v_img: blocks.{n}.attn2.add_v_proj
blocks.{n}.cross_attn.norm_k_img: blocks.{n}.attn2.norm_added_k
blocks.{n}.norm3: blocks.{n}.norm2
blocks.{n}.ffn.0: blocks.{n}.ffn.net.0.proj
blocks.{n}.ffn.2: blocks.{n}.ffn.net.2
blocks.{n}.modulation: blocks.{n}.scale_shift_table
text_embedding.0: condition_embedder.text_embedder.linear_1
text_embedding.2: condition_embedder.text_embedder.linear_2
time_embedding.0: condition_embedder.time_embedder.linear_1
time_embedding.2: condition_embedder.time_embedder.linear_2
time_projection.1: condition_embedder.time_proj
img_emb.proj.0: condition_embedder.image_embedder.norm1
img_emb.proj.1: condition_embedder.image_embedder.ff.net.0.proj
img_emb.proj.3: condition_embedder.image_embedder.ff.net.2
img_emb.proj.4: condition_embedder.image_embedder.norm2
head.head: proj_out
head.modulation: scale_shift_table
"""
Z_IMAGE = """
{s}.{n}.attention.qkv: {s}.{n}.attention.to_q {s}.{n}.attention.to_k {s}.{n}.attention.to_v
{s}.{n}.attention.out: {s}.{n}.attention.to_out.0
{s}.{n}.attention.q_norm: {s}.{n}.attention.norm_q
{s}.{n}.attention.k_norm: {s}.{n}.attention.norm_k
x_embedder: all_x_embedder.2-1
final_layer.linear: all_final_layer.2-1.linear
final_layer.adaLN_modulation.1: all_final_layer.2-1.adaLN_modulation.1
"""
# Class of a denoiser -> the names of the repository that it comes from, each with ours; several are one cut into rows.
ORIGINAL = {
    "FluxTransformer2DModel": STREAMS + JOINT_ATTENTION,
    "Flux2Transformer2DModel": JOINT_ATTENTION + FLUX_2,
    "HunyuanVideoTransformer3DModel": STREAMS + HUNYUAN_VIDEO,
    "SD3Transformer2DModel": SD3,
    "WanTransformer3DModel": WAN,
    "ZImageTransformer2DModel": Z_IMAGE,
}
# Class of a denoiser -> the class of diffusers that knows further layouts, for what no name above fits.
CONVERTERS = {
    "CogView4Transformer2DModel": "CogView4LoraLoaderMixin",
    "FluxTransformer2DModel": "FluxLoraLoaderMixin",
    "Flux2Transformer2DModel": "Flux2LoraLoaderMixin",
    "HiDreamImageTransformer2DModel": "HiDreamImageLoraLoaderMixin",
    "HunyuanVideoTransformer3DModel": "HunyuanVideoLoraLoaderMixin",
    "LTXVideoTransformer3DModel": "LTXVideoLoraLoaderMixin",
    "Lumina2Transformer2DModel": "Lumina2LoraLoaderMixin",
    "QwenImageTransformer2DModel": "QwenImageLoraLoaderMixin",
    "SD3Transformer2DModel": "SD3LoraLoaderMixin",
    "UNet2DConditionModel": "StableDiffusionXLLoraLoaderMixin",
    "WanTransformer3DModel": "WanLoraLoaderMixin",
    "ZImageTransformer2DModel": "ZImageLoraLoaderMixin",
}
# Layers that read the latents: a variant of a model with more channels has those of the base model first.
INPUTS = re.compile(r"(all_)?x_embedder(\.proj|\.[\d-]+)?|img_in|patch_embedding|pos_embed\.proj|conv_in")
# Its linear gives scale and shift, in the original repositories shift and scale.
CONTINUOUS = "AdaLayerNormContinuous"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a name in a file leads: to modules that share its rows in this order, or to one bare parameter."""

    modules: tuple[str, ...]
    is_parameter: bool = False
    swapped: bool = False  # the halves of its rows are the other way round in the file


def flat(name: str) -> str:
    """Return a name as kohya's trainers write it."""
    return name.replace(".", "_")


def places(network: nn.Module) -> dict[str, Place]:
    """Return where each known name leads in a live network; the names are flat."""
    found = {name: Place((name,), is_parameter) for name, is_parameter in _own(network)}
    modules = dict(network.named_modules())
    known = {flat(name): place for name, place in found.items()}
    for original, targets in _rules(ORIGINAL.get(type(network).__name__, "")):
        pattern = re.compile(re.escape(targets[0]).replace(r"\{n\}", r"(?P<n>\d+)").replace(r"\{s\}", r"(?P<s>\w+)"))
        for name, place in found.items():
            match = pattern.fullmatch(name)
            if match is None:
                continue
            group = tuple(target.format(**match.groupdict()) for target in targets)
            if all(target in found for target in group):
                parent = type(modules.get(group[0].rpartition(".")[0])).__name__
                known[flat(original.format(**match.groupdict()))] = Place(
                    group, place.is_parameter, swapped=parent == CONTINUOUS
                )
    return known


def _own(network: nn.Module) -> Iterator[tuple[str, bool]]:
    """Yield each module that has a weight or a bias of its own, and each other parameter."""
    for path, module in network.named_modules():
        own = [name for name, parameter in module._parameters.items() if parameter is not None]
        if {"weight", "bias"} & set(own):
            yield path, False
        yield from ((f"{path}.{name}" if path else name, True) for name in own if name not in ("weight", "bias"))


def _rules(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for line in re.sub(r"\n +", " ", text).splitlines():
        original, _, targets = line.partition(":")
        if targets:
            yield original, tuple(targets.split())
