"""What lives on the device, what comes and goes, and that weights come home unharmed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.engine import Engine
from engine.models import tiny
from engine.passes.placement import Plan
from engine.passes.residency import Parked, Residency

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


def test_an_image_encoder_comes_when_the_image_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    request: dict[str, Any] = {"prompt": "x", "image_path": str(tmp_path / "red.png"), "height": 32, "width": 32}
    request |= {"num_frames": 5, "num_inference_steps": 1, "seed": 3}
    with Engine.from_pretrained(str(tiny.make("wan-i2v", tmp_path / "tiny")), device="cpu") as engine:
        assert engine.executor is not None
        before = engine.generate(**request)[0].frames
        pipeline = engine.executor.scheduler.pipeline
        components = pipeline.model.components
        pipeline.residency = Residency(components, CPU, Plan(frozenset({"image_encoder"})))
        parked = pipeline.residency.offloaded["image_encoder"]
        there: list[tuple[str, bool]] = []
        for name in ("text_encoder", "image_encoder", "transformer"):
            components[name].register_forward_pre_hook(
                lambda *_, name=name: there.append((name, parked.away is not None))
            )
        for _ in range(2):
            np.testing.assert_array_equal(engine.generate(**request)[0].frames, before)
            assert set(there) == {("text_encoder", False), ("image_encoder", True), ("transformer", False)}


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
