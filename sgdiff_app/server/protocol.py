"""What stands between the connection and the gate: requests that cannot be read are answered like all others."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from engine.jobs.job import new_id
from sgdiff_app.server import errors

Base: Any = object if TYPE_CHECKING else AutoHTTPProtocol  # which of two classes it is depends on what is installed


class Protocol(Base):  # type: ignore[misc]
    """The HTTP protocol of the server, with errors of its parser in the envelope."""

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, or has a method that nobody knows, and close the connection."""
        answer = errors.response(errors.invalid("invalid_request", "this is no valid HTTP request"))
        own = [(b"x-request-id", new_id("req").encode()), (b"connection", b"close")]
        lines = [f"HTTP/1.1 {answer.status_code} {HTTPStatus(answer.status_code).phrase}".encode()]
        lines += [name + b": " + value for name, value in (*answer.raw_headers, *own)]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(answer.body)]))
        self.transport.close()
