"""Switching LoRAs on FLUX.1-dev: seconds to set, switch and unmerge, beside diffusers' fuse and unfuse.

    python3 scripts/bench/lora.py
    .venv/bin/python scripts/bench/lora.py --model-path /tmp/tiny-flux --device cpu --rank 4 --dry

Random weights of the real size (`--load-format dummy`), unless `--model-path` is a folder; two random adapters of rank
64 on every linear layer of the transformer. Both sides work on the same transformer, ours first. After each side its
weights are compared with those before, byte by byte. `--dry` prints the result and stores nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
GIB = 2**30
SPREAD = 0.01  # of the random numbers in an adapter
NEVER = 9.0  # share of the device that must be left: never, so that copies go to host memory


def main() -> None:
    """Measure both sides, print and store."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import common

    from engine.engine import Engine

    arguments = _arguments()
    form = "auto" if Path(arguments.model_path).is_dir() else "dummy"
    settings = {"load_format": form, "device": arguments.device, "performance_mode": "manual"}
    engine = Engine.from_pretrained(arguments.model_path, **settings)
    network = engine.loras.networks["transformer"]
    base = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    with tempfile.TemporaryDirectory() as folder:
        files = [_adapter(network, Path(folder) / f"{name}.safetensors", arguments.rank, name) for name in ("a", "b")]
        result = {
            "model": arguments.model_path,
            "rank": arguments.rank,
            "parameters": sum(weight.numel() for weight in network.parameters()),
            "layers": _layers(network),
            "adapter_gib": round(files[0].stat().st_size / GIB, 2),
            "rows": [
                ours("ours", engine, files, base, arguments.repeat),
                ours("ours, copies in host memory", engine, files, base, arguments.repeat, left=NEVER),
                stock(engine, files, base, arguments.repeat),
            ],
        }
    if arguments.dry:
        print(json.dumps(result, indent=2))
    else:
        common.store("lora", result)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model-path", default="black-forest-labs/FLUX.1-dev")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=6)
    parser.add_argument("--dry", action="store_true")
    return parser.parse_args()


def _layers(network: Any) -> int:
    import torch

    return sum(isinstance(module, torch.nn.Linear) for module in network.modules())


def _adapter(network: Any, path: Path, rank: int, name: str) -> Path:
    """Write an adapter of random numbers in diffusers' layout, bf16."""
    import torch
    from safetensors.torch import save_file

    device = next(network.parameters()).device
    noise, tensors = torch.Generator(device).manual_seed(ord(name)), {}
    for module_path, module in network.named_modules():
        if isinstance(module, torch.nn.Linear):
            for side, shape in (("A", (rank, module.in_features)), ("B", (module.out_features, rank))):
                drawn = torch.randn(shape, generator=noise, device=device, dtype=torch.float32) * SPREAD
                tensors[f"transformer.{module_path}.lora_{side}.weight"] = drawn.bfloat16().cpu()
    save_file(tensors, path)
    return path


def ours(
    name: str, engine: Any, files: list[Path], base: dict[str, Any], repeat: int, left: float | None = None
) -> dict[str, Any]:
    """Return the times of our side; `left` is the share of the device that copies of weights must leave free."""
    from engine.lora import layers

    before, layers.LEFT = layers.LEFT, layers.LEFT if left is None else left
    merged = engine.loras.layers["transformer"]
    engine.loras.cache.clear()
    memory = _allocated()
    cold = [_timed(lambda path=path: engine.set_lora(path.stem, str(path))) for path in files]
    changed = _same(engine.loras.networks["transformer"], base)
    switches = [_timed(lambda i=i: engine.set_lora(files[i % 2].stem)) for i in range(2 * repeat)]
    unmerges, merges = list[float](), list[float]()
    for _ in range(repeat):
        unmerges.append(_timed(engine.unmerge_lora))
        merges.append(_timed(engine.merge_lora))
    row = {
        "name": name,
        "cold_s": round(cold[0], 3),
        "second_cold_s": round(cold[1], 3),
        "switch": _spread(switches),
        "merge": _spread(merges),
        "unmerge": _spread(unmerges),
        "copies_gib": {place: round(size / GIB, 2) for place, size in merged.kept.items()},
        "device_gib": round((_allocated() - memory) / GIB, 2),
        "changed": not changed,
    }
    engine.unmerge_lora()
    row |= {"exact": _same(engine.loras.networks["transformer"], base)}
    merged.release()
    layers.LEFT = before
    _clean()
    return row


def stock(engine: Any, files: list[Path], base: dict[str, Any], repeat: int) -> dict[str, Any]:
    """Return the times of diffusers' side: load once, then fuse one, unfuse it, fuse the other."""
    row: dict[str, Any] = {"name": "diffusers"}
    try:
        return row | _stock(engine, files, base, repeat)
    except Exception as error:  # noqa: BLE001 - a side that fails is a result
        return row | {"error": f"{type(error).__name__}: {error}"}


def _stock(engine: Any, files: list[Path], base: dict[str, Any], repeat: int) -> dict[str, Any]:
    import diffusers

    from engine.models.base import assemble

    model = engine.executor.scheduler.pipeline.model
    pipeline = assemble(getattr(diffusers, engine.spec.pipeline), model.components, engine.spec.settings)
    network, only = pipeline.transformer, ["transformer"]
    loads = [_timed(lambda path=path: pipeline.load_lora_weights(str(path), adapter_name=path.stem)) for path in files]
    pipeline.set_adapters([files[0].stem])
    fuses, unfuses, chooses = list[float](), list[float](), list[float]()
    for i in range(2 * repeat):
        name = files[i % 2].stem
        chooses.append(_timed(lambda name=name: pipeline.set_adapters([name])))
        fuses.append(_timed(lambda name=name: pipeline.fuse_lora(components=only, adapter_names=[name])))
        unfuses.append(_timed(lambda: pipeline.unfuse_lora(components=only)))
    switches = [sum(parts) for parts in zip(unfuses, chooses, fuses, strict=True)]
    pipeline.unload_lora_weights()
    return {
        "cold_s": round(loads[0] + chooses[0] + fuses[0], 3),
        "second_cold_s": round(loads[1] + chooses[1] + fuses[1], 3),
        "switch": _spread(switches[2:]),
        "merge": _spread(fuses[2:]),
        "unmerge": _spread(unfuses[2:]),
        "exact": _same(network, base),
        "largest_residue": _residue(network, base),
    }


def _spread(seconds: list[float]) -> dict[str, float]:
    import common

    return common.spread(seconds)


def _timed(action: Callable[[], Any]) -> float:
    """Return the seconds of an action, with all that the device does for it."""
    import torch

    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    start = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - start


def _same(network: Any, base: dict[str, Any]) -> bool:
    import torch

    weights = dict(network.named_parameters())
    return all(torch.equal(weights[name].view(torch.uint8), value.view(torch.uint8)) for name, value in base.items())


def _residue(network: Any, base: dict[str, Any]) -> float:
    weights = dict(network.named_parameters())
    return max(float((weights[name].float() - value.float()).abs().max()) for name, value in base.items())


def _allocated() -> int:
    import torch

    return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0


def _clean() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
