"""The one description of a setting: what flags, config keys, environment, JSON, forms and help are made from."""

from __future__ import annotations

import dataclasses
import functools
import json
import numbers
import operator
import os
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from engine.errors import NotAvailable, UsageError, listed, shown, suggest

T = TypeVar("T")
# The error of a value that JSON has no form for, as pydantic would give it.
NO_JSON: Mapping[str, Any] = {"type": "_type", "loc": (), "msg": ""}
SCALARS = (str, int, float, bool)
DIGITS = 300  # of a whole number as it is read: more than any field takes, less than Python refuses
Kind = Literal["bool", "int", "float", "str", "list", "map", "group"]


class Limit:
    """A bound in an annotation, like those of annotated_types, whose import would take a fifth of a help page."""

    __slots__ = ("bound",)

    def __init__(self, bound: float) -> None:
        self.bound = bound


class Ge(Limit):
    """At least."""


class Gt(Limit):
    """Greater than."""


class Le(Limit):
    """At most."""


class MaxLen(Limit):
    """At most so many characters or entries."""


@dataclass(frozen=True, slots=True)
class Opt:
    """What a field says about itself, beside its type and limits.

    `later` is True for a setting that is not built yet, or lists the values of it that are not; `neutral` are values
    that ask for nothing, so that they are taken before. `optional` marks a request field that only some models use.
    `env` lists further environment names.
    """

    help: str
    topic: str = ""
    aliases: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    later: bool | tuple[Any, ...] = False
    neutral: tuple[Any, ...] = ()
    optional: bool = False
    metavar: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a settings dataclass, read once from its annotation."""

    name: str
    kind: Kind
    item: Kind  # the kind of one entry of a list; the kind itself otherwise
    choices: tuple[Any, ...]
    default: Any
    opt: Opt
    annotation: Any
    group: type | None  # the dataclass of a nested group
    entry: type | None  # the dataclass of one entry of a list

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.opt.aliases)


def _parts(annotation: Any) -> list[Any]:
    """Strip `Annotated` and `None`; return the alternatives that are left."""
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for arg in get_args(annotation) if arg is not type(None) for part in _parts(arg)]
    return [annotation]


def _kind(part: Any) -> Kind:
    if get_origin(part) is Literal:
        return _kind(type(get_args(part)[0]))
    if get_origin(part) is tuple:
        return "list"
    if get_origin(part) in (dict, Mapping) or part is dict:
        return "map"
    if dataclasses.is_dataclass(part):
        return "group"
    kinds: dict[Any, Kind] = {bool: "bool", int: "int", float: "float", str: "str"}
    return kinds[part]


def _field(field: dataclasses.Field[Any], annotation: Any) -> Field:
    alternatives = _parts(annotation)
    lists = [part for part in alternatives if get_origin(part) is tuple]
    main = lists[0] if lists else alternatives[0]
    items = _parts(get_args(main)[0]) if lists else [main]
    kind = _kind(main)
    choices = get_args(items[0]) if get_origin(items[0]) is Literal else ()
    metadata = annotation.__metadata__ if get_origin(annotation) is Annotated else ()
    opt = next(entry for entry in metadata if isinstance(entry, Opt))
    default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    group = main if kind == "group" else None
    entry = items[0] if lists and _kind(items[0]) == "group" else None
    return Field(field.name, kind, _kind(items[0]), choices, default, opt, annotation, group, entry)


@functools.cache
def fields(cls: type) -> dict[str, Field]:
    """Return the described fields of a settings dataclass by name; fields without an `Opt` are not settings."""
    hints = get_type_hints(cls, include_extras=True)
    described = {}
    for field in dataclasses.fields(cls):
        annotation = hints[field.name]
        if get_origin(annotation) is Annotated and any(isinstance(m, Opt) for m in annotation.__metadata__):
            described[field.name] = _field(field, annotation)
    return described


@functools.cache
def _by_any_name(cls: type) -> dict[str, Field]:
    return {name: field for field in fields(cls).values() for name in field.names}


def find(cls: type, name: str, where: str = "") -> Field:
    """Return the field that `name` (or an alias; `-` equals `_`) stands for, or raise with the closest one."""
    known = _by_any_name(cls)
    key = name.replace("-", "_")
    if key not in known:
        message = f"{shown(where or name)}: unknown name{suggest(shown(key), known)}"
        raise UsageError(message, code="unknown_parameter", param=name)
    return known[key]


@functools.cache
def _adapter(cls: type, name: str) -> Any:
    from pydantic import ConfigDict, TypeAdapter  # not at import: `--help` and forms do not validate

    annotation = _with_known_limits(fields(cls)[name].annotation)
    return TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False))


def _with_known_limits(annotation: Any) -> Any:
    """Return an annotation with our limits replaced by those that pydantic knows."""
    import annotated_types

    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        known = [getattr(annotated_types, type(m).__name__)(m.bound) if isinstance(m, Limit) else m for m in args[1:]]
        return Annotated[(_with_known_limits(args[0]), *known)]
    if origin in (Union, types.UnionType):
        return functools.reduce(operator.or_, (_with_known_limits(arg) for arg in args))
    if origin is tuple:
        return tuple[tuple(_with_known_limits(arg) for arg in args)]  # type: ignore[misc]
    return annotation


def check(cls: type, name: str, value: Any, where: str = "") -> Any:
    """Return `value` checked against the type and limits of a field.

    `where` names the source in the message (a flag, a file and key, a variable). Raises UsageError with the allowed
    values; in a list field one single value counts as a list.
    """
    field, where = fields(cls)[name], where or name
    if value is None:
        return None
    if field.group is not None:
        return _group(field.group, name, value, where)
    many = isinstance(value, list | tuple)
    values = value if many or field.kind != "list" or is_scalar_too(field) else [value]
    if field.entry is not None:
        return tuple(_group(field.entry, name, entry, f"{where}[{i}]") for i, entry in enumerate(values))
    from pydantic import ValidationError

    try:
        text = _dumped(values)
    except TypeError as error:
        found = type(value).__name__ if " " in str(error) else error  # a sentence: of json, about a key of a mapping
        raise UsageError(f"{where}: {_rule(field, NO_JSON)}, got {found}", param=name) from error
    try:
        return _adapter(cls, name).validate_json(text)
    except ValidationError as error:
        raise UsageError(
            f"{where}: {_rule(field, _telling(error.errors()))}, got {_shown(value)}", param=name
        ) from error


def whole(digits: str) -> int:
    """Read a whole number of JSON or YAML, of which Python reads 4300 digits at most; what is longer stays too large.

    Raises ValueError for what is none.
    """
    return int(digits.replace("_", "")[: DIGITS + 1])


def _dumped(values: Any) -> str:
    """Return JSON of what a program gave. Raises TypeError for what JSON cannot say."""
    try:
        return json.dumps(values, default=_simple)
    except ValueError:
        try:
            return json.dumps(_writable(values), default=_simple)
        except RecursionError:  # what holds itself
            raise TypeError(type(values).__name__) from None


def _writable(value: Any) -> Any:
    """Return a value whose whole numbers have no more digits than Python writes, and are too large all the same."""
    if isinstance(value, int) and value.bit_length() > 4 * DIGITS:
        return 100**DIGITS if value > 0 else -(100**DIGITS)
    if isinstance(value, Mapping):
        return {key: _writable(entry) for key, entry in value.items()}
    return [_writable(entry) for entry in value] if isinstance(value, list | tuple) else value


def _simple(value: Any) -> Any:
    """Return what Python programs give for a text or a number as such: paths, and the numbers of numpy.

    Raises TypeError with the name of any other type.
    """
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    try:
        return operator.index(value)
    except TypeError:
        if isinstance(value, numbers.Real):
            return float(value)
    raise TypeError(type(value).__name__)


def _group(cls: type, name: str, value: Any, where: str) -> Any:
    """Return a nested group: as it is, or read from a mapping."""
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: must be a mapping, got {_shown(value)}", param=name)
    return read(cls, value, where)


def read(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build a settings dataclass from plain values: unknown names refused, every value checked.

    Raises UsageError; a name given twice through an alias is an error too.
    """
    checked: dict[str, Any] = {}
    for key, value in values.items():
        place = f"{where}.{key}" if where else key
        field = find(cls, str(key), place)  # a key of YAML may be a number
        if field.name in checked:
            raise UsageError(f"{place}: given twice, also under another name of {field.name}", param=field.name)
        usual = type(value) is type(field.default) and value == field.default  # most are, and checks take their time
        checked[field.name] = None if usual else check(cls, field.name, value, place)
    return cls(**{name: value for name, value in checked.items() if value is not None})


def json_schema(cls: type, name: str) -> dict[str, Any]:
    """Return what JSON Schema says of the values that `check` takes for a field."""
    field = fields(cls)[name]
    if field.entry is not None:
        return {"type": "array", "items": _object_schema(field.entry)}
    if field.group is not None:
        return _object_schema(field.group)
    found: dict[str, Any] = _adapter(cls, name).json_schema()
    if field.kind == "list" and not is_scalar_too(field):  # one value counts as a list
        several: dict[str, Any] = next((part for part in found.get("anyOf", ()) if "items" in part), found)
        found = {"anyOf": [several["items"], *found.get("anyOf", [found])]}
    return found


def _object_schema(cls: type) -> dict[str, Any]:
    known = {name: json_schema(cls, name) for name in fields(cls)}
    return {"type": "object", "properties": known, "additionalProperties": False}


def require_available(cls: type, name: str, value: Any, where: str = "") -> None:
    """Raise NotAvailable when a setting that is not built yet has a value other than its default."""
    field, where = fields(cls)[name], where or name
    off = value is False and field.default is None  # switching off what is not there
    if value is None or value == field.default or value in field.opt.neutral or off:
        return
    if field.group is not None:
        for inner in fields(field.group):
            require_available(field.group, inner, getattr(value, inner), f"{where}.{inner}")
    later = field.opt.later
    if later is True:
        raise NotAvailable(f"{where}: not available yet", param=name)
    if isinstance(later, tuple):
        missing = [entry for entry in (value if field.kind == "list" else [value]) if entry in later]
        if missing:
            built = listed(choice for choice in field.choices if choice not in later)
            raise NotAvailable(f"{where}: '{missing[0]}' is not available yet; available: {built}", param=name)


def plain(value: Any) -> Any:
    """Return settings as JSON-able data; fields that are None are left out."""
    if value is None or type(value) in SCALARS:
        return value
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = ((name, getattr(value, name)) for name in _names(type(value)))
        return {name: plain(entry) for name, entry in items if entry is not None}
    return value


def given(value: Any) -> dict[str, Any]:
    """Return those fields of a settings dataclass that are not their defaults, as JSON-able data for `read`."""
    cls: Any = type(value)
    found = {name: (getattr(value, name), field.default) for name, field in fields(cls).items()}
    return {
        name: plain(entry)
        for name, (entry, usual) in found.items()
        if entry is not None and not (type(entry) is type(usual) and entry == usual)
    }


@functools.cache
def _names(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


def is_scalar_too(field: Field) -> bool:
    """Say whether a list field also takes one value that is no list."""
    return any(get_origin(part) is not tuple for part in _parts(field.annotation))


def _shown(value: Any) -> str:
    def simple(inner: Any) -> Any:
        try:
            return _simple(inner)
        except TypeError:
            return str(inner)

    try:
        text = json.dumps(value, default=simple, ensure_ascii=False)
    except ValueError:  # a whole number of too many digits
        text = json.dumps(_writable(value), default=simple, ensure_ascii=False)
    return shown(text.encode(errors="backslashreplace").decode())


def _telling(errors: list[Any]) -> Mapping[str, Any]:
    """Of the errors of a value, one per type it may have, return that of the type which it does have."""
    return next((error for error in errors if not error["type"].endswith(("_type", "_parsing"))), errors[-1])


def _rule(field: Field, error: Mapping[str, Any]) -> str:
    """Say what a value must be, from the field's choices or from the limit that it broke."""
    context, kind = error.get("ctx") or {}, error["type"]
    if field.choices:
        return f"must be one of {listed(field.choices)}"
    limits = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}
    limits |= {"greater_than": ("gt", "greater than"), "less_than": ("lt", "less than")}
    if kind in limits:
        key, words = limits[kind]
        bound = context[key]
        return f"must be {words} {f'{bound:g}' if isinstance(bound, float) else bound}"
    nouns = {"int": "an integer", "float": "a number", "str": "a text", "bool": "true or false", "map": "a mapping"}
    if kind in ("string_too_long", "too_long"):
        noun = "characters" if kind == "string_too_long" else "entries"
        return f"must have at most {context['max_length']} {noun}"
    if kind == "finite_number":
        return "must be a finite number"
    if kind == "json_invalid":
        return "must be valid Unicode"  # all else that JSON cannot say was refused when it was written
    if field.kind == "map" and error is NO_JSON:
        return "must hold nothing but texts, numbers, lists and mappings by texts"
    if field.kind == "map" and error["loc"]:
        return "must map names to texts"  # the only map whose values have a type of their own
    if kind.endswith(("_type", "_parsing")):
        noun = nouns.get(field.item, str(error["msg"]))
        return f"must be {noun}" if field.kind != "list" else f"must be {noun} or a list of them"
    return str(error["msg"])
