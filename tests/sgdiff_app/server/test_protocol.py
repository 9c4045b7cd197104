"""Requests that the parser refuses: the same envelope, an id, and the end of the connection."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol

from sgdiff_app.server.protocol import Protocol
from tests.sgdiff_app.server.serving import Running


@pytest.mark.parametrize(
    "raw",
    [
        b"CONJURE /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"hello\r\n\r\n",
        b"POST /v1/set_lora HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_no_request_is_answered_in_the_envelope(server: Running, raw: bytes) -> None:
    place = urlsplit(server.url)
    with closing(socket.create_connection((place.hostname or "", place.port or 0), timeout=10)) as connection:
        connection.sendall(raw)
        with http.client.HTTPResponse(connection) as answer:
            answer.begin()
            told = json.loads(answer.read())["error"]
            assert (answer.status, told["code"], told["type"]) == (400, "invalid_request", "invalid_request_error")
            assert set(told) == {"message", "type", "param", "code"}
            assert (answer.headers["x-request-id"] or "").startswith("req_")
        assert connection.recv(1) == b"", "the connection stays open"
    assert server.client.get("/health").status_code == 200


def test_the_method_is_one_that_uvicorn_calls() -> None:
    """In both of its protocols: the other one serves where httptools is not installed."""
    for base in (Protocol.__bases__[0], H11Protocol):
        assert callable(base.__dict__["send_400_response"])
