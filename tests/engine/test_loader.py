"""Components come from folders: the right class, the right precision, safetensors only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine import env, loader
from engine.config import EngineConfig, VaeConfig
from engine.engine import spec_of
from engine.errors import ModelError, SgdiffError, UsageError


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
    from diffusers import FlowMatchLCMScheduler

    FlowMatchLCMScheduler(shift=2.0).save_pretrained(tmp_path / "lcm")
    scheduler = _load(flux_folder, component_paths={"scheduler": str(tmp_path / "lcm")})["scheduler"]
    assert type(scheduler) is FlowMatchLCMScheduler
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


WAN_NAMES = {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    ".to_out.0.": ".o.", ".to_q.": ".q.", ".to_k.": ".k.", ".to_v.": ".v.",
    "attn2": "cross_attn", "attn1": "self_attn", "ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2",
    "norm2": "norm?", "norm3": "norm2", "norm?": "norm3",
    "scale_shift_table": "modulation", "proj_out": "head.head",
}  # fmt: skip


def _as_authors_name_it(name: str) -> str:
    if name == "scale_shift_table":
        return "head.modulation"
    for ours, theirs in WAN_NAMES.items():
        name = name.replace(ours, theirs)
    return name


def _changed(folder: Path) -> dict[str, torch.Tensor]:
    """Other weights for a component: its own plus one."""
    (file,) = folder.glob("*.safetensors")
    return {name: tensor + 1 for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("form", ["file", "folder", "model"])
def test_weights_alone_take_the_place_of_the_models_own(form: str, flux_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    state = _changed(flux_folder / "transformer")
    save_file(state, tmp_path / "transformer" / "some.safetensors")
    shutil.copy(flux_folder / "model_index.json", tmp_path)
    given = {"file": tmp_path / "transformer" / "some.safetensors", "folder": tmp_path / "transformer"}
    parts = _load(flux_folder, component_weights_paths={"transformer": str(given.get(form, tmp_path))})
    assert not parts["transformer"].training  # type: ignore[attr-defined]
    loaded = parts["transformer"].state_dict()  # type: ignore[attr-defined]
    assert loaded.keys() == state.keys()
    assert all(torch.equal(tensor, state[name].to(torch.bfloat16)) for name, tensor in loaded.items())


def test_weights_named_by_their_authors_are_converted(wan_folder: Path, tmp_path: Path) -> None:
    state = _changed(wan_folder / "transformer")
    save_file({_as_authors_name_it(name): tensor for name, tensor in state.items()}, tmp_path / "wan.safetensors")
    parts = _load(wan_folder, component_weights_paths={"transformer": str(tmp_path / "wan.safetensors")})
    loaded = parts["transformer"].state_dict()  # type: ignore[attr-defined]
    assert loaded["blocks.0.norm2.weight"].dtype == torch.float32, "kept so by the model"
    assert loaded["blocks.0.attn1.to_q.weight"].dtype == torch.bfloat16
    assert all(torch.equal(tensor, state[name].to(tensor.dtype)) for name, tensor in loaded.items())


def test_weights_that_belong_to_something_else_are_refused(flux_folder: Path, tmp_path: Path) -> None:
    state = _changed(flux_folder / "transformer")
    file = tmp_path / "some.safetensors"
    state["more.weight"] = state.pop("proj_out.weight")
    save_file(state, file)
    with pytest.raises(ModelError) as caught:
        _load(flux_folder, component_weights_paths={"transformer": str(file)})
    assert caught.value.message == (
        f"--transformer-weights-path: {file} does not fit FluxTransformer2DModel: missing or of another shape: "
        "proj_out.weight; unknown: more.weight"
    )
    (vae,) = (flux_folder / "vae").glob("*.safetensors")
    with pytest.raises(ModelError, match=r"does not fit FluxTransformer2DModel: missing .* and \d+ more; unknown: "):
        _load(flux_folder, component_weights_paths={"transformer": str(vae)})


@pytest.mark.parametrize(
    ("key", "typed", "message"),
    [
        ("transformr", "x", "has no component 'transformr'"),
        ("transformer", "./nowhere", "--transformer-weights-path: ./nowhere: no such file or folder"),
        ("transformer", "model_index.json", "must be a .safetensors file, a folder of such, or a hub id"),
    ],
)
def test_weights_that_are_not_there_are_refused(key: str, typed: str, message: str, flux_folder: Path) -> None:
    place = str(flux_folder / typed) if typed.endswith("json") else typed
    with pytest.raises(SgdiffError) as caught:
        _load(flux_folder, component_weights_paths={key: place})
    assert message in caught.value.message


def test_a_model_may_come_without_the_weights_that_are_given(flux_folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(flux_folder, bare)
    (weights,) = (bare / "transformer").glob("*.safetensors")
    weights.rename(tmp_path / "kept.safetensors")
    with pytest.raises(ModelError, match="its component 'transformer' has no safetensors weights"):
        _load(bare)
    assert "transformer" in _load(bare, component_weights_paths={"transformer": str(tmp_path / "kept.safetensors")})


def test_a_bare_file_in_the_place_of_a_component_is_its_weights(flux_folder: Path, tmp_path: Path) -> None:
    state = _changed(flux_folder / "vae")
    save_file(state, tmp_path / "vae.safetensors")
    parts = _load(flux_folder, component_paths={"vae": str(tmp_path / "vae.safetensors")}, vae_precision="fp32")
    assert all(torch.equal(tensor, state[name]) for name, tensor in parts["vae"].state_dict().items())  # type: ignore[attr-defined]


def _without(model: Path, component: str, name: str, folder: Path) -> Path:
    """A copy of a model with a component that lacks one of its weights."""
    shutil.copytree(model, folder)
    (file,) = (folder / component).glob("*.safetensors")
    state = load_file(file)
    del state[name]
    save_file(state, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("component", "cls", "name"),
    [
        ("text_encoder_2", "T5EncoderModel", "encoder.block.0.layer.0.SelfAttention.k.weight"),
        ("text_encoder", "CLIPTextModel", "text_model.final_layer_norm.weight"),
        ("vae", "AutoencoderKL", "decoder.conv_in.weight"),
        ("transformer", "FluxTransformer2DModel", "proj_out.weight"),
    ],
)
def test_nothing_is_drawn_with_weights_that_are_missing(
    component: str, cls: str, name: str, flux_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (file,) = (flux_folder / component).glob("*.safetensors")
    name = name if name in load_file(file) else name.removeprefix("text_model.")
    model = _without(flux_folder, component, name, tmp_path / "model")
    with pytest.raises(ModelError) as caught:
        _load(model)
    assert caught.value.message == (
        f"{component}: {model / component} does not hold all weights of {cls}: missing or of another shape: {name}"
    )
    assert "TRAIN" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("component", "cls", "names"),
    [
        (
            "transformer",
            "FluxTransformer2DModel",
            "context_embedder.weight, norm_out.linear.weight, proj_out.weight and 47 more",
        ),
        (
            "text_encoder_2",
            "T5EncoderModel",
            (
                "encoder.block.0.layer.0.SelfAttention.k.weight, encoder.block.0.layer.0.SelfAttention.o.weight, "
                "encoder.block.0.layer.0.SelfAttention.q.weight and 13 more"
            ),
        ),
    ],
)
@pytest.mark.parametrize("alone", [False, True], ids=["folder", "file"])
def test_weights_of_another_shape_are_told_by_a_few_names(
    component: str, cls: str, names: str, alone: bool, flux_folder: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(flux_folder, model)
    (file,) = (model / component).glob("*.safetensors")
    state = {name: torch.cat([part, part]) if part.ndim > 1 else part for name, part in load_file(file).items()}
    save_file(state, file, metadata={"format": "pt"})
    given = {"component_weights_paths": {component: str(file)}} if alone else {}
    with pytest.raises(ModelError) as caught:
        _load(flux_folder if alone else model, **given)
    flag = f"--{component.replace('_', '-')}-weights-path"
    told = f"{flag}: {file} does not fit" if alone else f"{component}: {file.parent} does not hold all weights of"
    assert caught.value.message == f"{told} {cls}: missing or of another shape: {names}"


@pytest.mark.parametrize("family", ["flux", "flux2", "qwen-image", "glm-image", "wan-i2v", "sd3", "ovis"])
def test_weights_that_a_class_ties_or_ignores_are_not_missing(family: str, tmp_path: Path) -> None:
    from engine.models import tiny

    assert _load(tiny.make(family, tmp_path / "model"))


@pytest.mark.parametrize("harm", ["cut", "garbage"])
@pytest.mark.parametrize("component", ["vae", "text_encoder"])
def test_a_damaged_file_is_named(component: str, harm: str, flux_folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(flux_folder, model)
    (file,) = (model / component).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1000] if harm == "cut" else b"\xff" * 5000)
    with pytest.raises(ModelError) as caught:
        _load(model)
    assert f"cannot be loaded: {file} is damaged: " in caught.value.message
    assert caught.value.message.startswith(f"{component}: ")


def _component(folder: Path, **settings: object) -> Path:
    """A component's folder that holds a config and nothing else."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("component", "settings", "message"),
    [
        ("vae", {"_class_name": "AutoencoderKLWan"}, "holds AutoencoderKLWan, but {} uses AutoencoderKL"),
        ("vae", {"_class_name": "FluxTransformer2DModel"}, "holds FluxTransformer2DModel, but {} uses AutoencoderKL"),
        ("transformer", {"_class_name": "WanTransformer3DModel"}, "uses FluxTransformer2DModel"),
        ("transformer", {"model_type": "t5", "architectures": ["T5EncoderModel"]}, "holds T5EncoderModel, but"),
        ("text_encoder", {"model_type": "t5", "architectures": ["T5EncoderModel"]}, "{} uses CLIPTextModel"),
        ("text_encoder", {"_class_name": "AutoencoderKL"}, "holds AutoencoderKL, but {} uses CLIPTextModel"),
        ("scheduler", {"_class_name": "UniPCMultistepScheduler"}, "{} uses FlowMatchEulerDiscreteScheduler"),
        # It takes no sigmas, of which FLUX has its own.
        ("scheduler", {"_class_name": "FlowMatchHeunDiscreteScheduler"}, "{} uses FlowMatchEulerDiscreteScheduler"),
        ("scheduler", {"_class_name": "AutoencoderKL"}, "holds AutoencoderKL, but"),
    ],
)
def test_a_component_that_the_model_cannot_use_is_refused(
    component: str, settings: dict[str, object], message: str, flux_folder: Path, tmp_path: Path
) -> None:
    place = _component(tmp_path / "other", **settings)
    with pytest.raises(UsageError) as caught:
        _load(flux_folder, model_id="FLUX.1-dev", component_paths={component: str(place)})
    assert caught.value.message.startswith(f"--{component.replace('_', '-')}-path: {place} holds ")
    assert message.format("black-forest-labs/FLUX.1-dev") in caught.value.message


def test_schedulers_that_wan_can_use(wan_folder: Path, tmp_path: Path) -> None:
    from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

    flow, shifted = FlowMatchEulerDiscreteScheduler(), FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    for scheduler in (flow, DPMSolverMultistepScheduler()):
        scheduler.save_pretrained(tmp_path / type(scheduler).__name__)
        given = {"scheduler": str(tmp_path / type(scheduler).__name__)}
        assert type(_load(wan_folder, component_paths=given)["scheduler"]) is type(scheduler)
    shifted.save_pretrained(tmp_path / "shifted")
    with pytest.raises(UsageError, match="uses UniPCMultistepScheduler"):
        _load(wan_folder, component_paths={"scheduler": str(tmp_path / "shifted")})


def test_a_model_with_the_encoder_of_another_is_refused(flux_folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(flux_folder, model)
    shutil.rmtree(model / "text_encoder")
    shutil.copytree(model / "text_encoder_2", model / "text_encoder")
    with pytest.raises(ModelError) as caught:
        _load(model, model_id="FLUX.1-dev")
    assert (
        caught.value.message == "text_encoder: its config is that of T5EncoderModel, but the model uses CLIPTextModel"
    )


def test_a_part_of_clip_may_keep_the_config_of_the_whole() -> None:
    from transformers import CLIPTextModel

    assert loader._foreign(CLIPTextModel, {"model_type": "clip", "architectures": ["CLIPModel"]}) is None
    assert loader._foreign(CLIPTextModel, {"model_type": "siglip"}) == "siglip"


@pytest.mark.parametrize("component", ["tokenizer", "scheduler"])
def test_what_has_no_weights_takes_none(component: str, flux_folder: Path) -> None:
    (file,) = (flux_folder / "vae").glob("*.safetensors")
    with pytest.raises(UsageError) as caught:
        _load(flux_folder, component_weights_paths={component: str(file)})
    assert caught.value.message == (
        f"--{component}-weights-path: '{component}' has no weights; components that have: "
        "text_encoder, text_encoder_2, transformer, vae"
    )
    with pytest.raises(UsageError, match=rf"^--{component}-path: .*\.safetensors: must be a folder$"):
        _load(flux_folder, component_paths={component: str(file)})


def test_a_vae_whose_halves_differ_is_read_in_full(flux_folder: Path) -> None:
    vae = _load(flux_folder, vae_precision="bf16", vae_decode_precision="fp16")["vae"]
    assert {parameter.dtype for parameter in vae.parameters()} == {torch.float32}  # type: ignore[attr-defined]


def test_loading_leaves_the_classes_of_the_library_as_they_are(tmp_path: Path) -> None:
    from diffusers import WanTransformer3DModel

    from engine.models import tiny

    before = WanTransformer3DModel._keys_to_ignore_on_load_unexpected
    _load(tiny.make("fastwan", tmp_path / "model"))
    assert WanTransformer3DModel._keys_to_ignore_on_load_unexpected == before


def test_published_names_of_an_encoders_weights_are_converted(tmp_path: Path) -> None:
    from engine.models import tiny

    model = tiny.make("qwen-image", tmp_path / "model")
    folder = model / "text_encoder"
    expected = _load(model)["text_encoder"].state_dict()  # type: ignore[attr-defined]
    found = _load(model, component_weights_paths={"text_encoder": str(folder)})["text_encoder"].state_dict()  # type: ignore[attr-defined]
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    (vae,) = (model / "vae").glob("*.safetensors")
    with pytest.raises(
        ModelError, match=r"^--text-encoder-weights-path: .* does not fit Qwen2_5_VL.*: missing .*; unkn"
    ):
        _load(model, component_weights_paths={"text_encoder": str(vae)})
