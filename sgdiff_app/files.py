"""Reading a config file: JSON or YAML by suffix, strict, with line and column in every complaint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import UsageError, listed

SUFFIXES = (".json", ".yaml", ".yml")


def read(path: str, where: str = "--config") -> Mapping[str, Any]:
    """Return the mapping in a file. Raises UsageError when it is missing, of another kind, or cannot be read."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{where}: {path}: the name must end in one of {listed(SUFFIXES)}")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"{where}: {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"{where}: {path}: cannot be read: {reason}") from error
    value = _json(path, text) if suffix == ".json" else _yaml(path, text)
    if value is None and suffix != ".json":
        return {}
    if not isinstance(value, Mapping):
        raise UsageError(f"{path}: the top level must be a mapping, got a {_noun(value)}")
    return value


def _noun(value: Any) -> str:
    if isinstance(value, list):
        return "list"
    return "text" if isinstance(value, str) else type(value).__name__


def _json(path: str, text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for key, _ in pairs:
            if sum(name == key for name, _ in pairs) > 1:
                raise UsageError(f"{path}: {key}: given twice")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}: line {error.lineno} column {error.colno}: {error.msg}") from error


def _yaml(path: str, text: str) -> Any:
    import yaml  # only when a YAML file is read

    class Loader(yaml.SafeLoader):
        """The safe loader, and a key may stand once."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys: list[str] = []
            for key, _ in node.value:
                if key.value in keys:
                    line, column = key.start_mark.line + 1, key.start_mark.column + 1
                    raise UsageError(f"{path}: line {line} column {column}: {key.value}: given twice")
                keys.append(key.value)
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1} column {mark.column + 1}: " if mark else ""
        raise UsageError(f"{path}: {place}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: {error}") from error
