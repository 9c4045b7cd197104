"""Bodies of requests: JSON and multipart forms into one plain dict, and the files beside it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request as HttpRequest

from engine.errors import UsageError, shown
from engine.schema import whole
from sgdiff_app import files
from sgdiff_app.server.errors import ApiError, invalid

T = TypeVar("T")
WRAPPERS = ("extra_body", "extra_json", "extra_params", "extra_args")
NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")  # head[inner][]...
MAX_DEPTH = 8  # of brackets
MAX_DIGITS = 6  # of the number of an entry
MAX_PARTS = 1000
# How pictures and clips begin, with bytes that no text has: a part that has no file name is a file all the same.
MAGIC = re.compile(r"\x89PNG|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|BM....\0\0\0\0|....ftyp", re.DOTALL)
NO_TEXT = re.compile(r".{0,32}?[\0-\x08\x0e-\x1f\x80-\x9f]", re.DOTALL)
CHUNK = 2**20
LONG = 256_000  # bytes of JSON, or characters of a form beside its files


class Text(str):
    """A value of a form: what it stands for is decided by the field that it is for."""

    __slots__ = ()


@dataclass(slots=True)
class Body:
    """What a client sent: values by name, files by the name of their field in the order of the parts.

    `wrapped` names the values that stood in a wrapper: under whatever other name, the top level wins over them. What a
    `long` one says takes its time to check.
    """

    values: dict[str, Any] = field(default_factory=dict)
    uploads: dict[str, list[UploadFile]] = field(default_factory=dict)
    wrapped: frozenset[str] = frozenset()
    long: bool = False

    async def aside(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do work on what the body says; in a thread when it is long, since everybody else would wait for it."""
        return await asyncio.to_thread(work, *arguments) if self.long else work(*arguments)

    def content(self) -> dict[str, Any]:
        """Return what the body says, JSON-able, with its files as hashes. Reads the files."""
        return {
            "values": self.values,
            "files": {name: [_sha256(upload) for upload in parts] for name, parts in self.uploads.items()},
        }


@asynccontextmanager
async def reading(http: HttpRequest, max_bytes: int) -> AsyncIterator[Body]:
    """Give the body of a request; its files are closed afterwards. Raises ApiError."""
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        body = await _form(http, max_bytes)
    elif kind in ("", "application/json") or kind.endswith("+json"):
        body = await _document(await http.body())
    else:
        message = f"content-type: must be application/json or multipart/form-data, got '{shown(kind)}'"
        raise invalid("invalid_content_type", message)
    try:
        yield body
    finally:
        for parts in body.uploads.values():
            for upload in parts:
                await upload.close()


async def parsed(http: HttpRequest) -> dict[str, Any]:
    """Return the JSON object in the body of a request, whatever its declared type, as `parse` does."""
    raw = await http.body()
    return await Body(long=len(raw) > LONG).aside(parse, raw)


async def _document(raw: bytes) -> Body:
    body = Body(long=len(raw) > LONG)
    body.values, body.wrapped = await body.aside(lambda: _unwrapped(parse(raw)))
    return body


def parse(raw: bytes) -> dict[str, Any]:
    """Return the JSON object of a body, {} for none, without what is null. Raises ApiError `invalid_json`."""
    if not raw:
        return {}
    value = _json(raw.removeprefix(b"\xef\xbb\xbf"), "the body")
    if not isinstance(value, dict):
        raise invalid("invalid_json", "the body must be a JSON object")
    return {name: entry for name, entry in value.items() if entry is not None}


def json_text(text: str, where: str) -> Any:
    """Return what JSON in a field stands for. Raises ApiError, which names the field."""
    try:
        return _json(text.encode("utf-8", "surrogatepass"), where)
    except ApiError as error:
        raise invalid(f"invalid_{where}", error.message, where) from error


def _json(raw: bytes, where: str) -> Any:
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number, parse_int=whole)
        if raw.count(b"[") + raw.count(b"{") > files.DEPTH:
            files.require_shallow(value, where)
        if b"\\u" in raw:
            json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise invalid("invalid_json", f"{where}: not JSON: {error.msg} ({place})") from error
    except UnicodeDecodeError as error:
        raise invalid("invalid_json", f"{where}: not UTF-8") from error
    except UnicodeEncodeError as error:
        raise invalid("invalid_json", f"{where}: holds half of a surrogate pair") from error
    except RecursionError:
        raise invalid("invalid_json", f"{where}: nested too deeply") from None
    except UsageError as error:
        raise invalid("invalid_json", error.message) from error
    except ValueError as error:  # a number of too many digits
        raise invalid("invalid_json", f"{where}: not JSON: {error}") from error
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; a key stands once."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"'{shown(name)}' is given twice")
            seen.add(name)
    return found


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _unwrapped(values: dict[str, Any]) -> tuple[dict[str, Any], frozenset[str]]:
    """Put what stands in wrappers behind the top level, which wins; return all values, and the names from wrappers."""
    own = {name: entry for name, entry in values.items() if name not in WRAPPERS}
    merged = dict(own)
    for wrapper in WRAPPERS:
        inner = values.get(wrapper)
        if isinstance(inner, str):
            inner = json_text(inner, wrapper)
        if inner is None:
            continue
        if not isinstance(inner, dict):
            raise invalid(f"invalid_{wrapper}", f"{wrapper}: must be a JSON object", wrapper)
        given = {name: entry for name, entry in inner.items() if entry is not None and name not in WRAPPERS}
        merged = {**merged, **{name: entry for name, entry in given.items() if name not in merged}}
    return merged, frozenset(merged.keys() - own.keys())


class _Parser(MultiPartParser):
    """Refuses a form that ends before its last boundary."""

    def __init__(self, http: HttpRequest, max_bytes: int) -> None:
        self.whole = False
        bounds = {"max_files": MAX_PARTS, "max_fields": MAX_PARTS, "max_part_size": max_bytes}
        super().__init__(http.headers, self._all(http.stream()), **bounds)

    def on_end(self) -> None:
        self.whole = True

    async def _all(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            yield chunk
        if not self.whole:
            raise MultiPartException("it ends before its last boundary")


async def _form(http: HttpRequest, max_bytes: int) -> Body:
    try:
        form = await _Parser(http, max_bytes).parse()
    except MultiPartException as error:
        raise invalid("invalid_form", f"the body is no valid form: {error.message}") from error
    parts = form.multi_items()
    body = Body(long=sum(len(value) for _, value in parts if isinstance(value, str)) > LONG)
    try:
        await body.aside(_sort, body, parts)
    except ApiError:
        await form.close()
        raise
    return body


def _sort(body: Body, parts: Iterable[tuple[str, UploadFile | str]]) -> None:
    """Fill a body with the parts of a form."""
    tree = _Node()
    for name, value in parts:
        upload = value if isinstance(value, UploadFile) else _file_of(value)
        if upload is not None:
            body.uploads.setdefault(_file_name(name), []).append(upload)
        elif isinstance(value, str):
            tree.put(_path(name), Text(value))
    body.values, body.wrapped = _unwrapped({name: node.value(name) for name, node in tree.inner.items()})


def _file_of(text: Any) -> UploadFile | None:
    """Return the file that a part without a file name holds; None for a text."""
    if not (MAGIC.match(text) and NO_TEXT.match(text)):
        return None
    import io

    try:
        data = text.encode("latin-1")  # as it is read when it is no UTF-8
    except UnicodeEncodeError:
        data = text.encode("utf-8", "surrogateescape")
    return UploadFile(io.BytesIO(data), size=len(data))


def _sha256(upload: UploadFile) -> str:
    digest = hashlib.sha256()
    upload.file.seek(0)
    while chunk := upload.file.read(CHUNK):
        digest.update(chunk)
    upload.file.seek(0)
    return digest.hexdigest()


def _path(name: str) -> list[str]:
    """Return the parts of a name with brackets: `d[x][]` is d, x and nothing."""
    found = NAME.fullmatch(name)
    if found is None or found[2].count("[") > MAX_DEPTH:
        raise invalid("invalid_form", f"'{shown(name)}' is no name of a field")
    return [found[1], *re.findall(r"\[([^\[\]]*)\]", found[2])]


def _file_name(name: str) -> str:
    """Return the field of a file; `image[]` and `image[0]` belong to a list."""
    head, *rest = _path(name)
    if rest and not (len(rest) == 1 and (not rest[0] or rest[0].isdecimal())):
        raise invalid("invalid_form", f"{shown(name)}: must not be a file", head)
    return head


class _Node:
    """A place in the tree that the brackets of a form's names draw: texts, or places inside it."""

    __slots__ = ("inner", "texts")

    def __init__(self) -> None:
        self.texts: list[Text] = []
        self.inner: dict[str, _Node] = {}

    def put(self, path: Iterable[str], text: Text) -> None:
        node = self
        for part in path:
            node = node.inner.setdefault(part, _Node())
        node.texts.append(text)

    def value(self, where: str) -> Any:
        """Return what stands here."""
        if self.texts:
            if self.inner:
                raise invalid("invalid_form", f"{where}: stands for a value and for several", where)
            return self.texts[0] if len(self.texts) == 1 else list(self.texts)
        if set(self.inner) == {""}:
            return self.inner[""].rows(where)
        if all(key.isdecimal() and len(key) <= MAX_DIGITS for key in self.inner):
            return [self.inner[key].value(where) for key in sorted(self.inner, key=int)]
        return self.mapping(where)

    def mapping(self, where: str) -> dict[str, Any]:
        if "" in self.inner:
            raise invalid("invalid_form", f"{where}: is a list and a mapping", where)
        return {key: node.value(where) for key, node in self.inner.items()}

    def rows(self, where: str) -> list[Any]:
        """Return the entries of a list: texts, or mappings that were taken apart into columns of equal length."""
        if self.texts and not self.inner:
            return list(self.texts)
        if "" in self.inner:
            return [self.value(where)]
        columns: Mapping[str, list[Any]] = {key: node.rows(where) for key, node in self.inner.items()}
        if len({len(column) for column in columns.values()}) != 1 or self.texts:
            counts = ", ".join(f"{key} {len(column)}" for key, column in columns.items())
            message = f"{where}: the columns of its entries differ in length ({counts}); give the list as JSON text"
            raise invalid("invalid_form", message, where)
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
