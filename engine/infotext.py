"""Infotext, the settings text of AUTOMATIC1111, Forge and others: read into request fields."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from engine.schema import whole

NEGATIVE = "Negative prompt:"
# A name, a colon, a value that is quoted or ends at the next comma.
PAIR = re.compile(r'\s*(\w[\w /.\-]{0,60}):\s*("(?:\\.|[^\\"])*"(?=\s*(?:,|$))|[^,]*)(?:,|$)')
LORA = re.compile(r"\s*<(?:lora|lyco):([^:<>]{1,200})(?::([-+.\d]{1,20}))?[^<>]{0,200}>")
LEAST = 3  # settings on a line that is no part of the prompt, unless it begins as usual
SIZE = re.compile(r"\s*(\d{1,6})\s*[x×*]\s*(\d{1,6})\s*")
FIELDS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "Steps": ("num_inference_steps", whole),
    "CFG scale": ("guidance_scale", float),
    "Seed": ("seed", whole),
    "Denoising strength": ("strength", float),
}
SILENT = ("Model hash", "Version", "Lora hashes", "TI hashes", "Hashes", "VAE hash")  # they ask for nothing


def parse(text: str) -> tuple[dict[str, Any], str | None, list[str], list[tuple[str, float]]] | None:
    """Return the request fields, the model, what is left over, and the LoRAs; None when a text is no infotext."""
    lines = text.strip().splitlines()
    settings = _settings(lines[-1]) if lines else {}
    negative = next((i for i, line in enumerate(lines) if line.startswith(NEGATIVE)), None)
    if not settings and negative is None:
        return None
    lines = lines[:-1] if settings else lines
    end = len(lines) if negative is None else negative
    fields, ignored = _fields(settings)
    prompt, loras = _loras("\n".join(lines[:end]).strip())
    fields["prompt"] = prompt
    if negative is not None:
        fields["negative_prompt"] = "\n".join(lines[end:]).removeprefix(NEGATIVE).strip()
    return fields, settings.get("Model"), ignored, loras


def _settings(line: str) -> dict[str, str]:
    """Return the settings of the last line, or nothing when it is a part of the prompt."""
    pairs, place = dict[str, str](), 0
    while found := PAIR.match(line, place):
        pairs.setdefault(found[1].strip(), _unquoted(found[2].strip()))
        place = found.end()
        if place == len(line):
            break
    whole = not line[place:].strip()
    return pairs if "Steps" in pairs or (whole and len(pairs) >= LEAST) else {}


def _unquoted(text: str) -> str:
    if not text.startswith('"'):
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        return text.strip('"')


def _fields(settings: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    fields, ignored = dict[str, Any](), list[str]()
    for name, value in settings.items():
        size = SIZE.fullmatch(value) if name == "Size" else None
        try:
            if size is not None:
                fields |= {"width": int(size[1]), "height": int(size[2])}
            elif name in FIELDS:
                field, kind = FIELDS[name]
                fields[field] = kind(value)
            elif name not in (*SILENT, "Model", "Distilled CFG Scale"):
                ignored.append(f"{name}: {value}")
        except ValueError:
            ignored.append(f"{name}: {value}")
    try:
        distilled = float(settings["Distilled CFG Scale"])
    except (KeyError, ValueError):
        return fields, ignored
    # Of a model that embeds its guidance, "CFG scale" is the true one.
    if "guidance_scale" in fields:
        fields["true_cfg_scale"] = fields["guidance_scale"]
    return {**fields, "guidance_scale": distilled}, ignored


def _loras(prompt: str) -> tuple[str, list[tuple[str, float]]]:
    """Take `<lora:name:strength>` out of a prompt."""
    found = list[tuple[str, float]]()
    for name, strength in LORA.findall(prompt):
        try:
            found.append((name, float(strength or 1)))
        except ValueError:
            found.append((name, 1.0))
    return LORA.sub("", prompt).strip(), found
