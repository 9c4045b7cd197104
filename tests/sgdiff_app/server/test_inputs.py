"""Input images: by file, URL or data URI, checked by content and kept, or refused without a connection."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from sgdiff_app.server.service import LONG
from tests.sgdiff_app.server.pictures import Web, changed, data_uri, decoded, error_of, picture, sends
from tests.sgdiff_app.server.serving import Running, Server

ROUTE = "/v1/images/edits"
PROMPT = {"prompt": "a fox", "size": "64x64"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that fetches from this machine, and takes pictures of up to 1 MB and one megapixel."""
    flags = ("--url-allow-hosts", "127.0.0.1", "--max-image-mb", "1", "--max-input-megapixels", "1")
    with Server(*flags, folder=tmp_path_factory.mktemp("server")) as running:
        yield running


def edit(server: Running, **values: Any) -> httpx.Response:
    return server.client.post(ROUTE, json={**PROMPT, **values})


def edit_file(server: Running, *files: tuple[str, Any]) -> httpx.Response:
    return server.client.post(ROUTE, data=PROMPT, files=list(files))


def kept(server: Running) -> list[Path]:
    folder = Path(server.service.options.input_save_path)
    return sorted(folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_files_are_known_by_their_content_and_kept_as_they_are(server: Running, kind: str) -> None:
    data = picture(kind=kind)
    response = edit_file(server, ("image", ("../../wrong.txt", data, "text/html")))
    assert decoded(response.json()["data"][0]).size == (64, 64)
    saved = [path for path in kept(server) if path.stem.startswith(response.json()["id"])]
    assert [path.read_bytes() for path in saved] == [data]
    assert saved[0].suffix == f".{kind.lower().replace('jpeg', 'jpg')}"


def test_a_part_without_name_and_type_is_a_file(server: Running) -> None:
    assert edit_file(server, ("image", (None, picture()))).status_code == 200
    assert edit_file(server, ("image", ("upload", picture(), "application/octet-stream"))).status_code == 200


def test_urls_and_data_uris(server: Running) -> None:
    uri = data_uri(picture())
    with Web(sends(picture(kind="JPEG"))) as web:
        url = f"http://127.0.0.1:{web.port}/a.svg?secret"
        for given in (url, uri, {"image_url": uri}, {"image_url": {"url": url}}):
            assert edit(server, image=given).status_code == 200
            assert edit(server, images=[given]).status_code == 200
        assert edit(server, url=url).status_code == 200
        assert server.client.post(ROUTE, files=[("url", (None, uri)), *((k, (None, v)) for k, v in PROMPT.items())])
        assert web.asked == ["/a.svg?secret"] * 5


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([("image", ("a.png", b"no picture"))], "is no image of a kind that can be read (png, jpeg, webp, gif, bmp)"),
        ([("image", ("a.png", b""))], "is no image"),
        ([("image", ("a.png", b"<svg></svg>"))], "is no image"),
        ([("image", ("a.png", picture()[:-30]))], "damaged"),
    ],
)
def test_files_that_are_no_pictures(server: Running, files: list[tuple[str, Any]], words: str) -> None:
    error = error_of(edit_file(server, *files))
    assert (error["code"], error["param"]) == ("invalid_image", "image")
    assert words in error["message"]


def test_pictures_that_are_too_large(server: Running) -> None:
    before = kept(server)
    many = error_of(edit_file(server, ("image", ("a.png", picture((1001, 1000))))), 400)
    assert many["code"] == "image_too_large"
    assert "1000000 pixels" in many["message"]
    long = picture() + b"\0" * 1_000_000
    for response in (edit_file(server, ("image", ("a.png", long))), edit(server, image=data_uri(long))):
        error = error_of(response, 413)
        assert (error["code"], error["param"]) == ("image_too_large", "image")
        assert "1 MB" in error["message"]
    assert kept(server) == before


def test_too_many_pictures(server: Running) -> None:
    error = error_of(edit_file(server, *[("image[]", ("a.png", picture()))] * 17))
    assert error["code"] == "too_many_images"
    assert "16" in error["message"]
    error = error_of(edit(server, image=[data_uri(picture())] * 17))
    assert (error["code"], error["param"]) == ("too_many_images", "image")
    error = error_of(edit_file(server, *[("image[]", ("a.png", picture()))] * 2))
    assert (error["code"], error["param"]) == ("too_many_images", "image")
    assert "takes one image, got 2" in error["message"]


def test_case_17_urls_that_give_no_picture(server: Running) -> None:
    with Web(sends(b"x" * 3_000_000)) as large, Web(sends(b"page")) as page, Web(sends(b"", status=404)) as gone:
        for web, words in ((large, "is larger than 1 MB"), (page, "is no image"), (gone, "answered 404")):
            error = error_of(edit(server, image=f"http://127.0.0.1:{web.port}/x"))
            assert error["code"] == "image_fetch_failed"
            assert error["message"].startswith("Failed to process image source: ")
            assert words in error["message"]
    error = error_of(edit(server, image=f"http://127.0.0.1:{page.port}/x"))
    assert error["code"] == "image_fetch_failed"
    assert error["message"].startswith("Failed to process image source: ")


@pytest.mark.parametrize(
    "url", ["/etc/passwd", "image_url.jpg", "file:/etc/passwd", "ftp://host/a.png", "data:text/plain;base64,eA==", ""]
)
def test_case_50_what_is_no_url_of_an_image(server: Running, url: str) -> None:
    for field in ("image", "url"):
        error = error_of(edit(server, **{field: url}))
        assert (error["code"], error["param"]) == ("invalid_url", field)


def test_case_50_addresses_that_are_not_public(server: Running) -> None:
    with Web(sends(picture())) as web, changed(server, url_allow_hosts=None):
        hosts = ("127.0.0.1", "[::1]", "2130706433", "0x7f.1", "localhost", "127.0.0.1.", "[::ffff:127.0.0.1]")
        urls = [f"http://{host}:{web.port}/" for host in hosts]
        urls += ["http://127.0.0.1/", "http://169.254.169.254/latest", "http://10.0.0.1/", "http://100.64.0.1/"]
        for url in urls:
            error = error_of(edit(server, image=url))
            assert error["code"] == "image_fetch_failed"
        assert web.asked == []


def test_case_50_a_redirect_to_a_private_address(server: Running) -> None:
    def redirect(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("location", f"http://localhost:{target.port}/")
        handler.end_headers()

    with Web(sends(picture())) as target, Web(redirect) as web:
        error = error_of(edit(server, image=f"http://127.0.0.1:{web.port}/"))
        assert error["code"] == "image_fetch_failed"
        assert (len(web.asked), target.asked) == (1, [])


def test_pictures_that_do_not_come_hold_nobody_up(server: Running) -> None:
    let_go = threading.Event()

    def hangs(handler: http.server.BaseHTTPRequestHandler) -> None:
        let_go.wait(20)

    count = 3 * LONG
    with Web(hangs) as web, ThreadPoolExecutor(count) as pool:
        url = f"http://127.0.0.1:{web.port}/"
        answers = [pool.submit(edit, server, image=url) for _ in range(count)]
        try:
            while len(web.asked) < LONG:
                time.sleep(0.01)
            quick = httpx.get(f"{server.url}/v1/jobs", timeout=5)
            drawn = httpx.post(f"{server.url}{ROUTE}", json={**PROMPT, "image": data_uri(picture())}, timeout=5)
        finally:
            let_go.set()
    assert (quick.status_code, drawn.status_code) == (200, 200)
    assert {answer.result().status_code for answer in answers} == {400}


def test_urls_can_be_turned_off(server: Running) -> None:
    with Web(sends(picture())) as web, changed(server, disable_url_inputs=True):
        error = error_of(edit(server, image=f"http://127.0.0.1:{web.port}/"))
        assert "--disable-url-inputs" in error["message"]
        assert web.asked == []
        assert edit(server, image=data_uri(picture())).status_code == 200


@pytest.mark.parametrize("value", [{"file_id": "x"}, {"image_url": 3}, {"image_url": {}}, {}])
def test_objects_that_name_no_url(server: Running, value: Any) -> None:
    error = error_of(edit(server, image=value))
    assert (error["code"], error["param"]) == ("invalid_url", "image")
    assert "image_url" in error["message"]


def test_nothing_is_kept_of_what_is_refused(server: Running) -> None:
    before = kept(server)
    error_of(edit_file(server, ("image", ("a.png", picture())), ("seed", (None, b"-1"))))
    last = ("seed", (None, str(2**63 - 1).encode()))
    error_of(edit_file(server, ("image", ("a.png", picture())), last, ("n", (None, b"2"))))
    assert kept(server) == before


def test_inputs_go_with_the_job(server: Running) -> None:
    before = kept(server)
    job = edit_file(server, ("image", ("a.png", picture()))).json()["id"]
    assert len(kept(server)) == len(before) + 1
    server.service.queue.delete(job)
    assert kept(server) == before


def test_a_server_that_keeps_no_inputs(server: Running) -> None:
    before, scratch = kept(server), server.service.queue.delivery.scratch
    with changed(server, input_save_path=""):
        assert edit_file(server, ("image", ("a.png", picture()))).status_code == 200
    assert list(scratch.rglob("*.png")) == []
    assert kept(server) == before
