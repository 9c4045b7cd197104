"""Pictures and pages for the tests of the routes: files to send, a web server to fetch from, what an answer holds."""

from __future__ import annotations

import base64
import http.server
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
from PIL import Image

from tests.sgdiff_app.server.serving import Running

SMALL = {"prompt": "a fox", "size": "64x64", "seed": 7}


@contextmanager
def changed(server: Running, **options: Any) -> Iterator[None]:
    """The server with other settings meanwhile."""
    service, before = server.service, server.service.options
    service.options = replace(before, **options)
    try:
        yield
    finally:
        service.options = before


def picture(size: tuple[int, int] = (64, 64), kind: str = "PNG", mode: str = "RGB") -> bytes:
    """The bytes of a picture of one colour."""
    stream = io.BytesIO()
    Image.new(mode, size, "red" if mode == "RGB" else 255).save(stream, kind)
    return stream.getvalue()


def data_uri(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def decoded(entry: dict[str, Any]) -> Image.Image:
    """The picture in an entry of an answer, or in an event."""
    image = Image.open(io.BytesIO(base64.b64decode(entry["b64_json"])))
    image.load()
    return image


def error_of(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    """The error of an answer, in the envelope."""
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


class Web(http.server.ThreadingHTTPServer):
    """A web server on this machine that answers every path as it is told, and counts."""

    daemon_threads = True

    def __init__(self, answer: Callable[[http.server.BaseHTTPRequestHandler], object]) -> None:
        self.asked, web = list[str](), self

        class Handler(http.server.BaseHTTPRequestHandler):
            """One request."""

            def do_GET(self) -> None:
                web.asked.append(self.path)
                answer(self)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


def sends(data: bytes, headers: dict[str, str] | None = None, status: int = 200) -> Callable[..., None]:
    """Answer with some bytes."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"content-length": str(len(data)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer
