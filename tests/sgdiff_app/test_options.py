"""The settings of the program describe themselves like those of the engine."""

from __future__ import annotations

import pytest

from engine import schema
from sgdiff_app import options
from sgdiff_app.settings import table


@pytest.mark.parametrize(
    "cls", [value for name, value in vars(options).items() if name.endswith("Options")], ids=lambda cls: cls.__name__
)
def test_every_default_passes_its_own_check(cls: type) -> None:
    described = schema.fields(cls)
    assert set(cls.__dataclass_fields__) == set(described)  # type: ignore[attr-defined]
    for name, field in described.items():
        assert field.opt.help
        assert schema.check(cls, name, field.default) == field.default


def test_shorthands_stand_for_values_that_are_allowed() -> None:
    for entry in options.SHORTHANDS.values():
        setting = table()[entry.target]
        for value in (entry.on, entry.off):
            schema.check(setting.owners[0], setting.name, value)


def test_secrets_are_settings() -> None:
    assert all(name in table() for name in options.SECRETS)
