"""Bodies: JSON, forms with brackets, wrappers, and everything that is neither."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import httpx
import pytest
from starlette.requests import Request as HttpRequest

from sgdiff_app.server import body
from sgdiff_app.server.body import reading
from sgdiff_app.server.errors import ApiError

MB = 2**20
PNG = b"\x89PNG\r\n\x1a\n\xff\xfe\x00rest"


def read(content: bytes, kind: str | None, hold: Any = None) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
    """What a body says, and its files; with `hold`, what that makes of it inside."""
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        assert not sent
        sent = True
        return {"type": "http.request", "body": content, "more_body": False}

    async def run() -> Any:
        headers = [(b"content-type", kind.encode())] if kind is not None else []
        http = HttpRequest({"type": "http", "method": "POST", "path": "/", "headers": headers, "app": None}, receive)
        async with reading(http, MB) as told:
            if hold is not None:
                return hold(told)
            return told.values, {name: [await one.read() for one in files] for name, files in told.uploads.items()}

    return asyncio.run(run())  # type: ignore[no-any-return]


def read_json(value: Any) -> dict[str, Any]:
    return read(json.dumps(value).encode(), "application/json")[0]


def read_form(fields: list[tuple[str, Any]], hold: Any = None) -> Any:
    """A form with one part per entry: text, or (file name or None, bytes)."""
    files = [(name, value if isinstance(value, tuple) else (None, value.encode())) for name, value in fields]
    request = httpx.Request("POST", "http://host/", files=files)
    return read(request.read(), request.headers["content-type"], hold)


def refusal(content: bytes, kind: str | None = "application/json") -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(content, kind)
    assert caught.value.status == 400
    return caught.value


def test_json() -> None:
    assert read_json({"prompt": "a fox", "n": 2, "seed": None, "d": {"x": [1, None]}}) == {
        "prompt": "a fox",
        "n": 2,
        "d": {"x": [1, None]},
    }
    assert read(b"", None) == ({}, {})
    held, _ = read(b'{"seed": ' + b"1" * 5000 + b"}", None)
    assert held["seed"] > 10**299  # the field says what is allowed, which no parser can
    assert read(b"\xef\xbb\xbf{}", "application/merge+json; charset=utf-8") == ({}, {})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not JSON"),
        (b'{"a": 1} x', "Extra data"),
        (b"[1]", "must be a JSON object"),
        (b'"prompt"', "must be a JSON object"),
        (b'{"a": 1, "b": 2, "a": 3}', "'a' is given twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"prompt": "\xff"}', "not UTF-8"),
        (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "nested too deeply"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_what_is_no_json(content: bytes, words: str) -> None:
    error = refusal(content)
    assert error.code == "invalid_json"
    assert words in error.message


def test_a_key_given_twice_among_many_is_found_soon() -> None:
    def seconds(work: Any) -> float:
        begun = time.process_time()
        work()
        return time.process_time() - begun

    content = ("{" + "".join(f'"k{i}":1,' for i in range(16_000)) + '"k15999":2}').encode()
    plain, checked = (
        min(seconds(work) for _ in range(3)) for work in (lambda: json.loads(content), lambda: refusal(content))
    )
    assert "'k15999' is given twice" in refusal(content).message
    assert checked < plain * 50  # each key against each would take hundreds of times as long


def test_a_long_body_is_read_and_checked_in_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    readers, unwrapped = list[int](), body._unwrapped

    def unwrap(values: dict[str, Any]) -> Any:
        readers.append(threading.get_ident())
        return unwrapped(values)

    monkeypatch.setattr(body, "_unwrapped", unwrap)
    told = []
    for size in (10, 300_000):
        read_json({"prompt": "a" * size})
        told.append(read_form([("prompt", "a" * size), ("image", ("a.png", b"1" * 300_000))], lambda found: found))
    mine = threading.get_ident()
    assert [reader == mine for reader in readers] == [True, True, False, False]
    assert [asyncio.run(found.aside(threading.get_ident)) == mine for found in told] == [True, False]


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "application/xml"])
def test_other_kinds_are_refused(kind: str) -> None:
    error = refusal(b'{"prompt": "a fox"}', kind)
    assert error.code == "invalid_content_type"
    assert "application/json or multipart/form-data" in error.message


def test_wrappers_are_merged_and_the_top_level_wins() -> None:
    body = {"prompt": "a", "extra_body": {"prompt": "b", "n": 2, "x": None}, "extra_json": '{"n": 3, "seed": 4}'}
    assert read_json(body) == {"prompt": "a", "n": 2, "seed": 4}
    assert read_json({"extra_args": {"a": 1}, "extra_params": None}) == {"a": 1}
    values, _ = read_form([("prompt", "a"), ("extra_params", '{"prompt": "b", "loras": []}')])
    assert values == {"prompt": "a", "loras": []}
    for wrong, words in (([1], "must be a JSON object"), ("{x", "not JSON"), ("3", "must be a JSON object")):
        error = refusal(json.dumps({"extra_body": wrong}).encode())
        assert (error.code, error.param) == ("invalid_extra_body", "extra_body")
        assert words in error.message


def test_forms() -> None:
    values, files = read_form([("prompt", "a füchs"), ("n", "2"), ("image", ("upload", b"bytes"))])
    assert values == {"prompt": "a füchs", "n": "2"}
    assert files == {"image": [b"bytes"]}


def test_brackets_as_the_openai_client_writes_them() -> None:
    fields = [
        ("d[x]", "1"), ("d[y][]", "1"), ("d[y][]", "2"), ("d[z][w]", "3"), ("lst[]", "1"), ("lst[]", "2"),
        ("l[][name]", "a"), ("l[][name]", "b"), ("l[][scale]", "1"), ("l[][scale]", "2"),
        ("q[1][n]", "b"), ("q[0][n]", "a"), ("one[]", "1"), ("twice", "1"), ("twice", "2"),
    ]  # fmt: skip
    assert read_form(fields)[0] == {
        "d": {"x": "1", "y": ["1", "2"], "z": {"w": "3"}},
        "lst": ["1", "2"],
        "one": ["1"],
        "l": [{"name": "a", "scale": "1"}, {"name": "b", "scale": "2"}],
        "q": [{"n": "a"}, {"n": "b"}],
        "twice": ["1", "2"],
    }


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([("l[][a]", "1"), ("l[][a]", "2"), ("l[][b]", "1")], "differ in length"),
        ([("a", "1"), ("a[x]", "2")], "a value and for several"),
        ([("a[x]", "1"), ("a", "2")], "a value and for several"),
        ([("a[]", "1"), ("a[x]", "2")], "a list and a mapping"),
        ([("a[", "1")], "no name of a field"),
        ([("a" + "[x]" * 50, "1")], "no name of a field"),
        ([("[a]", "1")], "no name of a field"),
        ([("image[x]", ("a.png", b"1"))], "must not be a file"),
    ],
)
def test_forms_that_mean_nothing(fields: list[tuple[str, Any]], words: str) -> None:
    with pytest.raises(ApiError, match=words) as caught:
        read_form(fields)
    assert (caught.value.status, caught.value.code) == (400, "invalid_form")


def test_files_of_a_list_keep_their_order() -> None:
    fields = [("image[]", ("upload", b"1")), ("image[]", ("upload", b"2")), ("mask", ("m", b"3"))]
    assert read_form(fields)[1] == {"image": [b"1", b"2"], "mask": [b"3"]}


@pytest.mark.parametrize(
    "data", [PNG, b"\xff\xd8\xff\xe0\0jpeg", b"GIF89a\x01\0\x01\0", b"RIFF\x01\x02\x03\x04WEBPVP8 \xe9"]
)
def test_a_picture_without_a_file_name_is_a_file(data: bytes) -> None:
    values, files = read_form([("image", (None, data)), ("prompt", "GIF89a of a fox")])
    assert files["image"] == [data]
    assert values.keys() | files.keys() == {"image", "prompt"}


def test_a_prompt_that_begins_like_a_picture_is_a_text() -> None:
    assert read_form([("prompt", "GIF89a of a fox"), ("negative_prompt", "RIFF and WEBP")])[1] == {}


@pytest.mark.parametrize(
    "content",
    [
        b"--x\r\nnonsense\r\n\r\n1\r\n--x--",
        b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1',
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x\r\n',
        b'--x\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\n1\r\n',
        b"",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"1" * (MB + 1) + b"\r\n--x--",
    ],
)
def test_broken_forms(content: bytes) -> None:
    assert refusal(content, "multipart/form-data; boundary=x").code == "invalid_form"


def test_a_form_without_a_boundary() -> None:
    assert refusal(b"nothing", "multipart/form-data").code == "invalid_form"


def test_content_knows_files_by_what_is_in_them() -> None:
    def said(data: bytes, prompt: str) -> Any:
        return read_form([("prompt", prompt), ("image", ("a.png", data))], lambda body: body.content())

    assert said(b"1", "a") == said(b"1", "a")
    assert json.dumps(said(b"1", "a"))
    assert len({json.dumps(said(*entry)) for entry in ((b"1", "a"), (b"2", "a"), (b"1", "b"))}) == 3


def test_files_can_be_read_after_they_were_hashed_and_are_closed_at_the_end() -> None:
    kept: list[Any] = []

    def hold(body: Any) -> None:
        body.content()
        kept.append(body.uploads["image"][0])
        assert kept[0].file.read() == PNG

    read_form([("image", ("a.png", PNG))], hold)
    assert kept[0].file.closed
