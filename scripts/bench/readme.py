"""Writes the tables of README.md from the stored results; `--check` only says whether they are current."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
README, RESULTS = ROOT / "README.md", Path(__file__).parent / "results"


def _row(label: str, spread: Mapping[str, float]) -> str:
    return f"| {label} | {spread['median_s']:.2f} s | {spread['min_s']:.2f} s | {spread['max_s']:.2f} s |"


def first_picture(result: Mapping[str, Any]) -> list[str]:
    """The bundled models on a CPU."""
    versions = result["versions"]
    made = f"{result['date']}, {result['cpu']}, torch {versions['torch']}, diffusers {versions['diffusers']}"
    return [
        f"| tiny-scenes, 256x256, {result['cpu_cores']} cores, fp32 | median | least | largest |",
        "| --- | --- | --- | --- |",
        _row("from typing the command to the file", result["from_typing"]),
        _row("warm", result["warm"]),
        _row("stock diffusers, warm, taking turns with ours", result["stock_diffusers_warm"]),
        _row("tiny-motion, 33 frames of 192x128, from typing the command to the file", result["clip_from_typing"]),
        "",
        f"Peak memory {result['peak_memory_mb']} MB for a picture, {result['clip_peak_memory_mb']} for a clip. {made}.",
    ]


def offload(result: Mapping[str, Any]) -> list[str]:
    """FLUX.1-dev with each kind of offload on a GPU."""
    versions, speed = result["versions"], result["host_to_device_gb_per_s"]
    made = f"{result['date']}, {result.get('gpu', result['cpu'])}, torch {versions['torch']}, diffusers"
    return [
        f"{Path(result['model']).name}, random weights of the real size; `scripts/bench/offload.py` measured:",
        "",
        "| weights | size | ms per step | over resident | peak GiB of a whole run | same pixels |",
        "| --- | --- | --- | --- | --- | --- |",
        *map(_offload_row, result["rows"]),
        "",
        f"Host to device: {speed} GB/s. {made} {versions['diffusers']}.",
    ]


def _offload_row(row: Mapping[str, Any]) -> str:
    label = "`, `".join(f"--{part}" for part in row["name"].split(", ")).join("``")
    start = f"| {'resident' if row['name'] == 'resident' else label} | {row['size']}x{row['size']} |"
    if "error" in row:
        return f"{start} failed | | | |"
    ratio, peak = f"{row['over_resident']:.2f}" if "over_resident" in row else "", str(row.get("peak_gib", ""))
    peak += f" ({row['limit_gb']:.0f} GB given)" if "limit_gb" in row else ""
    return f"{start} {row['ms_per_step']:.0f} | {ratio} | {peak} | {'yes' if row['same_pixels'] else 'no'} |"


def encode_video(result: Mapping[str, Any]) -> list[str]:
    """A clip to mp4, beside diffusers' way."""
    made = f"{result['date']}, {result['cpu']}, diffusers {result['versions']['diffusers']}"
    shape = f"{result['frames']} frames, {result['width']}x{result['height']}, {result['cpu_cores']} cores"
    rows = {"ours": "ours", "diffusers": "`export_to_video`, taking turns with ours"}
    return [
        f"| {shape} | median | least | largest | kB | PSNR |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"{_row(label, side)} {side['kilobytes']} | {side['psnr_db']} dB |"
            for name, label in rows.items()
            for side in (result[name],)
        ),
        "",
        f"{made}.",
    ]


def load(result: Mapping[str, Any]) -> list[str]:
    """From a folder to weights on a GPU, beside stock diffusers."""
    versions, device = result["versions"], result.get("gpu", result["cpu"])
    labels = {"ours": "ours", "stock": '`from_pretrained(dtype=bfloat16).to("cuda")`, taking turns with ours'}
    return [
        f"A model of {result['model_gb']:.1f} GB; `scripts/bench/load.py` measured:",
        "",
        "| folder to device | median | least | largest | with imports | peak host MB | of them no file |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"{_row(f'{label}, {heat}', side['loaded'])} {side['with_imports']['median_s']:.2f} s |"
            f" {side['peak_rss_mb']} | {side['peak_own_mb']} |"
            for heat in ("warm", "cold")
            for way, label in labels.items()
            for side in ([result[f"{way}_{heat}"]] if f"{way}_{heat}" in result else [])
        ),
        "",
        f"{result['date']}, {device}, torch {versions['torch']}, diffusers {versions['diffusers']}.",
    ]


def models(result: Mapping[str, Any]) -> list[str]:
    """Every model at its real size."""
    versions, device = result["versions"], result.get("gpu", result["cpu"])
    return [
        f"Random weights, real sizes, default requests, {result['steps']} steps; `scripts/bench/models.py` measured:",
        "",
        "| model | output | peak GiB | encode s | s per step | decode s |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_model_row(row) for row in result["rows"]),
        "",
        f"{result['date']}, {device}, torch {versions['torch']}, diffusers {versions['diffusers']}.",
    ]


def _model_row(row: Mapping[str, Any]) -> str:
    name = row["model"].rsplit("/", 1)[-1]
    if "error" in row:
        return f"| {name} | failed | | | | |"
    frames, height, width, _ = row["shape"]
    output = f"{width}x{height}" + (f", {frames} frames" if frames > 1 else "")
    seconds = (f"{row[key] / 1000:.2f}" for key in ("encode_ms", "step_ms", "decode_ms"))
    return f"| {name} | {output} | {row['peak_gib']:.1f} | {' | '.join(seconds)} |"


def catalog() -> list[str]:
    """Every model that is known; this one is read off the catalog, not off a result."""
    from engine.catalog import MODELS, ModelSpec

    def row(spec: ModelSpec) -> str:
        size = f"{spec.defaults['width']}x{spec.defaults['height']}"
        clip = f", {spec.defaults['num_frames']} frames at {spec.defaults['fps']}/s" if spec.is_video else ""
        tasks = ", ".join((*spec.tasks, *spec.features))
        how = "stock pipeline" if spec.family == "passthrough" else f"`{spec.family}.py`"
        return f"| {spec.id} | {tasks} | {size}{clip} | {spec.defaults['num_inference_steps']} | {how} |"

    head = ["| model | tasks | default output | steps | runs through |", "| --- | --- | --- | --- | --- |"]
    return head + [row(spec) for spec in MODELS]


def lora(result: Mapping[str, Any]) -> list[str]:
    """Switching LoRAs on a GPU, beside diffusers."""
    versions, device = result["versions"], result.get("gpu", result["cpu"])
    size = f"{Path(result['model']).name}, {result['parameters'] / 1e9:.1f} billion parameters, random"
    what = f"two adapters of rank {result['rank']} on its {result['layers']} linear layers, {result['adapter_gib']} GiB"
    return [
        f"{size}; {what} each; `scripts/bench/lora.py` measured:",
        "",
        "| | first set | switch, warm | unmerge | copies of weights, GiB | bytes restored |",
        "| --- | --- | --- | --- | --- | --- |",
        *map(_lora_row, result["rows"]),
        "",
        f"{result['date']}, {device}, torch {versions['torch']}, diffusers {versions['diffusers']}.",
    ]


def _lora_row(row: Mapping[str, Any]) -> str:
    name = "diffusers: `unfuse_lora`, `fuse_lora`" if row["name"] == "diffusers" else row["name"]
    if "error" in row:
        return f"| {name} | failed | | | | |"
    copies = ", ".join(f"{size} ({place})" for place, size in row.get("copies_gib", {}).items()) or "none"
    exact = "yes" if row["exact"] else f"no, off by up to {row['largest_residue']:.1g}"
    seconds = (f"{row[key]['median_s']:.2f} s" for key in ("switch", "unmerge"))
    return f"| {name} | {row['cold_s']:.2f} s | {' | '.join(seconds)} | {copies} | {exact} |"


def serve(result: Mapping[str, Any]) -> list[str]:
    """What the server adds to the engine."""
    made = f"{result['date']}, {result['cpu']}"
    names = {
        "as_fast_as_it_goes": f"{result['connections']} connections, as fast as it goes",
        "at_a_pace": f"the same, {result['rate']:.0f} requests due a second",
    }

    def row(label: str, rounds: list[Mapping[str, Any]]) -> str:
        middle = {name: sorted(entry[name] for entry in rounds)[len(rounds) // 2] for name in COLUMNS}
        return f"| {label} | " + " | ".join(f"{middle[name]:g}" for name in COLUMNS) + " |"

    return [
        f"| 64x64 PNG, {result['cpu_cores']} cores for all | per second | p50 ms | without engine | server CPU ms |",
        "| --- | --- | --- | --- | --- |",
        *(row(label, result[name]) for name, label in names.items()),
        "",
        f"One connection alone: {result['one_connection']['above_engine_p50_ms']:g} ms above the engine. {made}.",
    ]


COLUMNS = ("per_second", "latency_p50_ms", "above_engine_p50_ms", "server_cpu_ms")
TABLES = {
    "serve": serve,
    "lora": lora,
    "first_picture": first_picture,
    "encode_video": encode_video,
    "offload": offload,
    "load": load,
    "models": models,
}


def current(text: str) -> str:
    """Return the README with every table made from its result."""
    text = _filled(text, "catalog", catalog())
    for name, table in TABLES.items():
        stored = RESULTS / f"{name}.json"
        if stored.exists():  # otherwise measured on a machine that has not been at hand yet
            text = _filled(text, name, table(json.loads(stored.read_text(encoding="utf-8"))))
    return text


def _filled(text: str, name: str, lines: list[str]) -> str:
    block = "\n".join([f"<!-- {name} -->", *lines, f"<!-- /{name} -->"])
    pattern = rf"<!-- {name} -->.*?<!-- /{name} -->"
    assert re.search(pattern, text, re.DOTALL), f"README.md has no place for {name}"
    return re.sub(pattern, lambda _: block, text, flags=re.DOTALL)


def main() -> int:
    """Write the tables, or check them."""
    text = README.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        return int(current(text) != text)
    README.write_text(current(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
