"""The head of a LoRA file: tensor shapes and metadata, read without the tensors."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ModelError, UsageError

LONGEST = 100 * 2**20  # of a header, as the safetensors format bounds it
PEFT, PEFT_FILE, PEFT_PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
ADAPTER = "lora_adapter_metadata"  # where diffusers keeps the PEFT settings, as JSON
TRIGGERS = ("modelspec.trigger_phrase", "trigger_words", "trigger_word", "trigger_phrase", "instance_prompt")
# Types of alpha: how one is unpacked, and the bytes before it; bf16 is the upper half of fp32.
NUMBERS = {"F64": ("<d", b""), "F32": ("<f", b""), "F16": ("<e", b""), "BF16": ("<f", b"\0\0"), "I64": ("<q", b"")}
BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "I64": 64, "I32": 32, "I16": 16, "I8": 8,
    "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
DENOISERS = ("transformer", "transformer_2", "unet")  # names before PEFT settings in the metadata that diffusers writes
LONGEST_NAME = 100  # characters of a file's own words in a message


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file, unread."""

    dtype: str
    shape: tuple[int, ...]
    start: int = 0  # in the file


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    settings: Mapping[str, Any]  # what PEFT was told: r, lora_alpha, use_rslora, ..., of the denoiser alone


def read(path: Path) -> Header:
    """Read the header of a safetensors file. Raises ModelError, or UsageError for a file of another kind."""
    if path.suffix.lower() in PICKLED:
        raise _refused(f"{path}: is pickled, and reading it could run code; convert it to safetensors")
    try:
        if path.exists() and not path.is_file():  # a pipe would never end
            raise _refused(f"{path}: is no regular file")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if 2 <= length <= LONGEST else b""
        size = path.stat().st_size
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror or error}"
        raise ModelError(message, code="lora_file_not_found", param="lora_path") from error
    try:
        head = json.loads(text)
        metadata = {str(key): str(value) for key, value in head.pop("__metadata__", {}).items()}
        tensors = {
            key: Tensor(value["dtype"], tuple(value["shape"]), 8 + length + value["data_offsets"][0])
            for key, value in head.items()
        }
        ends = [8 + length + value["data_offsets"][1] for value in head.values()]
        whole = max(ends, default=8 + length) == size and _fit(list(tensors.values()), ends, 8 + length)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise _refused(f"{path}: is no safetensors file; LoRA files of other formats are not read") from error
    if not whole:
        raise _refused(f"{path}: is cut off or damaged; download it again")
    return Header(tensors, metadata, settings(metadata, beside(path, tensors)))


def _fit(tensors: list[Tensor], ends: list[int], start: int) -> bool:
    """Say whether tensors have as many bytes as their types and shapes say, and lie one after another."""
    for tensor, end in sorted(zip(tensors, ends, strict=True), key=lambda entry: (entry[0].start, entry[1])):
        bits = BITS.get(tensor.dtype)
        if not all(isinstance(number, int) and number >= 0 for number in (*tensor.shape, tensor.start, end)):
            return False
        if tensor.start != start:
            return False
        if bits is not None and bits * math.prod(tensor.shape) != 8 * (end - start):
            return False
        start = end
    return True


def scalars(path: Path, tensors: Mapping[str, Tensor]) -> set[float]:
    """Return the values of tensors of one number each; those of unusual types, and what is not finite, are left out."""
    values = set[float]()
    with path.open("rb") as file:
        for tensor in tensors.values():
            if tensor.dtype in NUMBERS and tensor.shape in ((), (1,)):
                form, padding = NUMBERS[tensor.dtype]
                file.seek(tensor.start)
                values.add(float(struct.unpack(form, padding + file.read(struct.calcsize(form) - len(padding)))[0]))
    return {value for value in values if math.isfinite(value)}


def beside(path: Path, names: Iterable[str]) -> Path | None:
    """Return where the settings of a file of PEFT are; those beside any other file are not its own."""
    is_peft = path.name == PEFT_FILE or any(name.startswith(PEFT_PREFIX) for name in names)
    return path.parent / PEFT if is_peft else None


def settings(metadata: Mapping[str, str], place: Path | None = None, target: str = "transformer") -> dict[str, Any]:
    """Return the PEFT settings of a component: from the file's own metadata, else from the JSON at a place.

    In the metadata they are named by component. A denoiser takes those of another one when it has none of its own.
    """
    found = _object(metadata.get(ADAPTER, ""))
    if not found and place is not None and place.is_file():
        return _object(place.read_text(encoding="utf-8", errors="replace"))
    others = () if target.startswith("text_encoder") else DENOISERS
    for name in (target, *others):
        own = {key.removeprefix(f"{name}."): value for key, value in found.items() if key.startswith(f"{name}.")}
        if own:
            return own
    return {key: value for key, value in found.items() if "." not in key} if others else {}


def printable(text: str, longest: int = LONGEST_NAME) -> str:
    """Return a file's own words so that they do nothing to a terminal or log, and do not fill it."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[: longest + 1])
    return shown if len(shown) <= longest else shown[: longest - 3] + "..."


def triggers(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the words that, as the file says, a prompt should hold."""
    texts = (metadata.get(name, "").strip() for name in TRIGGERS)
    text = next((text for text in texts if text), "")
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        words = text.split(",")
    words = words if isinstance(words, list) else [words]
    return tuple(dict.fromkeys(word for word in (str(word).strip() for word in words) if word))


def tags(metadata: Mapping[str, str], most: int = 5) -> tuple[str, ...]:
    """Return the words that kohya's trainer met most often in the captions."""
    counts = Counter[str]()
    for folder in _object(metadata.get("ss_tag_frequency", "")).values():
        if isinstance(folder, dict):
            counts.update({str(tag).strip(): n for tag, n in folder.items() if isinstance(n, int)})
    return tuple(tag for tag, _ in counts.most_common(most))


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _refused(message: str) -> UsageError:
    return UsageError(message, code="lora_incompatible", param="lora_path")
