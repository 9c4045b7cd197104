"""What lives on the device, what comes and goes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.config import EngineConfig
from engine.passes import residency
from engine.passes.residency import Residency

CUDA = torch.device("cuda")


class Spy(torch.nn.Module):
    """A module of `megabytes` that remembers where it was sent."""

    def __init__(self, megabytes: int = 1) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(megabytes * 250_000))
        self.moves: list[str] = []

    def to(self, device: Any) -> Spy:  # type: ignore[override]
        self.moves.append(str(device))
        return self


def test_resident_components_move_once() -> None:
    vae = Spy()
    placed = Residency({"vae": vae, "tokenizer": object()}, CUDA, ())
    with placed.hold(("vae", "tokenizer")):
        pass
    assert vae.moves == ["cuda"]
    assert not placed.exclusive


def test_an_offloaded_component_stays_until_another_needs_the_room() -> None:
    encoder, transformer = Spy(), Spy()
    placed = Residency({"text_encoder": encoder, "transformer": transformer}, CUDA, ("text_encoder", "transformer"))
    assert encoder.moves == []
    with placed.hold(("text_encoder",)):
        assert encoder.moves[-1] == "cuda"
    with placed.hold(("transformer",)):
        assert encoder.moves[-1] == "cpu"
        assert transformer.moves[-1] == "cuda"
    assert placed.exclusive


@pytest.mark.parametrize(
    ("settings", "free_mb", "wanted"),
    [
        ({}, 100, set()),
        ({}, 30, {"text_encoder"}),
        ({}, 10, {"text_encoder", "transformer"}),
        ({"text_encoder_cpu_offload": True}, 100, {"text_encoder"}),
        ({"text_encoder_cpu_offload": False}, 10, {"transformer"}),
        ({"performance_mode": "speed"}, 10, set()),
        ({"performance_mode": "manual", "dit_cpu_offload": True}, 100, {"transformer"}),
        ({"performance_mode": "memory"}, 100, {"text_encoder", "transformer"}),
        ({"vae_cpu_offload": True}, 100, {"vae"}),
    ],
)
def test_the_plan(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], free_mb: int, wanted: set[str]) -> None:
    monkeypatch.setattr(residency, "_free_bytes", lambda device: free_mb * 1e6)
    components = {"text_encoder": Spy(20), "transformer": Spy(15), "vae": Spy(5), "scheduler": object()}
    assert residency.plan(components, EngineConfig(**settings), CUDA) == wanted


def test_nothing_is_offloaded_from_the_cpu() -> None:
    config = EngineConfig(dit_cpu_offload=True, performance_mode="manual")
    assert residency.plan({"transformer": Spy()}, config, torch.device("cpu")) == set()
