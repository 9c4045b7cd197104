"""Components with random weights at the size that a config says, and tokenizers where a folder has none."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from engine import weights
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


def module(
    component: str, cls: Any, config: Any, dtype: torch.dtype, place: torch.device, draw_on: torch.device
) -> torch.nn.Module:
    """Build a component with random weights on `place`; a parameter of the same name always gets the same values.

    They are drawn on `draw_on`, one at a time, so that where a component lives does not change its weights. Weights
    are N(0, 0.02); norms and biases are the identity, so that no activation overflows.
    """
    built = weights.skeleton(cls, config, dtype)
    of = weights.dtypes(built, dtype)
    weights.fill(built, place, lambda name, empty: _draw(f"{component}.{name}", empty, of(name), draw_on).to(place))
    return built


def _draw(name: str, empty: torch.Tensor, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    norm = name.endswith("gamma") or (empty.ndim < 2 and name.endswith("weight"))
    if norm or empty.ndim < 2:
        return torch.full(empty.shape, float(norm), dtype=dtype, device=device)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    generator = torch.Generator(device).manual_seed(seed)
    return torch.empty(empty.shape, dtype=dtype, device=device).normal_(0.0, SPREAD, generator=generator)


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
