"""What lives on the device, what comes and goes, and that weights come home unharmed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.config import EngineConfig
from engine.engine import Engine
from engine.passes import residency
from engine.passes.residency import Parked, Plan, Residency

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Part(torch.nn.Module):
    """A component of `megabytes` with tied weights, a buffer that no file holds, and a place where it was sent to."""

    def __init__(self, megabytes: float = 0.001) -> None:
        super().__init__()
        count = int(megabytes * 250_000)
        self.shared = torch.nn.Parameter(torch.arange(count, dtype=torch.float32), requires_grad=False)
        self.tied = torch.nn.Parameter(self.shared.data, requires_grad=False)
        self.same = self.shared
        self.register_buffer("inverse", torch.ones(3), persistent=False)
        self.moves: list[str] = []

    def to(self, *args: Any, **options: Any) -> Part:  # type: ignore[override]
        self.moves.append(str(args[0]))
        return self


class Sized(torch.nn.Module):
    """A component that says it has so many megabytes."""

    def __init__(self, megabytes: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(megabytes * 250_000, device="meta"))


def pointers(part: Part) -> list[int]:
    return [tensor.data_ptr() for tensor in (part.shared, part.tied, part.same, part.inverse)]


def test_resident_components_move_once() -> None:
    vae = Part()
    placed = Residency({"vae": vae, "tokenizer": object()}, CUDA, Plan(), pin=False)
    with placed.hold(("vae", "tokenizer")):
        pass
    assert vae.moves == ["cuda"]
    assert not placed.exclusive


def test_an_offloaded_component_stays_until_another_needs_the_room() -> None:
    encoder, transformer = Part(), Part()
    at_home = pointers(encoder)
    placed = Residency(
        {"text_encoder": encoder, "transformer": transformer}, CPU, Plan(frozenset({"text_encoder", "transformer"}))
    )
    assert pointers(encoder) == at_home, "loading leaves it in host memory"
    with placed.hold(("text_encoder",)):
        there = pointers(encoder)
        assert not set(there) & set(at_home)
    assert pointers(encoder) == there, "it stays until the room is needed"
    with placed.hold(("transformer",)):
        assert pointers(encoder) == at_home
    assert placed.exclusive


def test_tied_weights_are_copied_once_and_stay_tied() -> None:
    part = Part()
    parked = Parked(part, pin=False)
    parked.enter(CPU)
    shared, tied, same, inverse = pointers(part)
    assert shared == tied == same != inverse
    assert part.shared.tolist() == list(range(250))
    assert part.inverse.tolist() == [1, 1, 1]
    parked.enter(CPU)
    assert pointers(part)[0] == shared, "what is there already is not copied again"


def test_a_weight_that_changed_in_place_keeps_the_change() -> None:
    part = Part()
    parked, home = Parked(part, pin=False), part.shared.data_ptr()
    parked.enter(CPU)
    part.shared.copy_(torch.full((250,), 5.0))
    parked.leave()
    assert part.shared.data_ptr() == home
    assert part.tied.unique().tolist() == [5.0]
    parked.enter(CPU)
    assert part.shared.unique().tolist() == [5.0]


def test_a_weight_that_did_not_change_is_not_copied_back(monkeypatch: pytest.MonkeyPatch) -> None:
    parked = Parked(Part(), pin=False)
    parked.enter(CPU)
    monkeypatch.setattr(torch.Tensor, "copy_", lambda *_: pytest.fail("copied back"))
    parked.leave()


def test_what_was_added_on_the_device_comes_home() -> None:
    part = Part()
    parked = Parked(part, pin=False)
    parked.enter(CPU)
    part.adapter = torch.nn.Linear(2, 2, device="meta")  # stands for another device
    with pytest.raises(NotImplementedError, match="meta"):  # it was moved: that fails for a tensor without data alone
        parked.leave()
    del part.adapter
    parked.enter(CPU)
    part.adapter = torch.nn.Linear(2, 2)
    parked.leave()
    parked.enter(CPU)
    assert part.adapter.weight.device == CPU


def test_a_failed_copy_leaves_the_component_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    part = Part()
    parked, at_home = Parked(part, pin=False), pointers(part)
    real = torch.Tensor.to

    def to(tensor: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        if options.get("copy") and tensor.numel() == 3:
            raise torch.OutOfMemoryError("full")
        return real(tensor, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "to", to)
        with pytest.raises(torch.OutOfMemoryError):
            parked.enter(CPU)
    assert pointers(part) == at_home
    parked.enter(CPU)
    assert part.inverse.tolist() == [1, 1, 1]
    parked.leave()
    assert pointers(part) == at_home


def test_page_locked_memory_that_is_used_up_is_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no more")

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    part = Part()
    parked = Parked(part, pin=True)
    parked.enter(CPU)
    parked.leave()
    message = "page-locked memory is used up, offload goes on slower without it: no more"
    assert [record.message for record in caplog.records] == [message]


def test_weights_are_page_locked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    locked: list[int] = []

    def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
        locked.append(tensor.numel())
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: bool(locked.count(tensor.numel())))
    parked = Parked(Part(), pin=True)
    parked.enter(CPU)
    parked.leave()
    assert sorted(locked) == [3, 250]


def test_weights_that_are_no_plain_tensors_are_moved_by_their_module() -> None:
    class Quantized(torch.nn.Parameter):
        pass

    part = Part()
    part.shared = Quantized(torch.zeros(2), requires_grad=False)
    parked = Parked(part, pin=True)
    parked.enter(CUDA)
    parked.enter(CUDA)
    parked.leave()
    assert part.moves == ["cpu", "cuda", "cpu"]


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
    monkeypatch.setattr(residency, "_free_bytes", lambda device: free_mb * 1e6)
    components = {"text_encoder": Sized(20), "transformer": Sized(15), "vae": Sized(5), "scheduler": object()}
    plan = residency.plan(components, EngineConfig(**settings), CUDA)
    assert (" ".join(sorted(plan.offloaded)), " ".join(sorted(plan.streamed))) == (offloaded, streamed)


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
    monkeypatch.setattr(residency, "_free_bytes", lambda device: 50e6)
    names = ("vision_language_encoder", "transformer", "transformer_2")
    plan = residency.plan({name: Sized(size) for name, size in zip(names, sizes, strict=True)}, EngineConfig(), CUDA)
    assert (" ".join(sorted(plan.offloaded)), " ".join(sorted(plan.streamed))) == (offloaded, streamed)


def test_a_choice_says_its_reason(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(residency, "_free_bytes", lambda device: 22e9)
    monkeypatch.setattr(residency, "size_of", lambda part: {20: 20e9, 15: 15e9}[part.weight.numel() // 250_000])
    residency.plan({"text_encoder": Sized(20), "transformer": Sized(15)}, EngineConfig(), CUDA)
    reason = "the weights take 35.0 GB of the 17.6 GB that are for them on the device"
    assert [record.message for record in caplog.records] == [
        f"text_encoder is streamed from host memory by layer: {reason}"
    ]


def test_room_is_left_to_the_blocks_of_a_streamed_denoiser(monkeypatch: pytest.MonkeyPatch) -> None:
    network = torch.nn.Module()
    network.blocks = torch.nn.ModuleList(Sized(1) for _ in range(20))
    components = {"transformer": network, "vae": Sized(2), "text_encoder": Sized(4)}
    monkeypatch.setattr(residency, "_free_bytes", lambda device: 20e6)
    plan = residency.plan(components, EngineConfig(), CUDA)
    assert plan.streamed == {"transformer"}
    assert plan.staying == 16e6 - 6e6 - 2e6  # without VAE and encoder, and two blocks that are under way


@pytest.mark.parametrize("settings", [{"dit_cpu_offload": True}, {"dit_layerwise_offload": True}])
def test_nothing_is_offloaded_from_the_cpu(settings: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    assert residency.plan({"transformer": Sized(1)}, EngineConfig(**settings), CPU) == Plan()
    message = "offload has no effect: the model runs on the CPU, where its weights are"
    assert [record.message for record in caplog.records] == [message]


def test_a_stock_pipeline_streams_all_or_nothing() -> None:
    assert Plan(frozenset("ab"), frozenset("c")).only_streamed() == Plan(frozenset(), frozenset("abc"))


def test_pixels_are_those_without_offload(flux_folder: Path) -> None:
    request = {"prompt": "a red house", "height": 48, "width": 64, "seed": 3, "num_inference_steps": 2}
    with Engine.from_pretrained(str(flux_folder), device="cpu") as engine:
        assert engine.executor is not None
        before = engine.generate(**request)[0].frames
        pipeline = engine.executor.scheduler.pipeline
        names = frozenset(("text_encoder", "text_encoder_2", "transformer", "vae"))
        pipeline.residency = Residency(pipeline.model.components, CPU, Plan(names))
        for _ in range(2):
            np.testing.assert_array_equal(engine.generate(**request)[0].frames, before)
        with pipeline.residency.hold(()):
            assert [parked.away for parked in pipeline.residency.offloaded.values()] == [None] * 4
