"""Time and host memory until a model is on the device: ours beside stock diffusers, fresh processes taking turns.

    python3 scripts/bench/load.py
    .venv/bin/python scripts/bench/load.py --device cpu --model /tmp/tiny-flux --repetitions 1 --dry

A FLUX.1-dev-like model of about 10 GB is made of random weights first. The files are in the page cache for the warm
rows; for the cold ones they are thrown out of it, where the system lets a program do that.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
GB, MB = 1e9, 1e6
WAYS = ("ours", "stock")
# 1.0 B of T5 and 4.0 B of the transformer, in bf16: every part is there, each with fewer blocks than the published one.
BLOCKS = {"text_encoder_2": {"num_layers": 5}, "transformer": {"num_layers": 6, "num_single_layers": 13}}


def main() -> int:
    """Measure every way, or one of them in this process."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    arguments = _arguments()
    if arguments.one:
        print(json.dumps({"ours": ours, "stock": stock}[arguments.one](arguments.model, arguments.device)))
        return 0
    import common

    if not (arguments.model / "model_index.json").is_file():
        make(arguments.model, arguments.device)
    files = sorted(arguments.model.rglob("*.safetensors"))
    runs: dict[str, list[dict[str, Any]]] = {}
    for heat in ("warm", "cold"):
        for _ in range(arguments.repetitions):
            for way in WAYS:
                if heat == "warm" or _forget(files):
                    runs.setdefault(f"{way}_{heat}", []).append(_in_own_process(way, arguments))
                    print(way, heat, runs[f"{way}_{heat}"][-1], file=sys.stderr, flush=True)
    result = {"model_gb": round(sum(file.stat().st_size for file in files) / GB, 2), "device": arguments.device}
    result |= {name: _summary(entries) for name, entries in runs.items()}
    warm = [result[f"{way}_warm"]["loaded"]["median_s"] for way in WAYS]
    result["ours_over_stock"] = round(warm[0] / warm[1], 3)
    if arguments.dry:
        print(json.dumps(result, indent=2))
    else:
        common.store("load", result)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("/tmp/flux-10gb"), help="folder; made when it is not there")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="print the result, store nothing")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    return parser.parse_args()


def make(folder: Path, device: str) -> None:
    """Save FLUX.1-dev with fewer blocks, random weights in bf16, to `folder`."""
    import shutil

    import torch

    from engine import env, loader
    from engine.config import EngineConfig
    from engine.engine import spec_of
    from engine.models.base import assemble

    configs = folder.parent / f"{folder.name}-configs"
    shutil.copytree(ROOT / "assets/configs/FLUX.1-dev", configs, dirs_exist_ok=True)
    for component, values in BLOCKS.items():
        path = configs / component / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
    config = EngineConfig(model_path=str(configs), load_format="dummy", device=device)  # type: ignore[arg-type]
    source, spec = spec_of(config, env.read())
    components = loader.load(source, spec, config, torch.device(device))
    from diffusers import FluxPipeline

    assemble(FluxPipeline, components, {}).save_pretrained(folder, max_shard_size="5GB")


def _in_own_process(way: str, arguments: argparse.Namespace) -> dict[str, Any]:
    words = [sys.executable, __file__, "--one", way, "--model", str(arguments.model), "--device", arguments.device]
    started = time.perf_counter()
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "process_s": time.perf_counter() - started}


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    import common

    times = {name: common.spread([run[f"{name}_s"] for run in runs]) for name in ("loaded", "with_imports", "process")}
    memory = {name: round(max(run[name] for run in runs)) for name in ("peak_rss_mb", "peak_own_mb")}
    return {**times, **memory}


def _forget(files: list[Path]) -> bool:
    """Throw files out of the page cache; return whether the system has a call for it."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    return True


def ours(folder: Path, device: str) -> dict[str, Any]:
    """Load with the engine."""
    with Peak() as peak:
        start = time.perf_counter()
        import torch

        from engine import pipeline
        from engine.engine import Engine

        assert pipeline.pick_device(device).type == device
        _touch(device)
        imported = time.perf_counter()
        engine = Engine.from_pretrained(str(folder), device=device, dit_precision="bf16", vae_precision="bf16")
        _settle(torch, device)
        end = time.perf_counter()
    assert engine.executor is not None
    return {**peak.seen(), "loaded_s": end - imported, "with_imports_s": end - start}


def stock(folder: Path, device: str) -> dict[str, Any]:
    """Load with the stock pipeline, and move it."""
    with Peak() as peak:
        start = time.perf_counter()
        import torch
        from diffusers import FluxPipeline  # what DiffusionPipeline would import while it loads

        _touch(device)
        imported = time.perf_counter()
        assert FluxPipeline.from_pretrained(folder, dtype=torch.bfloat16).to(device)
        _settle(torch, device)
        end = time.perf_counter()
    return {**peak.seen(), "loaded_s": end - imported, "with_imports_s": end - start}


def _touch(device: str) -> None:
    """Start the driver and import the encoders, which is the same for both ways."""
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

    assert CLIPTextModel and CLIPTokenizer and T5EncoderModel and T5TokenizerFast
    torch.zeros(1, device=device)


def _settle(torch: Any, device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


class Peak:
    """The most host memory of this process, looked at twenty times a second, without what it had before."""

    def __enter__(self) -> Peak:
        self.most, self.stop = 0.0, threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def _look(self) -> None:
        while not self.stop.wait(0.05):
            self.most = max(self.most, _own_mb())

    def seen(self) -> dict[str, float]:
        """Peak resident size, with pages of mapped files, and peak of the memory that is the process's own."""
        return {
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB,
            "peak_own_mb": max(self.most, _own_mb()),
        }


def _own_mb() -> float:
    """Return resident memory that is no mapped file, in MB: what the system cannot take back."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return sum(float(lines.get(name, "0 kB").split()[0]) for name in ("RssAnon", "RssShmem")) * 1024 / MB


if __name__ == "__main__":
    sys.exit(main())
