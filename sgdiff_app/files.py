"""Files that settings name: paths as typed, and config files, strict, with line and column in every complaint."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine import yaml_text
from engine.errors import UsageError, listed
from engine.schema import whole

SUFFIXES = (".json", ".yaml", ".yml")
DEPTH = 50  # of maps and lists inside each other; no setting needs a fifth of it


def place(text: str, where: str) -> Path:
    """Return the path that a setting names, with `~` replaced. Raises UsageError for what can be no path."""
    if "\0" in text:
        raise UsageError(f"{where}: must not contain a null character")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{where}: {text}: no such home folder") from error


def read(path: str, where: str = "--config") -> Mapping[str, Any]:
    """Return the mapping in a file. Raises UsageError when it is missing, of another kind, or cannot be read."""
    found = place(path, where)
    suffix = found.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{where}: {path}: the name must end in one of {listed(SUFFIXES)}")
    try:
        text = found.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"{where}: {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"{where}: {path}: cannot be read: {reason}") from error
    try:
        value = _json(path, text) if suffix == ".json" else _yaml(path, text)
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply") from None
    require_shallow(value, path)
    if value is None and suffix != ".json":
        return {}
    if not isinstance(value, Mapping):
        raise UsageError(f"{path}: the top level must be a mapping, got a {_noun(value)}")
    return value


def require_shallow(value: Any, where: str) -> None:
    """Raise UsageError for maps and lists too deep inside each other, or, by a YAML anchor, inside themselves."""
    inner: list[Any] = [value]
    for _ in range(DEPTH):
        level = {id(entry): entry for entry in inner if isinstance(entry, Mapping | list)}.values()
        if not level:
            return
        inner = [entry for outer in level for entry in (outer.values() if isinstance(outer, Mapping) else outer)]
    raise UsageError(f"{where}: nested too deeply")


def _noun(value: Any) -> str:
    if isinstance(value, list):
        return "list"
    return "text" if isinstance(value, str) else type(value).__name__


def once(where: str) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """Return what builds the objects of `json.loads`, and refuses a key that is given twice."""

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen = set[str]()
        for key, _ in pairs:
            if key in seen:
                raise UsageError(f"{where}: {key}: given twice")
            seen.add(key)
        return dict(pairs)

    return build


def _json(path: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=once(path), parse_int=whole)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}: line {error.lineno} column {error.colno}: {error.msg}") from error


def _yaml(path: str, text: str) -> Any:
    import yaml  # only when a YAML file is read
    from yaml.reader import ReaderError

    class Loader(yaml_text.loader()):  # type: ignore[misc]
        """The usual one, and a key may stand once."""

        def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
            keys: list[str] = []
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if key.value in keys:
                    line, column = key.start_mark.line + 1, key.start_mark.column + 1
                    raise UsageError(f"{path}: line {line} column {column}: {key.value}: given twice")
                keys.append(key.value)
            found: dict[Any, Any] = super().construct_mapping(node, deep)
            return found

    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        spot = f"line {mark.line + 1} column {mark.column + 1}: " if mark else ""
        raise UsageError(f"{path}: {spot}{error.problem or error.context}") from error
    except ReaderError as error:
        before = text[: error.position].split("\n")
        spot = f"line {len(before)} column {len(before[-1]) + 1}"
        raise UsageError(f"{path}: {spot}: a control character ({ord(text[error.position]):#04x})") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: {error}") from error
