"""What names stand for, and the set of settings that are not built: it can only shrink."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import schema
from engine.schema import Field
from sgdiff_app.settings import RESERVED, find, known_names, table, used_by

LATER = set((Path(__file__).parent / "data" / "later.txt").read_text().split())


def later(prefix: str, field: Field) -> set[str]:
    if field.opt.later is True:
        return {prefix + field.name}
    return {f"{prefix}{field.name}={value}" for value in field.opt.later or ()}


def test_the_settings_that_are_not_built_only_become_fewer() -> None:
    found = set[str]()
    for setting in table().values():
        group = setting.field.group
        inner = schema.fields(group).values() if group else ()
        found |= later("", setting.field).union(*(later(f"{setting.name}.", field) for field in inner))
    assert found - LATER == set(), "built once, and no longer"
    assert LATER - found == set(), "built now: take these lines out of data/later.txt"


def test_no_two_settings_share_a_name() -> None:
    names = known_names()
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("name", [f"{name}_path" for name in RESERVED])
def test_reserved_names_are_never_components(name: str) -> None:
    try:
        target = find(name, name, "flag")
    except schema.UsageError:
        return
    assert target.setting.name != "component_paths"


def test_a_component_has_no_list() -> None:
    assert find("scheduler-path", "", "flag").path == ("component_paths", "scheduler")
    assert find("transformer_2_weights_path", "", "flag").path == ("component_weights_paths", "transformer_2")


def test_which_command_uses_what() -> None:
    for name, commands in (("seed", "generate"), ("port", "serve"), ("model_path", "both"), ("output_path", "both")):
        used = [command for command in ("generate", "serve") if used_by(command, table()[name])]
        assert used == (["generate", "serve"] if commands == "both" else [commands])
