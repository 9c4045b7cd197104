"""The description of settings: what a value may be, and what is said of one that may not."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from engine import schema
from engine.errors import NotAvailable, UsageError
from engine.schema import Ge, Gt, Le, MaxLen, Opt
from engine.types import Request

BIG = 2**63 - 1


@dataclass(frozen=True)
class Inner:
    deep: Annotated[int | None, Ge(1), Opt("A number")] = None
    later: Annotated[bool, Opt("Not built", later=True)] = True


@dataclass(frozen=True)
class Entry:
    name: Annotated[str | None, Opt("A name")] = None
    scale: Annotated[float, Opt("A strength")] = 1.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    flag: Annotated[bool, Opt("A switch")] = False
    maybe: Annotated[bool | None, Opt("A switch that may be left to the model", later=True)] = None
    count: Annotated[int | None, Ge(1), Le(10), Opt("A count", aliases=("n", "how_many"))] = None
    ratio: Annotated[float | None, Gt(0), Opt("A ratio")] = None
    text: Annotated[str | None, MaxLen(5), Opt("A text")] = None
    seed: Annotated[Annotated[int, Ge(0), Le(BIG)] | tuple[Annotated[int, Ge(0)], ...] | None, Opt("Seeds")] = None
    paths: Annotated[tuple[str, ...] | None, MaxLen(2), Opt("Paths")] = None
    kinds: Annotated[tuple[Literal["a", "b", "c"], ...] | None, Opt("Several", later=("c",))] = None
    kind: Annotated[Literal["a", "b", "c"], Opt("One", later=("c",))] = "a"
    free: Annotated[dict[str, Any], Opt("Anything")] = field(default_factory=dict)
    names: Annotated[dict[str, str], Opt("Texts by name", later=True, neutral=({"off": "1"},))] = field(
        default_factory=dict
    )
    inner: Annotated[Inner, Opt("A group")] = field(default_factory=Inner)
    entries: Annotated[tuple[Entry, ...] | None, Opt("Groups")] = None
    hidden: int = 7


def refusal(name: str, value: object, where: str = "") -> str:
    with pytest.raises(UsageError) as caught:
        schema.check(Settings, name, value, where)
    assert caught.value.code == "invalid_value"
    assert caught.value.param == name
    return caught.value.message


def test_fields_are_read_from_the_annotations() -> None:
    fields = schema.fields(Settings)
    assert "hidden" not in fields
    assert {name: described.kind for name, described in fields.items()} == {
        "flag": "bool", "maybe": "bool", "count": "int", "ratio": "float", "text": "str", "seed": "list",
        "paths": "list", "kinds": "list", "kind": "str", "free": "map", "names": "map", "inner": "group",
        "entries": "list",
    }  # fmt: skip
    assert fields["seed"].item == "int"
    assert fields["kinds"].choices == fields["kind"].choices == ("a", "b", "c")
    assert fields["count"].names == ("count", "n", "how_many")
    assert schema.find(Settings, "kinds").flag == "--kinds"
    assert fields["inner"].default == Inner()
    assert fields["inner"].group is Inner
    assert fields["entries"].entry is Entry


def test_find_takes_aliases_and_dashes() -> None:
    assert {schema.find(Settings, name).name for name in ("count", "n", "how_many", "how-many")} == {"count"}


@pytest.mark.parametrize(
    ("name", "where", "message"),
    [
        ("cuont", "", "cuont: unknown name; did you mean 'count'?"),
        ("how-mny", "x.yaml: how-mny", "x.yaml: how-mny: unknown name; did you mean 'how_many'?"),
        ("zzz", "--zzz", "--zzz: unknown name"),
        ("hidden", "", "hidden: unknown name"),
    ],
)
def test_find_names_the_closest(name: str, where: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        schema.find(Settings, name, where)
    assert (caught.value.message, caught.value.code) == (message, "unknown_parameter")
    assert caught.value.param == name


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("flag", True, True),
        ("count", 10, 10),
        ("ratio", 2, 2.0),
        ("text", "fünf", "fünf"),
        ("seed", 0, 0),
        ("seed", [3, 4], (3, 4)),
        ("seed", (3, 4), (3, 4)),
        ("paths", "a.png", ("a.png",)),
        ("paths", ["a.png", "b.png"], ("a.png", "b.png")),
        ("kinds", "b", ("b",)),
        ("free", {"a": {"b": [1, None, "x"]}}, {"a": {"b": [1, None, "x"]}}),
        ("inner", {"deep": 2}, Inner(2)),
        ("inner", Inner(3), Inner(3)),
        ("entries", {"name": "x", "scale": 1}, (Entry("x", 1.0),)),
        ("entries", [Entry("y"), {"name": None}], (Entry("y"), Entry())),
        ("count", None, None),
        ("paths", Path("a.png"), ("a.png",)),
        ("paths", [Path("a.png"), "b.png"], ("a.png", "b.png")),
        ("text", PurePosixPath("a/b"), "a/b"),
        ("names", {"vae": Path("a")}, {"vae": "a"}),
        ("count", np.int64(3), 3),
        ("seed", [np.uint8(3), 4], (3, 4)),
        ("ratio", np.float32(0.5), 0.5),
    ],
)
def test_check_returns_the_typed_value(name: str, value: object, read: object) -> None:
    checked = schema.check(Settings, name, value)
    assert checked == read
    assert type(checked) is type(read)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("flag", "true", 'must be true or false, got "true"'),
        ("flag", 1, "must be true or false, got 1"),
        ("count", "6", 'must be an integer, got "6"'),
        ("count", 6.0, "must be an integer, got 6.0"),
        ("count", True, "must be an integer, got true"),
        ("count", 0, "must be at least 1, got 0"),
        ("count", 11, "must be at most 10, got 11"),
        ("count", [1], "must be an integer, got [1]"),
        ("ratio", "1", 'must be a number, got "1"'),
        ("ratio", 0, "must be greater than 0, got 0"),
        ("ratio", float("nan"), "must be a finite number, got NaN"),
        ("ratio", float("inf"), "must be a finite number, got Infinity"),
        ("text", 3, "must be a text, got 3"),
        ("text", "sechs!", 'must have at most 5 characters, got "sechs!"'),
        ("text", "a\ud800", 'must be valid Unicode, got "a\\ud800"'),
        ("seed", -1, "must be at least 0, got -1"),
        ("seed", BIG + 1, f"must be at most {BIG}, got {BIG + 1}"),
        ("seed", [1, -2], "must be at least 0, got [1, -2]"),
        ("seed", "x", 'must be an integer or a list of them, got "x"'),
        ("seed", [1, "x"], 'must be an integer or a list of them, got [1, "x"]'),
        ("paths", 3, "must be a text or a list of them, got 3"),
        ("paths", ["a", "b", "c"], 'must have at most 2 entries, got ["a", "b", "c"]'),
        ("kind", "d", 'must be one of a, b, c, got "d"'),
        ("kind", "A", 'must be one of a, b, c, got "A"'),
        ("kinds", ["a", "d"], 'must be one of a, b, c, got ["a", "d"]'),
        ("free", [1], "must be a mapping, got [1]"),
        ("free", {"a": {1}}, "must hold nothing but texts, numbers, lists and mappings by texts, got set"),
        ("free", {(1, 2): "a"}, "must hold nothing but texts, numbers, lists and mappings by texts, got dict"),
        ("text", datetime.date(2026, 1, 2), "must be a text, got date"),
        ("count", b"3", "must be an integer, got bytes"),
        ("ratio", 1j, "must be a number, got complex"),
        ("kind", datetime.date(2026, 1, 2), "must be one of a, b, c, got date"),
        ("paths", ["a.png", datetime.date(2026, 1, 2)], "must be a text or a list of them, got date"),
        ("seed", np.array([1, 2]), "must be an integer or a list of them, got ndarray"),
        ("count", np.int64(11), "must be at most 10, got 11"),
        ("count", np.float32(6), "must be an integer, got 6.0"),
        ("names", "x", 'must be a mapping, got "x"'),
        ("names", {"vae": 3}, 'must map names to texts, got {"vae": 3}'),
        ("inner", 3, "must be a mapping, got 3"),
    ],
)
def test_check_says_what_a_value_must_be(name: str, value: object, rule: str) -> None:
    assert refusal(name, value) == f"{name}: {rule}"


def test_a_number_is_read_however_long_it_is() -> None:
    assert [schema.whole(text) for text in ("0", "-12", "1_000")] == [0, -12, 1000]
    assert schema.whole("9" * 5000) > 10**299 and schema.whole("-" + "9" * 5000) < -(10**299)
    zeros = "0" * 80
    assert refusal("count", 10**5000) == f"count: must be at most 10, got {'1' + zeros[:76]}..."
    assert refusal("seed", [3, -(10**5000)]) == f"seed: must be at least 0, got [3, -1{zeros[:71]}..."
    assert refusal("seed", -(10**5000)).startswith("seed: must be at least 0, got -1000")
    assert refusal("ratio", 10**5000).startswith("ratio: must be a finite number, got 1000")
    held: dict[str, object] = {}
    held["me"] = held
    assert "must hold nothing but texts" in refusal("free", held)


def test_check_begins_with_the_source_of_the_value() -> None:
    assert refusal("count", 0, "SGDIFF_COUNT") == "SGDIFF_COUNT: must be at least 1, got 0"


def test_a_long_value_is_cut() -> None:
    message = refusal("text", "x" * 40_000)
    assert message.startswith('text: must have at most 5 characters, got "xxx')
    assert message.endswith("xxx...")
    assert len(message) < 140


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inner": {"dep": 1}}, "a.yaml.inner.dep: unknown name; did you mean 'deep'?"),
        ({"inner": {"deep": 0}}, "a.yaml.inner.deep: must be at least 1, got 0"),
        ({"inner": {1: 2}}, "a.yaml.inner.1: unknown name"),
        ({"entries": ["x"]}, 'a.yaml.entries[0]: must be a mapping, got "x"'),
        ({"entries": [{}, {"nmae": "x"}]}, "a.yaml.entries[1].nmae: unknown name; did you mean 'name'?"),
        ({"entries": [{"scale": "1"}]}, 'a.yaml.entries[0].scale: must be a number, got "1"'),
        ({"n": 1, "how-many": 2}, "a.yaml.how-many: given twice, also under another name of count"),
        ({"n": None, "count": 2}, "a.yaml.count: given twice, also under another name of count"),
        ({"cuont": 1}, "a.yaml.cuont: unknown name; did you mean 'count'?"),
    ],
)
def test_read_gives_the_full_path_of_what_is_wrong(values: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        schema.read(Settings, values, "a.yaml")
    assert caught.value.message == message


def test_read_builds_the_settings() -> None:
    values = {"how-many": 3, "inner": {"deep": 1}, "paths": "a", "ratio": None, "entries": [{"name": "x"}]}
    built = schema.read(Settings, values)
    assert built == Settings(count=3, inner=Inner(1), paths=("a",), entries=(Entry("x"),))
    assert schema.read(Settings, {}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("maybe", None),
        ("maybe", False),  # switching off what is not there
        ("names", {}),
        ("names", {"off": "1"}),
        ("kind", "b"),
        ("kinds", ("a", "b")),
        ("inner", Inner(deep=4)),
        ("inner", Inner()),
        ("count", 3),
    ],
)
def test_values_that_ask_for_nothing_unbuilt_are_available(name: str, value: object) -> None:
    schema.require_available(Settings, name, value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("maybe", True, "maybe: not available yet"),
        ("names", {"a": "b"}, "names: not available yet"),
        ("kind", "c", "kind: 'c' is not available yet; available: a, b"),
        ("kinds", ("a", "c"), "kinds: 'c' is not available yet; available: a, b"),
        ("inner", Inner(later=False), "inner.later: not available yet"),
    ],
)
def test_what_is_not_built_is_refused_by_name(name: str, value: object, message: str) -> None:
    with pytest.raises(NotAvailable) as caught:
        schema.require_available(Settings, name, value)
    assert (caught.value.message, caught.value.code) == (message, "unsupported_parameter")
    assert message.startswith(str(caught.value.param)) or caught.value.param == "later"


def test_plain_is_what_json_can_say() -> None:
    settings = Settings(seed=(1, 2), inner=Inner(2), entries=(Entry(),), free={"a": (1,)})
    assert schema.plain(settings) == {
        "flag": False, "seed": [1, 2], "kind": "a", "free": {"a": [1]}, "names": {},
        "inner": {"deep": 2, "later": True}, "entries": [{"scale": 1.0}], "hidden": 7,
    }  # fmt: skip
    assert schema.read(Settings, {k: v for k, v in schema.plain(settings).items() if k != "hidden"}) == (
        Settings(seed=(1, 2), inner=Inner(2), entries=(Entry(),), free={"a": [1]})
    )


def test_json_schema_says_what_check_takes() -> None:
    assert schema.json_schema(Inner, "deep") == {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}
    assert schema.json_schema(Request, "quality")["enum"][:2] == ["auto", "low"]
    one, several, nothing = schema.json_schema(Request, "image_path")["anyOf"]  # one value counts as a list
    assert (one, several["maxItems"], nothing) == ({"type": "string"}, 16, {"type": "null"})
    seed = schema.json_schema(Request, "seed")["anyOf"]
    assert seed[0] == {"type": "integer", "minimum": 0, "maximum": BIG} == seed[1]["items"]
    loras = schema.json_schema(Request, "loras")
    assert loras["items"]["properties"].keys() >= {"name", "path", "scale"}
    assert loras["items"]["additionalProperties"] is False
