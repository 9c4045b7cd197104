"""LoRA files: alpha and rank, layers chosen by name, and what is refused, in words that help."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import ModelError, UsageError
from engine.lora.formats import read

Q, K = "transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k"
State = dict[str, torch.Tensor]


@pytest.fixture
def network(lora: Any) -> Any:
    return lora.denoiser("qwen-image")


@pytest.fixture
def state(lora: Any, network: Any) -> State:
    """An adapter of rank 3 on two layers, without alpha."""
    tensors = State()
    for path in (Q, K):
        down, up = lora.halves(network, [path])
        tensors |= {f"transformer.{path}.lora_A.weight": down, f"transformer.{path}.lora_B.weight": up}
    return tensors


def scales(adapter: Any) -> dict[str, float]:
    return {path: delta.scale for path, delta in adapter.layers.items()}


def settings(**values: Any) -> dict[str, str]:
    return {"lora_adapter_metadata": json.dumps({f"transformer.{key}": value for key, value in values.items()})}


def refused(state: State, network: Any, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        read(state, network, **options)
    assert caught.value.code == "lora_incompatible"
    return caught.value.message


def test_alpha_of_the_layer_outranks_that_of_the_adapter_and_that_the_one_asked_for(state: State, network: Any) -> None:
    state[f"transformer.{Q}.alpha"] = torch.tensor(6.0)
    assert scales(read(state, network)) == {Q: 2.0, K: 1.0}
    assert scales(read(state, network, alpha=1.5)) == {Q: 2.0, K: 0.5}
    assert scales(read(state, network, alpha=1.5, metadata=settings(r=3, lora_alpha=12))) == {Q: 2.0, K: 4.0}
    found = read(state, network, metadata=settings(r=3, lora_alpha=12, alpha_pattern={"attn.to_k": 9}))
    assert scales(found) == {Q: 2.0, K: 3.0}


def test_a_rank_stabilized_adapter_is_divided_by_the_root_of_its_rank(state: State, network: Any) -> None:
    found = scales(read(state, network, metadata=settings(r=3, lora_alpha=6, use_rslora=True)))
    assert found[Q] == pytest.approx(6 / 3**0.5)


def test_settings_of_a_text_encoder_do_not_count(state: State, network: Any) -> None:
    metadata = {"lora_adapter_metadata": json.dumps({"text_encoder.lora_alpha": 12})}
    assert scales(read(state, network, metadata=metadata))[Q] == 1.0


def test_settings_beside_a_file_of_peft_are_read(state: State, network: Any, tmp_path: Path) -> None:
    names = {key: f"base_model.model.{key.removeprefix('transformer.')}" for key in state}
    save_file({names[key]: value for key, value in state.items()}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": 6}))
    adapter = read(tmp_path / "adapter_model.safetensors", network)
    assert scales(adapter) == {Q: 2.0, K: 2.0} and adapter.layout == "peft"
    peft = tmp_path / "adapter_model.safetensors"
    save_file(state, peft, metadata=settings(r=3, lora_alpha=9))
    assert scales(read(peft, network)) == {Q: 3.0, K: 3.0}, "a file's own settings come first"
    save_file(state, tmp_path / "other.safetensors")
    assert scales(read(tmp_path / "other.safetensors", network)) == {Q: 1.0, K: 1.0}, (
        "they are those of PEFT's own file"
    )


def test_the_bias_of_the_upper_half_is_scaled_and_a_difference_is_not(state: State, network: Any, lora: Any) -> None:
    scaled, plain = lora.noise(64), lora.noise(64)
    state |= {f"transformer.{Q}.lora_B.bias": scaled, f"transformer.{Q}.diff_b": plain}
    state[f"transformer.{Q}.alpha"] = torch.tensor(6.0)
    bias = read(state, network).layers[Q].bias
    assert bias is not None
    torch.testing.assert_close(bias, 2 * scaled + plain)


def test_target_modules_choose_layers_by_the_ends_of_their_names(state: State, network: Any) -> None:
    assert set(read(state, network, modules=["to_q"]).layers) == {Q}
    assert set(read(state, network, modules=["attn.to_k", "to_v"]).layers) == {K}
    message = refused(state, network, modules=["q"])
    assert message == "lora_target_modules: no layer of LoRA ends with q; it has to_k, to_q"


def test_text_encoder_keys_are_skipped_with_a_warning(
    state: State, network: Any, lora: Any, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = [
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        "text_encoders.qwen.layers.0.lora_A.weight",
        "te2.layers.0.lora_down.weight",
    ]
    with caplog.at_level(logging.WARNING):
        adapter = read(state | {key: lora.noise(3, 3) for key in foreign}, network)
    assert adapter.skipped == tuple(foreign) and set(adapter.layers) == {Q, K}
    assert "4 tensors are for other parts and are skipped: text_encoder.text_model" in caplog.text


def test_few_unknown_keys_are_skipped_and_many_refused(state: State, network: Any, lora: Any) -> None:
    few = {f"transformer.transformer_blocks.{i}.attn.to_v.diff_b": lora.noise(64) for i in range(2)}
    whole = state | few
    for i in range(2):
        for name in ("img_mlp.net.2", "txt_mlp.net.2"):
            down, up = lora.halves(network, [f"transformer_blocks.{i}.{name}"])
            base = f"transformer.transformer_blocks.{i}.{name}"
            whole |= {f"{base}.lora_A.weight": down, f"{base}.lora_B.weight": up}
    adapter = read(whole | {"transformer.extra.lora_A.weight": lora.noise(3, 3)}, network)
    assert adapter.unknown == ("transformer.extra.lora_A.weight",) and len(adapter.layers) == 8
    message = refused(state | {"transformer.extra.lora_A.weight": lora.noise(3, 3)}, network)
    assert "1 of its 5 tensors fit no layer: transformer.extra.lora_A.weight" in message


def test_an_adapter_of_another_family_is_refused_with_names_of_both(network: Any, lora: Any) -> None:
    base = "diffusion_model.blocks.{}.self_attn.q.lora_{}.weight"
    state = {base.format(i, side): lora.noise(3, 3) for i in range(2) for side in "AB"}
    message = refused(state, network)
    assert message.startswith(
        "LoRA: does not fit QwenImageTransformer2DModel: 4 of its 4 tensors fit no layer: "
        "diffusion_model.blocks.0.self_attn.q.lora_A.weight, diffusion_model.blocks.0.self_attn.q.lora_B.weight, ...; "
        "its layers are named transformer_blocks.0."
    )


def test_an_adapter_for_text_encoders_alone_is_refused(network: Any, lora: Any) -> None:
    state = {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": lora.noise(3, 3)}
    assert "holds nothing for it, only other parts: lora_te_text_model" in refused(state, network)


def test_an_adapter_for_a_wider_model_is_refused_with_both_shapes(network: Any, lora: Any) -> None:
    state = {f"{Q}.lora_A.weight": lora.noise(3, 96), f"{Q}.lora_B.weight": lora.noise(96, 3)}
    message = refused(state, network)
    assert message == f"LoRA: does not fit this model: {Q}: changes a weight of 96 x 96, which in the model has 64 x 64"


def test_fused_rows_that_are_too_many_are_refused(lora: Any) -> None:
    base = "diffusion_model.layers.0.attention.qkv"
    state = {f"{base}.lora_A.weight": lora.noise(3, 64), f"{base}.lora_B.weight": lora.noise(200, 3)}
    message = refused(state, lora.denoiser("z-image"))
    assert "layers.0.attention.qkv: has 200 rows, for layers of 64 + 64 + 64 in the model" in message


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (f"transformer.{Q}.lora_magnitude_vector.weight", "DoRA"),
        (f"transformer.{Q}.lora_magnitude_vector", "DoRA"),
        (f"lora_unet_{Q.replace('.', '_')}.dora_scale", "DoRA"),
        (f"lora_unet_{Q.replace('.', '_')}.a1.weight", "GLoRA"),
        (f"lycoris_{Q.replace('.', '_')}.hada_w1_a", "LoHa"),
        (f"lycoris_{Q.replace('.', '_')}.lokr_w1", "LoKr"),
        (f"{Q}.oft_diag", "OFT"),
        (f"{Q}.lora_mid.weight", "Tucker"),
    ],
)
def test_other_kinds_of_adapters_are_refused_by_name(
    key: str, kind: str, state: State, network: Any, lora: Any
) -> None:
    message = refused(state | {key: lora.noise(64)}, network)
    assert message.startswith(f"LoRA: is a {kind}") and "not supported" in message


def test_dora_that_only_the_settings_tell_is_refused(state: State, network: Any) -> None:
    assert "is a DoRA adapter" in refused(state, network, metadata=settings(use_dora=True))


def test_a_half_without_its_partner_is_refused(state: State, network: Any) -> None:
    del state[f"transformer.{Q}.lora_B.weight"]
    assert refused(state, network) == f"LoRA: is incomplete: transformer.{Q}.lora_A.weight has no partner"


def test_the_bias_of_a_half_that_is_not_there_is_refused(state: State, network: Any, lora: Any) -> None:
    base = "transformer.transformer_blocks.1.attn.to_q"
    message = refused(state | {f"{base}.lora_B.bias": lora.noise(64)}, network)
    assert message.startswith(f"LoRA: is incomplete: {base}") and message.endswith("has no partner")


def test_a_layer_that_is_named_twice_is_refused(state: State, network: Any) -> None:
    state |= {key.removeprefix("transformer."): value for key, value in state.items()}
    assert f"changes {Q} twice" in refused(state, network)


def test_half_precision_files_keep_their_precision(state: State, network: Any, tmp_path: Path) -> None:
    save_file({key: value.bfloat16() for key, value in state.items()}, tmp_path / "a.safetensors")
    delta = read(tmp_path / "a.safetensors", network).layers[Q]
    assert delta.down is not None and delta.down.dtype == torch.bfloat16


def test_what_is_no_safetensors_file_is_refused_before_it_is_opened_by_anything_else(
    network: Any, tmp_path: Path
) -> None:
    for name, content in (("a.safetensors", b"\x80\x02junk, long enough"), ("b.safetensors", b""), ("c.bin", b"PK")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=r"no safetensors|is pickled") as caught:
            read(tmp_path / name, network)
        assert caught.value.code == "lora_incompatible"
    with pytest.raises(ModelError, match="No such file") as missing:
        read(tmp_path / "d.safetensors", network)
    assert missing.value.code == "lora_file_not_found"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({f"transformer.{Q}.alpha": torch.tensor(float("nan"))}, f"transformer.{Q}.alpha is no finite number"),
        ({f"transformer.{Q}.alpha": torch.ones(3)}, f"transformer.{Q}.alpha is no finite number"),
        ({f"transformer.{Q}.alpha": torch.tensor(1e30)}, f"alpha of transformer.{Q} is 1e+30"),
        ({f"transformer.{Q}.lora_A.weight": torch.full((3, 64), float("inf"))}, "holds values that are not finite"),
        ({f"transformer.{Q}.lora_B.weight": torch.full((64, 3), float("nan"))}, "holds values that are not finite"),
        ({f"transformer.{Q}.lora_A.weight": torch.ones(3, 64, dtype=torch.int8)}, "is of type int8, of which no LoRA"),
        ({f"transformer.{Q}.lora_A.weight": torch.ones(3, 64, dtype=torch.complex64)}, "is of type complex64"),
        ({f"transformer.{Q}.lora_A.weight": torch.ones(0, 64)}, "holds nothing to add, its shape is [0, 64]"),
        ({f"transformer.{Q}.lora_A.weight": torch.tensor(1.0)}, "holds nothing to add, its shape is []"),
        ({f"transformer.{Q}.lora_A.weight": torch.ones(64)}, "its halves have 64 and 64 x 3"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_meant_are_refused(changed: State, words: str, state: State, network: Any) -> None:
    assert words in refused(state | changed, network)


def test_alphas_alone_are_no_adapter(state: State, network: Any) -> None:
    assert refused({f"{Q}.alpha": torch.tensor(1.0)}, network) == f"LoRA: holds nothing but alphas: {Q}"
    assert set(read(state | {"transformer.proj_out.alpha": torch.tensor(1.0)}, network).layers) == {Q, K}


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"lora_alpha": float("nan")}, "lora_alpha is nan, which is no finite number"),
        ({"lora_alpha": "8"}, "lora_alpha is 8, which is no finite number"),
        ({"alpha_pattern": {"attn.to_q": [1]}}, "alpha_pattern of attn.to_q is [1], which is no finite number"),
        (
            {"alpha_pattern": {".*to_q": 1}},
            "its alpha_pattern '.*to_q' is a regular expression; names of modules are read",
        ),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(told: Any, words: str, state: State, network: Any) -> None:
    assert words in refused(state, network, metadata=settings(**told))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.float64])
def test_every_precision_is_computed_with(dtype: torch.dtype, network: Any, lora: Any, tmp_path: Path) -> None:
    base, parts = f"transformer.{Q}", (lora.noise(3, 64), lora.noise(64, 3), lora.noise(64), lora.noise(64))
    names = ("lora_A.weight", "lora_B.weight", "lora_B.bias", "diff_b", "alpha")
    stored = {f"{base}.{name}": value.to(dtype) for name, value in zip(names, (*parts, torch.tensor(6.0)), strict=True)}
    save_file(stored, tmp_path / "a.safetensors")
    delta = read(tmp_path / "a.safetensors", network).layers[Q]
    down, up, scaled, plain = (stored[f"{base}.{name}"].float() for name in names[:4])
    change = lora.added(delta)
    assert delta.bias is not None
    torch.testing.assert_close(change, 2 * up @ down, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(delta.bias.float(), 2 * scaled + plain, rtol=1e-2, atol=1e-2)


def test_what_safetensors_itself_refuses_is_told_so(network: Any, tmp_path: Path) -> None:
    entry = {"dtype": "Q\n8", "shape": [64], "data_offsets": [0, 8]}
    text = json.dumps({f"{Q}.diff_b": entry}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(UsageError, match=r"a\.safetensors: cannot be read as safetensors: [^\n]*Q") as caught:
        read(tmp_path / "a.safetensors", network)
    assert caught.value.code == "lora_incompatible"


def test_names_of_a_file_are_shown_short_and_harmless(state: State, network: Any, lora: Any) -> None:
    names = {"\x1b[31mred.lora_A.weight": lora.noise(3, 3), "x" * 9000 + ".lora_A.weight": lora.noise(3, 3)}
    message = refused(state | names, network)
    assert "?[31mred.lora_A.weight, xxx" in message and len(message) < 500


def test_the_text_encoder_has_an_alpha_of_its_own(lora: Any) -> None:
    encoder = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(4, 4)})
    state = {
        "text_encoder.q_proj.lora_A.weight": lora.noise(2, 4),
        "text_encoder.q_proj.lora_B.weight": lora.noise(4, 2),
    }
    told = {"unet.lora_alpha": 16, "text_encoder.lora_alpha": 6}
    adapter = read(state, encoder, target="text_encoder", metadata={"lora_adapter_metadata": json.dumps(told)})
    assert adapter.layers["q_proj"].scale == 3.0


def test_what_another_component_reads_is_no_cause_for_a_warning(lora: Any, caplog: pytest.LogCaptureFixture) -> None:
    encoder, state = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(4, 4)}), State()
    for base in ("lora_te1_q_proj", "lora_unet_mid_block_to_q", "lora_te2_q_proj"):
        state |= {f"{base}.lora_down.weight": lora.noise(2, 4), f"{base}.lora_up.weight": lora.noise(4, 2)}
    assert (
        len(read(state, encoder, target="text_encoder", others=["text_encoder", "text_encoder_2", "unet"]).skipped) == 4
    )
    assert "skipped" not in caplog.text
    read(state, encoder, target="text_encoder", others=["text_encoder", "unet"])
    assert "2 tensors are for other parts and are skipped: lora_te2" in caplog.text
    read(state, encoder, target="text_encoder")
    assert "4 tensors are for other parts and are skipped: lora_unet" in caplog.text


def test_a_tenth_may_be_unknown_and_no_more(state: State, network: Any, lora: Any) -> None:
    for i in range(2):
        down, up = lora.halves(network, [f"transformer_blocks.{i}.attn.to_v"])
        base = f"transformer.transformer_blocks.{i}.attn.to_v"
        state |= {f"{base}.lora_A.weight": down, f"{base}.lora_B.weight": up, f"{base}.alpha": torch.tensor(3.0)}
    del state["transformer.transformer_blocks.1.attn.to_v.alpha"]
    assert len(state) == 9
    extra = {f"transformer.extra_{i}.alpha": torch.tensor(1.0) for i in range(2)}
    one = {key: extra[key] for key in list(extra)[:1]}
    assert len(read(state | one, network).unknown) == 1
    assert "2 of its 11 tensors fit no layer" in refused(state | extra, network)


def test_a_table_of_another_size_is_refused(lora: Any) -> None:
    state = {"diffusion_model.blocks.0.diff_m": lora.noise(1, 6, 32)}
    assert "the model has a table of shape 1 x 6 x 64 there" in refused(state, lora.denoiser("wan"))


def test_target_modules_leave_tables_out(lora: Any) -> None:
    network, state = lora.denoiser("wan"), {"blocks.0.diff_m": lora.noise(1, 6, 64)}
    down, up = lora.halves(network, ["blocks.0.attn1.to_q"])
    state |= {"blocks.0.self_attn.q.lora_A.weight": down, "blocks.0.self_attn.q.lora_B.weight": up}
    assert list(read(state, network).parameters) == ["blocks.0.scale_shift_table"]
    chosen = read(state, network, modules=["to_q"])
    assert (list(chosen.layers), dict(chosen.parameters)) == (["blocks.0.attn1.to_q"], {})
