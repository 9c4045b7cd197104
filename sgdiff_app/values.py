"""Text and file values into plain data: truth words, numbers, lists, JSON text or the path of a file with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.env import FALSE, TRUE
from engine.errors import UsageError, listed
from engine.schema import Field, Kind, whole
from sgdiff_app import files

COMMA_LISTS = ("lora_target_modules",)
PAIRS = ("attention_backend_config",)  # maps that may be written k=v,k=v


def from_texts(field: Field | None, texts: Sequence[str], where: str) -> Any:
    """Return the value that words of a command line, or the text of a variable, stand for.

    A number that cannot be read stays text, so that the check of the field says what it must be. A key of a free map
    takes JSON where the text is JSON.
    """
    if field is None:
        return _free(texts[-1], where)
    if field.kind == "list":
        words = [part for text in texts for part in _split(field, text)]
        items = [_scalar(field.item, word, where) for word in words]
        return items[0] if len(items) == 1 and len(texts) == 1 else items
    if field.kind in ("map", "group"):
        return mapping(field, texts[-1], where)
    return _scalar(field.kind, texts[-1], where)


def from_file(field: Field | None, value: Any, where: str) -> Any:
    """Return a value of a config file as the check of the field expects it."""
    if field is None or not isinstance(value, str):
        return value
    if field.kind == "bool" and value.lower() in ("true", "false"):
        return switch(value, where)
    if field.kind in ("map", "group"):
        return mapping(field, value, where)
    if field.name in COMMA_LISTS:
        return _split(field, value)
    return value


def boolean(text: str, where: str) -> bool:
    """Read a truth word, in any case."""
    if text.lower() not in TRUE + FALSE:
        raise UsageError(f"{where}: must be one of {listed(TRUE + FALSE)}, got '{text}'")
    return text.lower() in TRUE


def switch(value: Any, where: str) -> bool:
    """Read a truth value of a config file."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise UsageError(f"{where}: must be true or false, got {json.dumps(value, default=str)}")
    return value


def mapping(field: Field, text: str, where: str) -> Mapping[str, Any]:
    """Read a map: JSON text, the path of a .json or .yaml file, or pairs where the field allows them."""
    if text.lstrip().startswith(("{", "[")):
        try:
            value = json.loads(text, object_pairs_hook=files.once(where), parse_int=whole)
        except json.JSONDecodeError as error:
            raise UsageError(f"{where}: not JSON: {error.msg} (line {error.lineno} column {error.colno})") from error
        except RecursionError:
            raise UsageError(f"{where}: nested too deeply") from None
        files.require_shallow(value, where)
        if not isinstance(value, Mapping):
            raise UsageError(f"{where}: must be a mapping, got {text}")
        return value
    if Path(text).suffix in files.SUFFIXES:
        return files.read(text, where)
    pairs = [pair.partition("=") for pair in text.split(",")]
    if field.name in PAIRS and all(sep and key for key, sep, _ in pairs):
        return {key.strip(): _free(value.strip(), where) for key, _, value in pairs}
    forms = "JSON, the path of a .json or .yaml file" + (", or k=v,k=v" if field.name in PAIRS else "")
    raise UsageError(f"{where}: must be {forms}, got '{text}'")


def _split(field: Field, text: str) -> list[str]:
    if field.item == "int" or field.name in COMMA_LISTS:
        return [part.strip() for part in text.split(",") if part.strip()] or [text]
    return [text]


def _scalar(kind: Kind, text: str, where: str) -> Any:
    if kind == "bool":
        return boolean(text, where)
    try:
        return {"int": int, "float": float}.get(kind, str)(text)
    except ValueError:
        return text


def _free(text: str, where: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    except RecursionError:
        raise UsageError(f"{where}: nested too deeply") from None
    files.require_shallow(value, where)
    return value
