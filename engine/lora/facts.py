"""What a LoRA file tells of itself without its tensors: layout, ranks, layers, trigger words, a guess at its model."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import ModelError, UsageError
from engine.lora import header, keys
from engine.lora.header import Header
from engine.lora.keys import Key

# The first that the name of any module fits; what only one model has comes before what several share.
GUESSES = {
    "FLUX.2": r"(double|single)_stream_modulation|to_qkv_mlp_proj|\bff(_context)?[._]linear_(in|out)",
    "HunyuanVideo": r"double_blocks\.\d+\.(img|txt)_attn_qkv|(img|txt)_mlp[._]fc1|token_refiner",
    "Qwen-Image": r"transformer_blocks[._]\d+[._](img|txt)_(mlp|mod)",
    "Stable Diffusion 3": r"joint_blocks",
    "Z-Image": r"(layers|noise_refiner|context_refiner)[._]\d+[._](attention|feed_forward|adaLN_modulation)",
    "FLUX.1": r"single_transformer_blocks|(double|single)_blocks",
    "Stable Diffusion XL or 1.5": r"(input|output|down|up)_blocks|mid(dle)?_block",
    "GLM-Image": r"transformer_blocks[._]\d+[._]attn1",
    "Wan": r"(self_attn|cross_attn)[._](q|k|v|o)(_img)?\b|blocks[._]\d+[._]attn[12]",
    "FLUX.1, Qwen-Image or Stable Diffusion 3": r"transformer_blocks[._]\d+[._]attn[._]",
}
SAID = ("base_model", "modelspec.architecture", "ss_base_model_version")
NAMED = ("name", "modelspec.title", "ss_output_name")


def facts(path: Path, digest: bool = True) -> dict[str, Any]:
    """Return what a file tells as plain values, its hash only if asked for, because that reads all of it.

    Raises ModelError, or UsageError for a file that is no LoRA.
    """
    head = header.read(path)
    found = {key: parsed for key in head.tensors if (parsed := keys.parse(key)) is not None}
    kind = keys.other_kind(head.tensors)
    if not found and kind is None:
        message = f"{path}: holds weights of a model, not of a LoRA"
        raise UsageError(message, code="lora_incompatible", param="lora_path")
    parts = Counter(key.part for key in found.values())
    modules = [key.module for key in found.values()]
    ranks = {head.tensors[key].shape[0] for key, one in found.items() if one.part == "down" and head.tensors[key].shape}
    return {
        "file": str(path),
        "name": _said(head.metadata, NAMED),
        "kind": kind or "LoRA",
        "layout": keys.layout(head.tensors),
        "ranks": sorted(ranks),
        "alphas": _alphas(path, head, found),
        "rank_stabilized": head.settings.get("use_rslora") is True,
        "layers": parts["down"],
        "full_differences": parts["diff"],
        "bias_differences": parts["diff_b"] + parts["up_bias"],
        "targets": targets(modules),
        "components": dict(Counter(keys.owner(key) or "denoiser" for key in head.tensors)),
        "dtypes": dict(Counter(tensor.dtype for tensor in head.tensors.values())),
        "bytes": path.stat().st_size,
        "sha256": sha256(path) if digest else None,
        "trigger_words": list(header.triggers(head.metadata)),
        "training_tags": list(header.tags(head.metadata)),
        "base_model": _said(head.metadata, SAID),
        "looks_like": guess(modules),
        "metadata": dict(head.metadata),
    }


def sha256(path: Path) -> str:
    """Return the hash of a file. Raises ModelError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror or error}"
        raise ModelError(message, code="lora_file_not_found", param="lora_path") from error


def targets(modules: Iterable[str]) -> dict[str, int]:
    """Return how many modules there are of each kind; numbers of blocks are left out."""
    kinds = Counter(re.sub(r"(?<=[._])\d+(?=[._])", "*", module) for module in set(modules))
    return dict(sorted(kinds.items()))


def guess(modules: Iterable[str]) -> str | None:
    """Return for which model the names of modules look; None when they tell nothing."""
    text = "\n".join(module for module in modules if keys.owner(module) not in keys.TEXT_ENCODERS)
    return next((model for model, form in GUESSES.items() if re.search(form, text)), None)


def _said(metadata: Mapping[str, str], names: Iterable[str]) -> str | None:
    return next((metadata[name] for name in names if metadata.get(name)), None)


def _alphas(path: Path, head: Header, found: Mapping[str, Key]) -> list[float]:
    """Return the alphas in the file, else that of its settings; nothing stands for alpha = rank."""
    layers = {key: head.tensors[key] for key, parsed in found.items() if parsed.part == "alpha"}
    values = header.scalars(path, layers)
    value = head.settings.get("lora_alpha")
    return sorted(values) or ([float(value)] if isinstance(value, int | float) and math.isfinite(value) else [])
