"""The command line: words into a layer of settings, with the spelling rules of the contract."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import UsageError
from sgdiff_app import values
from sgdiff_app.layers import Layer
from sgdiff_app.options import SHORTHANDS, BenchOptions, ServerOptions
from sgdiff_app.settings import COMPONENT_MAPS, Target, find, used_by

LETTERS = {entry.letter: name for name, entry in SHORTHANDS.items() if entry.letter}


@dataclass(frozen=True, slots=True)
class _Given:
    """A flag as typed; `words` are those of all its occurrences where it is a list."""

    target: Target
    where: str
    words: tuple[str, ...]


def parse(argv: Sequence[str], command: str) -> Layer:
    """Return the settings typed on a command line.

    Raises UsageError for an unknown flag, a missing or malformed value, and a flag that belongs to another command.
    """
    given: dict[tuple[object, ...], _Given] = {}
    words = deque(argv)
    while words:
        flag, equals, inline = words.popleft().partition("=")
        target, negated = _target(flag)
        _require_use(command, target, flag)
        texts = ("false",) if negated else (inline,) if equals else _take(target, flag, words)
        if negated and equals:
            raise UsageError(f"{flag}: takes no value")
        # Only a list collects the words of its occurrences; the last scalar wins; maps merge key by key.
        kind = target.field.kind if target.field and not target.shorthand else None
        key = (len(given),) if kind in ("map", "group") else (target.path, target.rank, target.shorthand is None)
        earlier = given.pop(key, None)
        if earlier is not None and target.path == ("config",):
            raise UsageError(f"{flag}: may be given once", param="config")
        if earlier is not None and kind == "list":
            texts = (*earlier.words, *texts)
        given[key] = _Given(target, flag, texts)
    layer = Layer("cli")
    for entry in sorted(given.values(), key=lambda item: item.target.rank):
        put(layer, entry.target, entry.words, entry.where)
    return layer


def pick(argv: Sequence[str], names: Sequence[str]) -> Layer:
    """Return some settings of a command line that may be wrong: what cannot be read is passed over.

    Values never start with a dash, so a flag is found whatever stands before it.
    """
    layer, words = Layer("cli"), deque(argv)
    while words:
        flag, equals, inline = words.popleft().partition("=")
        try:
            target, negated = _target(flag)
            if target.setting.name in names:
                texts = ("false",) if negated else (inline,) if equals else _take(target, flag, words)
                put(layer, target, texts, flag)
        except UsageError:
            continue
    return layer


def needs_value(word: str) -> bool:
    """Say whether a word is a flag whose value has to follow."""
    try:
        return "=" not in word and not _is_switch(_target(word)[0])
    except UsageError:
        return False


def put(layer: Layer, target: Target, texts: Sequence[str], where: str) -> None:
    """Add what the words of a flag, or the text of a variable, stand for."""
    if target.shorthand is not None:
        on = values.boolean(texts[-1], where)
        layer.add(target, target.shorthand.on if on else target.shorthand.off, where)
    elif target.setting.name in COMPONENT_MAPS and len(target.path) > 1:
        layer.add(target, texts[-1], where)
    else:
        layer.add(target, values.from_texts(target.field, texts, where), where)


def _target(flag: str) -> tuple[Target, bool]:
    """Return what a flag stands for, and whether it is the `--no-` form of a switch."""
    if flag[1:] in LETTERS:
        return find(LETTERS[flag[1:]], flag, "flag"), False
    if not flag.startswith("-"):
        raise UsageError(f"unexpected argument '{flag}'; settings are flags, as in --prompt '{flag}'")
    if not flag.startswith("--"):
        raise UsageError(f"{flag}: unknown flag; flags have two dashes, but for {', '.join('-' + x for x in LETTERS)}")
    name = flag[2:]
    if name[:3] in ("no-", "no_"):
        try:
            target = find(name[3:], flag, "flag")
        except UsageError:
            return find(name, flag, "flag"), False
        if _is_switch(target):
            return target, True
        raise UsageError(f"{flag}: only switches have a --no- form")
    return find(name, flag, "flag"), False


def _is_switch(target: Target) -> bool:
    return target.shorthand is not None or (target.field is not None and target.field.kind == "bool")


def _is_flag(word: str) -> bool:
    if not word.startswith("-") or word == "-":
        return False
    try:
        float(word)
    except ValueError:
        return True
    return False


def _take(target: Target, flag: str, words: deque[str]) -> tuple[str, ...]:
    """Take the words of a flag off the front of the line."""
    if _is_switch(target):
        return (words.popleft(),) if words and not _is_flag(words[0]) else ("true",)
    many = target.field is not None and target.field.kind == "list"
    taken: list[str] = []
    while words and not _is_flag(words[0]) and (many or not taken):
        taken.append(words.popleft())
    if not taken:
        hint = f"; a value that starts with '-' is written {flag}={words[0]}" if words else ""
        raise UsageError(f"{flag}: needs a value{hint}")
    return tuple(taken)


def _require_use(command: str, target: Target, flag: str) -> None:
    """Refuse flags of another command; `generate` accepts the server's and ignores them."""
    if used_by(command, target.setting) or (
        command in ("generate", "bench") and ServerOptions in target.setting.owners
    ):
        return
    home = "bench" if BenchOptions in target.setting.owners else "generate"
    raise UsageError(f"{flag}: a flag of '{home}', not of '{command}'", code="unknown_parameter")
