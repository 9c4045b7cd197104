"""The help texts, made from the descriptions of the settings; no model library is imported for them."""

from __future__ import annotations

from collections.abc import Iterator

from engine import schema
from engine.errors import listed
from engine.schema import Field
from sgdiff_app.options import SHORTHANDS
from sgdiff_app.settings import Setting, table, used_by

LATER = "(not available yet)"
WIDTH = 34
VERBS = {"models": " [show ID | pull ID]", "lora": " [inspect FILE]"}
LAST = ("Server", "Benchmark", "Program")  # the other topics stand in the order of the tables


def page(command: str, summary: str) -> str:
    """Return the help of a command: its flags by topic."""
    lines = [
        f"sgdiff-app {command}: {summary}",
        "",
        f"usage: sgdiff-app {command}{VERBS.get(command, '')} [--flag value ...]",
    ]
    lines += ["", "A flag may also stand in a config file, or in the environment as SGDIFF_ and its name in capitals."]
    by_topic: dict[str, list[str]] = {}
    for setting in table().values():
        if used_by(command, setting):
            by_topic.setdefault(setting.field.opt.topic, []).extend(_lines(setting))
    for name, entry in SHORTHANDS.items():
        if used_by(command, table()[entry.target]):
            dashed = f"--{name}" + (f", -{entry.letter}" if entry.letter else "")
            target = table()[entry.target].field
            by_topic[entry.topic].append(_columns(dashed, f"= {target.flag} {entry.on}{_later(target, entry.on)}"))
    by_topic.setdefault("Program", []).append(_columns("--help, -h, --version", ""))
    for topic in sorted(by_topic, key=lambda topic: LAST.index(topic) if topic in LAST else -1):
        lines += ["", f"{topic}:", *by_topic[topic]]
    if command in ("generate", "bench"):
        lines += ["", "The network and HTTP flags of 'serve' are accepted and ignored."]
    return "\n".join(lines)


def _lines(setting: Setting) -> Iterator[str]:
    group = setting.field.group
    if group is None:
        yield _line(setting.field, "")
        if setting.name == "component_paths":
            yield _columns("--<component>-path PATH", "One component, e.g. --vae-path, --transformer-path")
        if setting.name == "component_weights_paths":
            yield _columns("--<component>-weights-path PATH", "Its weights alone: file, folder or hub id")
        return
    yield _columns(f"{setting.field.flag} JSON", setting.field.opt.help)
    for inner in schema.fields(group).values():
        yield _line(inner, f"{setting.field.flag}.")


def _line(field: Field, prefix: str) -> str:
    names = [name.replace("_", "-") for name in field.names]
    dashed = ", ".join(f"{prefix}{name}" if prefix else f"--{name}" for name in names)
    words = [field.opt.help]
    if field.choices and field.kind != "bool":
        words.append(f"one of {listed(field.choices)}")
    if field.default not in (None, (), {}, "", False):
        words.append(f"default {str(field.default).lower() if field.default is True else field.default}")
    later = field.opt.later
    if isinstance(later, tuple) and later:
        words.append(f"not available yet: {listed(later)}")
    return _columns(f"{dashed}{_metavar(field)}", "; ".join(words) + (f" {LATER}" if later is True else ""))


def _later(field: Field, value: str) -> str:
    later = field.opt.later
    return f" {LATER}" if later is True or (isinstance(later, tuple) and value in later) else ""


def _metavar(field: Field) -> str:
    if field.kind == "bool":
        return ""
    word = field.opt.metavar or ("PATH" if field.name.endswith(("_path", "_dir")) else "")
    word = word or {"int": "INT", "float": "NUMBER", "map": "JSON"}.get(field.item, "NAME" if field.choices else "TEXT")
    return f" {word} ..." if field.kind == "list" else f" {word}"


def _columns(left: str, right: str) -> str:
    if len(left) < WIDTH:
        return f"  {left:<{WIDTH}}{right}".rstrip()
    return f"  {left}\n{' ' * (WIDTH + 2)}{right}"
