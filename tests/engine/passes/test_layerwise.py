"""Streamed weights: the same pixels, one block ahead, hooks that leave everything else alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import diffusers.hooks
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, FluxTransformer2DModel
from diffusers.hooks import group_offloading

from engine.attention import Handle
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import UsageError
from engine.models import tiny
from engine.passes import layerwise
from engine.passes.placement import Plan
from engine.passes.residency import Residency

CPU, META = torch.device("cpu"), torch.device("meta")  # the latter stands for one that computes
ALL = ("text_encoder", "text_encoder_2", "transformer", "vae")
REQUEST = {"prompt": "a red house", "height": 48, "width": 64, "seed": 3, "num_inference_steps": 2}


class Stream:
    """A stream where there is none: everything is done at once."""

    def synchronize(self) -> None:
        pass


class Backend:
    """What diffusers asks of an accelerator."""

    def __init__(self, device: torch.device) -> None:
        self.current_stream = Stream
        self.stream = nullcontext


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the way of a device with streams, on the CPU; page-locked memory is a copy."""
    real = group_offloading._apply_group_offloading

    def apply(module: torch.nn.Module, config: Any) -> None:
        config.stream, config.non_blocking = Stream(), True
        real(module, config)

    monkeypatch.setattr(group_offloading, "_apply_group_offloading", apply)
    monkeypatch.setattr(group_offloading, "TorchDeviceBackend", Backend)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: True)


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "axes_dims_rope": (2, 2, 4), "joint_attention_dim": 16}
    return FluxTransformer2DModel(num_layers=3, num_single_layers=5, pooled_projection_dim=8, in_channels=8, **sizes)


def forward(network: torch.nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    hidden, text = (torch.randn(1, 4, width, generator=generator) for width in (8, 16))
    arguments = {"pooled_projections": torch.ones(1, 8), "timestep": torch.ones(1), "guidance": None}
    ids = {"img_ids": torch.ones(4, 3), "txt_ids": torch.zeros(4, 3)}
    with torch.no_grad():
        result: torch.Tensor = network(hidden, encoder_hidden_states=text, **arguments, **ids, return_dict=False)[0]
    return result


class Traffic:
    """The blocks that came to the device, and how many were there at once."""

    def __init__(self) -> None:
        self.came: list[str] = []
        self.present: set[int] = set()
        self.most = 0

    def onload(self, group: Any) -> None:
        if group.modules and id(group) not in self.present:  # to look for a block that is there already costs nothing
            self.came.append(type(group.modules[0]).__name__)
            self.present.add(id(group))
            self.most = max(self.most, len(self.present))

    def offload(self, group: Any) -> None:
        self.present.discard(id(group))


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> Traffic:
    traffic = Traffic()
    for name in ("onload", "offload"):
        real, note = getattr(group_offloading.ModuleGroup, f"{name}_"), getattr(traffic, name)

        def move(group: Any, real: Any = real, note: Any = note) -> None:
            note(group)
            real(group)

        monkeypatch.setattr(group_offloading.ModuleGroup, f"{name}_", move)
    return traffic


@pytest.mark.usefixtures("streams")
def test_the_next_block_arrives_while_one_computes(network: torch.nn.Module, traffic: Traffic) -> None:
    before = forward(network)
    layerwise.apply({"transformer": network}, CPU)
    assert torch.equal(forward(network), before), "the first pass, which finds the order"
    assert traffic.most == 1
    traffic.came.clear()
    assert torch.equal(forward(network), before)
    assert traffic.most == 2
    assert not traffic.present
    assert traffic.came == ["FluxTransformerBlock"] * 3 + ["FluxSingleTransformerBlock"] * 5


@pytest.mark.usefixtures("streams")
def test_some_blocks_stay(network: torch.nn.Module, traffic: Traffic) -> None:
    before = forward(network)
    blocks = [*network.transformer_blocks, *network.single_transformer_blocks]
    room = layerwise.size_of(blocks[0]) + 2 * layerwise.size_of(blocks[-1])
    layerwise.apply({"transformer": network}, CPU, room=room)
    for _ in range(2):
        traffic.came.clear()
        assert torch.equal(forward(network), before)
    staying = [block for block in blocks if not hasattr(block, "_diffusers_hook")]
    assert len(traffic.came) == len(blocks) - len(staying)
    assert room * 0.6 < sum(map(layerwise.size_of, staying)) <= room
    assert staying[0] is blocks[0], "the first copy of a step hides behind it"
    layerwise.apply({"transformer": network}, CPU, room=1e9)
    traffic.came.clear()
    assert torch.equal(forward(network), before)
    assert traffic.came == []


@pytest.mark.usefixtures("streams")
def test_what_is_around_the_blocks_is_on_the_device_beforehand(network: torch.nn.Module) -> None:
    blocks = [*network.transformer_blocks, *network.single_transformer_blocks]
    layerwise.apply({"transformer": network}, META, room=layerwise.size_of(blocks[0]))
    there = {name for name, weight in network.named_parameters() if weight.device == META}
    streamed = {"transformer_blocks.1", "transformer_blocks.2", *(f"single_transformer_blocks.{i}" for i in range(5))}
    at_home = {name for name, _ in network.named_parameters() if name.startswith(tuple(f"{b}." for b in streamed))}
    assert {"x_embedder.weight", "norm_out.linear.bias", "transformer_blocks.0.attn.to_q.weight"} <= there
    assert there == {name for name, _ in network.named_parameters()} - at_home


@pytest.mark.usefixtures("streams")
def test_weights_may_change_in_place_between_two_passes(network: torch.nn.Module) -> None:
    layerwise.apply({"transformer": network}, CPU)
    before = forward(network)
    weight = network.single_transformer_blocks[2].proj_out.weight
    kept = weight.clone()
    with torch.no_grad():
        weight.mul_(3)
    changed = forward(network)
    assert not torch.equal(changed, before)
    with torch.no_grad():
        weight.copy_(kept)
    assert torch.equal(forward(network), before)


@pytest.mark.usefixtures("streams")
def test_applied_again_it_knows_parameters_that_were_added(network: torch.nn.Module) -> None:
    layerwise.apply({"transformer": network}, CPU)
    before = forward(network)
    block = network.single_transformer_blocks[1]
    block.adapter = torch.nn.Linear(16, 16)
    with pytest.raises(KeyError):
        forward(network)
    layerwise.apply({"transformer": network}, CPU)
    assert torch.equal(forward(network), before)
    layerwise.remove(network)
    assert not any(
        "group_offloading" in part._diffusers_hook.hooks
        for part in network.modules()
        if hasattr(part, "_diffusers_hook")
    )
    assert torch.equal(forward(network), before)


def test_two_experts_share_the_room() -> None:
    experts = {f"transformer{suffix}": torch.nn.Module() for suffix in ("", "_2")}
    for expert in experts.values():
        expert.blocks = torch.nn.ModuleList(torch.nn.Linear(10, 10, bias=False) for _ in range(4))
    layerwise.apply(experts, CPU, room=4 * 400)
    for expert in experts.values():
        assert [hasattr(block, "_diffusers_hook") for block in expert.blocks] == [False, True, False, True]


@pytest.mark.parametrize("pin", [True, False])
def test_weights_stay_pageable_when_that_is_asked(monkeypatch: pytest.MonkeyPatch, pin: bool) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(diffusers.hooks, "apply_group_offloading", lambda *_, **options: given.append(options))
    layerwise.apply({"text_encoder": torch.nn.Linear(1, 1)}, torch.device("cuda"), pin=pin)
    assert [(options["low_cpu_mem_usage"], options["use_stream"]) for options in given] == [(not pin, True)]


@pytest.mark.usefixtures("streams")
def test_a_video_vae_fills_its_cache_through_the_hooks(wan_folder: Path) -> None:
    vae = AutoencoderKLWan.from_pretrained(wan_folder / "vae")
    video = torch.randn(1, 3, 9, 32, 32, generator=torch.Generator().manual_seed(0))

    def there_and_back() -> torch.Tensor:
        with torch.no_grad():
            result: torch.Tensor = vae.decode(vae.encode(video).latent_dist.mean).sample
        return result

    before = there_and_back()
    layerwise.apply({"vae": vae}, CPU)
    assert hasattr(vae.decoder.conv_in, "_diffusers_hook")
    for _ in range(2):
        assert torch.equal(there_and_back(), before)


@pytest.fixture
def engine(flux_folder: Path) -> Iterator[Engine]:
    with Engine.from_pretrained(str(flux_folder), device="cpu") as engine:
        yield engine


@pytest.mark.usefixtures("streams")
def test_pixels_are_those_without_streaming(engine: Engine) -> None:
    assert engine.executor is not None
    before = engine.generate(**REQUEST)[0].frames
    pipeline = engine.executor.scheduler.pipeline
    pipeline.residency = Residency(pipeline.model.components, CPU, Plan(streamed=frozenset(ALL)))
    assert not pipeline.exclusive, "runs may take turns"
    for _ in range(2):
        np.testing.assert_array_equal(engine.generate(**REQUEST)[0].frames, before)
    block = pipeline.model.components["transformer"].transformer_blocks[0]
    assert isinstance(block.attn.processor._attention_backend, Handle)


@pytest.mark.usefixtures("streams")
def test_of_two_experts_one_is_offloaded_and_one_streamed(tmp_path: Path) -> None:
    folder = tiny.make("wan-a14b", tmp_path / "tiny-wan-a14b")
    request = {"prompt": "x", "height": 32, "width": 32, "num_frames": 5, "seed": 1, "num_inference_steps": 4}
    with Engine.from_pretrained(str(folder), device="cpu") as engine:
        assert engine.executor is not None
        before = engine.generate(**request)[0].frames
        pipeline = engine.executor.scheduler.pipeline
        plan = Plan(frozenset({"transformer"}), frozenset({"transformer_2", "text_encoder", "vae"}))
        pipeline.residency = Residency(pipeline.model.components, CPU, plan)
        for _ in range(2):
            np.testing.assert_array_equal(engine.generate(**request)[0].frames, before)


def test_on_the_cpu_it_has_no_effect(flux_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {"dit_layerwise_offload": True, "layerwise_offload_components": ["default"], "pin_cpu_memory": False}
    with Engine.from_pretrained(str(flux_folder), device="cpu", **settings) as engine:
        assert engine.executor is not None
        for part in engine.executor.scheduler.pipeline.model.components.values():
            assert not hasattr(part, "_diffusers_hook")
    assert [record.message for record in caplog.records if "offload" in record.message] == [
        "offload has no effect: the model runs on the CPU, where its weights are"
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"dit_cpu_offload": True, "dit_layerwise_offload": True},
            "dit_layerwise_offload: excludes dit_cpu_offload; give one of them",
        ),
        (
            {"layerwise_offload_components": ["vea"]},
            (
                "layerwise_offload_components: must be among default, text_encoder, text_encoder_2, transformer, vae, "
                "got 'vea'"
            ),
        ),
    ],
)
def test_mistakes_are_told_before_weights_are_read(
    flux_folder: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("engine.loader.load", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(UsageError) as error:
        Engine.from_pretrained(str(flux_folder), **settings)
    assert error.value.message == message


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, set()),
        ({"dit_layerwise_offload": True}, {"transformer", "transformer_2"}),
        (
            {"layerwise_offload_components": ("default",)},
            {"vision_language_encoder", "text_encoder", "image_encoder", "vae"},
        ),
        ({"layerwise_offload_components": ("vae", "transformer_2")}, {"vae", "transformer_2"}),
    ],
)
def test_which_components_are_streamed(settings: dict[str, Any], wanted: set[str]) -> None:
    names = ["transformer", "transformer_2", "vae", "text_encoder", "vision_language_encoder", "image_encoder"]
    assert layerwise.asked(EngineConfig(**settings), names) == wanted
