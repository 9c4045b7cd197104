"""Components with random weights at the size that a config says, and tokenizers where a folder has none."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights

from engine.models.tiny import glm_image, parts

SPREAD = 0.02
LARGEST_INPUT = 2048 * 2048
# Ids in the configs of encoders that see pictures, and the tokens of the stand-ins that they mean.
MARKS = {
    "image_token_id": ("<|image_pad|>", glm_image.IMAGE),
    "image_start_token_id": (glm_image.IMAGE_START,),
    "image_end_token_id": (glm_image.IMAGE_END,),
    "video_token_id": ("<|video_pad|>",),
    "vision_start_token_id": ("<|vision_start|>",),
    "vision_end_token_id": ("<|vision_end|>",),
}


def config_of(cls: Any, folder: Path) -> Any:
    """Return the config of a component's folder: a mapping for a class of diffusers, else an object."""
    if _is_diffusers(cls):
        return cls.load_config(folder, local_files_only=True)
    return cls.config_class.from_pretrained(folder, local_files_only=True)


def skeleton(cls: Any, config: Any, dtype: torch.dtype) -> torch.nn.Module:
    """Build a module whose parameters take no memory; its buffers are computed, on the CPU.

    Some families keep tables in buffers that are not saved, or in plain attributes: these must be real from the start.
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with init_empty_weights(include_buffers=False):
            module: torch.nn.Module = cls.from_config(config) if _is_diffusers(cls) else cls(config)
    finally:
        torch.set_default_dtype(default)
    if not _is_diffusers(cls):
        module.tie_weights()  # type: ignore[operator]
    return module


def fill(module: torch.nn.Module, dtype: torch.dtype, place: torch.device, draw_on: torch.device) -> None:
    """Give the parameters of a skeleton random values on `place`; the same name always gets the same ones.

    They are drawn on `draw_on`, one at a time, so that where a component lives does not change its weights. Weights
    are N(0, 0.02); norms and biases are the identity, so that no activation overflows.
    """
    kept = _in_fp32(module, dtype)
    done: dict[int, torch.nn.Parameter] = {}
    for prefix, part in module.named_modules():
        for name, empty in part._parameters.items():
            if empty is None:
                continue
            full = f"{prefix}.{name}" if prefix else name
            if id(empty) not in done:
                of = torch.float32 if kept & set(full.split(".")) else dtype
                done[id(empty)] = torch.nn.Parameter(_draw(full, empty, of, draw_on).to(place), requires_grad=False)
            part._parameters[name] = done[id(empty)]
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else buffer.to(place)


def _draw(name: str, empty: torch.Tensor, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    norm = name.endswith("gamma") or (empty.ndim < 2 and name.endswith("weight"))
    if norm or empty.ndim < 2:
        return torch.full(empty.shape, float(norm), dtype=dtype, device=device)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    generator = torch.Generator(device).manual_seed(seed)
    return torch.empty(empty.shape, dtype=dtype, device=device).normal_(0.0, SPREAD, generator=generator)


def _in_fp32(module: torch.nn.Module, dtype: torch.dtype) -> set[str]:
    """Return the names of the parts that the module's own library keeps in fp32 when it loads weights in `dtype`."""
    if dtype == torch.float32:
        return set()
    kept = getattr(module, "_keep_in_fp32_modules", None) or ()
    if _is_diffusers(type(module)):
        return set(kept)
    strict = getattr(module, "_keep_in_fp32_modules_strict", None) or ()
    return {*strict, *(kept if dtype == torch.float16 else ())}


def _is_diffusers(cls: Any) -> bool:
    return hasattr(cls, "load_config")


def stand_in(class_name: str) -> Any:
    """Return a tokenizer, or a processor with one, for a folder that has no vocabulary; None if there is none."""
    if class_name.startswith("CLIPTokenizer"):
        return parts.clip_tokenizer()
    if class_name.startswith("ByT5Tokenizer"):
        from transformers import ByT5Tokenizer

        return ByT5Tokenizer()
    if class_name.startswith("T5Tokenizer"):
        return parts.t5_tokenizer()
    if class_name.startswith("LlamaTokenizer"):
        return parts.qwen_tokenizer((*parts.QWEN_MARKS, *parts.LLAMA_MARKS))
    if class_name.startswith(("Qwen2Tokenizer", "PixtralProcessor", "AutoTokenizer")):
        return parts.qwen_tokenizer()
    if class_name == "GlmImageProcessor":
        return glm_image.processor(LARGEST_INPUT)
    return None


def match(config: Any, tokenizer: Any) -> None:
    """Set those ids in an encoder's config that must be the stand-in's: marks, and the end that CLIP looks for."""
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    known = tokenizer.get_vocab()
    for key, marks in MARKS.items():
        for mark in marks:
            if hasattr(config, key) and mark in known:
                setattr(config, key, known[mark])
    if config.model_type == "clip_text_model":
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(config, key, getattr(tokenizer, key))


def tokenizer_of(encoder: str) -> str:
    """Return the name of the component that tokenizes for an encoder."""
    return "processor" if encoder == "vision_language_encoder" else encoder.replace("text_encoder", "tokenizer")
