"""What is offloaded or streamed, by what the settings say and by what fits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.config import EngineConfig
from engine.passes import placement
from engine.passes.placement import Plan

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Sized(torch.nn.Module):
    """A component that says it has so many megabytes."""

    def __init__(self, megabytes: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(megabytes * 250_000, device="meta"))


@pytest.mark.parametrize(
    ("settings", "free_mb", "offloaded", "streamed"),
    [
        ({}, 100, "", ""),
        ({}, 51, "", ""),  # 40 MB of weights in 0.8 of 51
        ({}, 45, "text_encoder transformer", ""),  # the encoder alone beside the others would still be 40
        ({}, 30, "", "text_encoder"),  # the encoder and the resident VAE are 25, which do not fit into 24
        ({}, 22, "", "text_encoder transformer"),
        ({"text_encoder_cpu_offload": True}, 100, "text_encoder", ""),
        ({"text_encoder_cpu_offload": False}, 10, "", "transformer"),
        ({"text_encoder_cpu_offload": False, "dit_layerwise_offload": False}, 10, "transformer", ""),
        ({"performance_mode": "speed"}, 10, "", ""),
        ({"performance_mode": "manual", "dit_cpu_offload": True}, 10, "transformer", ""),
        ({"performance_mode": "manual", "dit_layerwise_offload": True}, 10, "", "transformer"),
        ({"performance_mode": "memory"}, 100, "text_encoder transformer", ""),
        ({"performance_mode": "memory"}, 10, "", "text_encoder transformer"),
        ({"vae_cpu_offload": True}, 100, "vae", ""),
        ({"layerwise_offload_components": ("default",)}, 100, "", "text_encoder vae"),
        ({"layerwise_offload_components": ("vae",), "vae_cpu_offload": True}, 100, "", "vae"),
    ],
)
def test_the_plan(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], free_mb: int, offloaded: str, streamed: str
) -> None:
    monkeypatch.setattr(placement, "_free_bytes", lambda device: free_mb * 1e6)
    components = {"text_encoder": Sized(20), "transformer": Sized(15), "vae": Sized(5), "scheduler": object()}
    plan = placement.plan(components, EngineConfig(**settings), CUDA)
    assert (" ".join(sorted(plan.offloaded)), " ".join(sorted(plan.streamed))) == (offloaded, streamed)


def test_the_image_encoder_has_a_flag_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "_free_bytes", lambda device: 100e6)
    components = {"image_encoder": Sized(5), "transformer": Sized(15), "vae": Sized(5)}
    config = EngineConfig(image_encoder_cpu_offload=True, dit_cpu_offload=False)
    assert placement.plan(components, config, CUDA).offloaded == {"image_encoder"}


@pytest.mark.parametrize(
    ("sizes", "offloaded", "streamed"),
    [
        ((10, 15, 15), "", ""),
        ((10, 25, 25), "transformer transformer_2", ""),  # the encoder fits beside either
        ((25, 25, 10), "transformer transformer_2 vision_language_encoder", ""),
        ((5, 5, 50), "transformer vision_language_encoder", "transformer_2"),
    ],
)
def test_of_two_experts_one_is_on_the_device(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...], offloaded: str, streamed: str
) -> None:
    monkeypatch.setattr(placement, "_free_bytes", lambda device: 50e6)
    names = ("vision_language_encoder", "transformer", "transformer_2")
    plan = placement.plan({name: Sized(size) for name, size in zip(names, sizes, strict=True)}, EngineConfig(), CUDA)
    assert (" ".join(sorted(plan.offloaded)), " ".join(sorted(plan.streamed))) == (offloaded, streamed)


def test_a_choice_says_its_reason(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(placement, "_free_bytes", lambda device: 22e9)
    placement.plan({"text_encoder": Sized(20_000), "transformer": Sized(15_000)}, EngineConfig(), CUDA)
    reason = "the weights take 35.0 GB of the 17.6 GB that are for them on the device"
    assert [record.message for record in caplog.records] == [
        f"text_encoder is streamed from host memory by layer: {reason}"
    ]


def test_room_is_left_to_the_blocks_of_a_streamed_denoiser(monkeypatch: pytest.MonkeyPatch) -> None:
    network = torch.nn.Module()
    network.blocks = torch.nn.ModuleList(Sized(1) for _ in range(20))
    components = {"transformer": network, "vae": Sized(2), "text_encoder": Sized(4)}
    monkeypatch.setattr(placement, "_free_bytes", lambda device: 20e6)
    plan = placement.plan(components, EngineConfig(), CUDA)
    assert plan.streamed == {"transformer", "text_encoder"}
    assert plan.staying == 16e6 - 2e6 - 2e6  # without the VAE, and two blocks that are under way
    components["vision_language_encoder"] = components.pop("text_encoder")
    plan = placement.plan(components, EngineConfig(), CUDA)
    assert plan.offloaded == {"vision_language_encoder"}, "one that writes token by token would be streamed for each"
    assert plan.staying == 16e6 - 6e6 - 2e6


@pytest.mark.parametrize("settings", [{"dit_cpu_offload": True}, {"dit_layerwise_offload": True}])
def test_nothing_is_offloaded_from_the_cpu(settings: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    assert placement.plan({"transformer": Sized(1)}, EngineConfig(**settings), CPU) == Plan()
    message = "offload has no effect: the model runs on the CPU, where its weights are"
    assert [record.message for record in caplog.records] == [message]


@pytest.mark.parametrize(
    ("dtype", "upcast", "streamed"),
    [("float16", True, "a b"), ("float16", False, "a b vae"), ("bfloat16", True, "a b vae")],
)
def test_a_stock_pipeline_streams_all_but_a_vae_that_it_casts(dtype: str, upcast: bool, streamed: str) -> None:
    vae = SimpleNamespace(dtype=getattr(torch, dtype), config=SimpleNamespace(force_upcast=upcast))
    plan = Plan(frozenset("a"), frozenset(("b", "vae")), 3.0)
    assert plan.of_stock(vae) == Plan(frozenset(), frozenset(streamed.split()), 3.0)
    assert plan.of_stock(None).streamed == {"a", "b", "vae"}


def test_what_will_not_live_on_the_device_is_not_loaded_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "_free_bytes", lambda device: 45e6)
    sizes = {"text_encoder": 20_000_000, "transformer": 15_000_000, "vae": 5_000_000}
    assert placement.at_home(sizes, EngineConfig(), CUDA) == {"text_encoder", "transformer"}
    streamed = EngineConfig(performance_mode="manual", dit_layerwise_offload=True, text_encoder_cpu_offload=True)
    assert placement.at_home(sizes, streamed, CUDA) == {"text_encoder", "transformer"}
    assert placement.at_home(sizes, EngineConfig(dit_cpu_offload=True), CPU) == set()
