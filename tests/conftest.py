"""Fixtures that several rooms share: tiny random-weight models, and an engine over one of them."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine import log

if TYPE_CHECKING:
    from engine.engine import Engine

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # tests run side by side, and tiny models gain nothing from more


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No setting of the person who runs the tests leaks in, and no test writes to their cache."""
    for name in [name for name in os.environ if name.startswith(("SGDIFF_", "SGLANG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SGDIFF_CACHE_ROOT", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def _heard_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log lines reach `caplog`, also after a test that set the program's own handler up."""
    root = logging.getLogger(log.ROOT)
    monkeypatch.setattr(root, "propagate", True)
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.INFO)


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> None:
    """Spare collections what is imported by now: each one, as when an engine closes, would walk a million objects."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()  # what an earlier module left would never be collected
    gc.freeze()


def _tiny(family: str, factory: pytest.TempPathFactory) -> Path:
    from engine.models import tiny

    return tiny.make(family, factory.mktemp("models") / f"tiny-{family}")


@pytest.fixture(scope="session")
def flux_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLUX.1-dev, tiny, random weights."""
    return _tiny("flux", tmp_path_factory)


@pytest.fixture(scope="session")
def schnell_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLUX.1-schnell, tiny, random weights."""
    return _tiny("flux-schnell", tmp_path_factory)


@pytest.fixture(scope="session")
def wan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wan2.1 text to video, tiny, random weights."""
    return _tiny("wan", tmp_path_factory)


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SDXL, tiny, random weights; a passthrough model."""
    return _tiny("sdxl", tmp_path_factory)


@pytest.fixture(scope="session")
def flux(flux_folder: Path) -> Iterator[Engine]:
    """An engine over the tiny FLUX.1-dev in fp32."""
    from engine.engine import Engine

    settings = {"dit_precision": "fp32", "vae_precision": "fp32", "text_encoder_precisions": ["fp32"]}
    with Engine.from_pretrained(str(flux_folder), **settings) as engine:
        yield engine


@pytest.fixture(scope="session")
def lora_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that writes a LoRA file with random weights for the blocks of a network."""
    import torch
    from safetensors.torch import save_file

    def write(network: Any, name: str = "style", seed: int = 1, target: str = "transformer") -> Path:
        noise, tensors = torch.Generator().manual_seed(seed), {}
        for path, module in network.named_modules():
            if isinstance(module, torch.nn.Linear) and ".0." in f".{path}.":
                halves = (2, module.in_features), (module.out_features, 2)
                for side, shape in zip("AB", halves, strict=True):
                    tensors[f"{target}.{path}.lora_{side}.weight"] = torch.randn(shape, generator=noise) / 2
        place = tmp_path_factory.mktemp("loras") / f"{name}.safetensors"
        save_file(tensors, place)
        return place

    return write
