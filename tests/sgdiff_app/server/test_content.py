"""Files of finished images: whole and in ranges, variants, what is not there, cloud storage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.sgdiff_app.server.pictures import SMALL, error_of
from tests.sgdiff_app.server.serving import Running

GENERATIONS = "/v1/images/generations"


def drawn(server: Running, **values: Any) -> str:
    """Draw, and return the path of the content."""
    answer = server.client.post(GENERATIONS, json={**SMALL, **values}).json()
    return f"/v1/images/{answer['id']}/content"


def test_a_file(server: Running) -> None:
    path = drawn(server)
    whole, head = server.client.get(path, headers={"accept": "application/binary"}), server.client.head(path)
    assert whole.content.startswith(b"\x89PNG")
    assert head.status_code == 200
    assert head.content == b""
    for name in ("content-type", "content-length", "etag", "content-disposition", "accept-ranges"):
        assert whole.headers[name] == head.headers[name]
    assert whole.headers["content-type"] == "image/png"
    assert 'filename="img_' in whole.headers["content-disposition"]
    assert str(server.service.queue.delivery.folder) not in str(whole.headers)
    assert server.client.get(drawn(server, output_format="webp")).headers["content-type"] == "image/webp"


def test_case_46_ranges(server: Running) -> None:
    path = drawn(server)
    whole = server.client.get(path)
    size = len(whole.content)
    assert size > 100
    for wanted, first, last in (
        ("0-99", 0, 99),
        ("10-", 10, size - 1),
        ("-7", size - 7, size - 1),
        ("0-999999", 0, size - 1),
    ):
        answer = server.client.get(path, headers={"range": f"bytes={wanted}"})
        assert answer.status_code == 206
        assert answer.headers["content-range"] == f"bytes {first}-{last}/{size}"
        assert answer.content == whole.content[first : last + 1]
    several = server.client.get(path, headers={"range": "bytes=0-1,5-6"})
    assert (several.status_code, several.headers["content-type"].partition(";")[0]) == (206, "multipart/byteranges")
    stale = server.client.get(path, headers={"range": "bytes=0-1", "if-range": '"other"'})
    assert (stale.status_code, stale.content) == (200, whole.content)


@pytest.mark.parametrize("wanted", ["foo", "bytes", "bytes=", "bytes=a-b", "bytes=5-2", "lines=0-1", "bytes=--1"])
def test_what_is_no_range_means_the_whole_file(server: Running, wanted: str) -> None:
    path = drawn(server)
    assert server.client.get(path, headers={"range": wanted}).content == server.client.get(path).content


@pytest.mark.parametrize("wanted", ["bytes=99999-", "bytes=-0"])
def test_ranges_outside_the_file(server: Running, wanted: str) -> None:
    path = drawn(server)
    answer = server.client.get(path, headers={"range": wanted})
    assert error_of(answer, 416)["code"] == "invalid_range"
    assert answer.headers["content-range"] == f"bytes */{len(server.client.get(path).content)}"


def test_variants(server: Running) -> None:
    path = drawn(server, n=2)
    first, second = (server.client.get(f"{path}?variant={i}").content for i in range(2))
    assert first != second
    assert server.client.get(path).content == first
    for variant, status, code in (
        ("2", 404, "variant_not_found"), ("9999", 404, "variant_not_found"), ("video", 400, "invalid_variant"),
        ("-1", 400, "invalid_variant"), ("", 400, "invalid_variant"), ("1" * 5000, 400, "invalid_variant"),
    ):  # fmt: skip
        error = error_of(server.client.get(path, params={"variant": variant}), status)
        assert (error["code"], error["param"]) == (code, "variant")


def test_what_is_not_there(server: Running) -> None:
    assert error_of(server.client.get("/v1/images/img_nope/content"), 404)["code"] == "not_found"
    server.client.post(GENERATIONS, json={**SMALL, "prompt": "FAULT"})
    job = server.service.queue.page(limit=1)[0][0]
    assert error_of(server.client.get(f"/v1/images/{job.id}/content"), 404)["code"] == "image_failed"
    path = drawn(server)
    job = server.service.queue.page(limit=1)[0][0]
    Path(job.artifacts[0].location).unlink()
    error = error_of(server.client.get(path), 404)
    assert error["code"] == "content_not_stored"
    assert job.id not in error["message"]


def test_files_whose_time_is_over(server: Running) -> None:
    path = drawn(server)
    job = server.service.queue.page(limit=1)[0][0]
    job.expired = True
    server.service.queue.keep(job)
    assert error_of(server.client.get(path), 404)["code"] == "content_expired"


def test_an_object_in_the_cloud_is_where_its_url_leads(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    path = drawn(server)
    job = server.service.queue.page(limit=1)[0][0]
    job.artifacts = [replace(job.artifacts[0], key="folder/a.png")]
    server.service.queue.keep(job)
    cloud = SimpleNamespace(url=lambda key: f"https://bucket.example/{key}?signed", read=None, delete=None)
    monkeypatch.setattr(server.service.queue.delivery, "cloud", cloud)
    answer = server.client.get(path, follow_redirects=False)
    assert answer.status_code == 302
    assert answer.headers["location"] == "https://bucket.example/folder/a.png?signed"
