"""Keys of LoRA files: the module, the part, the component and the layout that they tell."""

from __future__ import annotations

import pytest

from engine.lora import keys
from engine.lora.keys import Key


@pytest.mark.parametrize(
    ("key", "parsed"),
    [
        ("a.to_q.lora_A.weight", Key("a.to_q", "down")),
        ("a.to_q.lora_B.style.weight", Key("a.to_q", "up")),
        ("a.to_q.lora_B.my-style-2.weight", Key("a.to_q", "up")),
        ("a.to_q.lora_B.bias", Key("a.to_q", "up_bias")),
        ("a.to_q.lora_A.bias", None),
        ("a.to_q.lora.up.weight", Key("a.to_q", "up")),
        ("a.fc1.lora_linear_layer.down.weight", Key("a.fc1", "down")),
        ("a.processor.to_out_lora.down.weight", Key("a.processor.to_out_lora", "down")),
        ("d.0.processor.qkv_lora2.up.weight", Key("d.0.processor.qkv_lora2", "up")),
        ("lora_unet_a_to_q.alpha", Key("lora_unet_a_to_q", "alpha")),
        ("unet.a.to_q_lora.down.weight.alpha", Key("unet.a.to_q_lora", "alpha")),
        ("a.norm.diff", Key("a.norm", "diff")),
        ("a.norm.b_norm", Key("a.norm", "diff_b")),
        ("blocks.0.diff_m", Key("blocks.0.modulation", "diff")),
        ("a.to_q.weight", None),
        ("down.weight", None),
    ],
)
def test_a_key_tells_its_module_and_part(key: str, parsed: Key | None) -> None:
    assert keys.parse(key) == parsed


def test_a_module_of_one_family_is_not_cut_to_that_of_another() -> None:
    assert list(keys.candidates("transformer_blocks.0.attn1.to_q", "transformer")) == [
        "transformer_blocks.0.attn1.to_q"
    ]


@pytest.mark.parametrize(
    ("module", "last"),
    [
        ("lora_unet_a_to_q", "a_to_q"), ("lora_transformer_a_to_q", "a_to_q"), ("lycoris_a_to_q", "a_to_q"),
        ("base_model.model.transformer.a.to_q", "a.to_q"), ("model.diffusion_model.a.to_q", "a.to_q"),
        ("pipe.dit.a.to_q", "a.to_q"), ("critic.a.to_q", "a.to_q"), ("unet.a.processor.to_q_lora", "a.to_q"),
        ("unet.a.processor.to_out_lora", "a.to_out.0"),
    ],
)  # fmt: skip
def test_prefixes_of_every_trainer_come_off(module: str, last: str) -> None:
    assert list(keys.candidates(module, "transformer"))[-1] == last


@pytest.mark.parametrize(
    ("key", "component"),
    [
        ("transformer.a", "transformer"), ("transformer_2.a", "transformer_2"), ("transformer_blocks.0.a", None),
        ("lora_te_a", "text_encoder"), ("lora_te2_a", "text_encoder_2"), ("text_encoder_2.a", "text_encoder_2"),
        ("base_model.model.text_encoder.a", "text_encoder"), ("lora_unet_a", None), ("te1.a", "text_encoder"),
        ("text_embedding.0", None), ("text_encoders.t5xxl.a", "text_encoder_3"),
    ],
)  # fmt: skip
def test_a_prefix_tells_the_component(key: str, component: str | None) -> None:
    assert keys.owner(key) == component


@pytest.mark.parametrize(
    ("key", "layout"),
    [
        ("transformer.a.lora_A.weight", "diffusers"), ("a.lora_down.weight", "bare"),
        ("diffusion_model.a.lora_A.weight", "comfyui"), ("lora_unet_a.lora_down.weight", "kohya"),
        ("double_blocks.0.processor.qkv_lora1.down.weight", "xlabs"), ("base_model.model.a.lora_A.weight", "peft"),
    ],
)  # fmt: skip
def test_the_layout_is_named_after_who_writes_it(key: str, layout: str) -> None:
    assert keys.layout([key]) == layout
