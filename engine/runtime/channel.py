"""The line between a process and its worker: frames of a JSON header and raw bytes, over one socket."""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
from collections.abc import Mapping
from typing import Any

LENGTHS = struct.Struct("!II")  # of the header and of the bytes after it
CHUNK = 1 << 16

Message = tuple[dict[str, Any], bytes]


class Channel:
    """One end. Any thread may send; one thread receives."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self.lock = threading.Lock()
        self.buffer = bytearray()
        self.poll = select.poll()  # `select` cannot wait for more than 1024 files
        self.poll.register(end, select.POLLIN)

    def send(self, header: Mapping[str, Any], payload: bytes = b"") -> bool:
        """Send a message; return False when the other end is gone."""
        text = json.dumps(header).encode()
        try:
            with self.lock:
                self.socket.sendall(LENGTHS.pack(len(text), len(payload)) + text + payload)
        except OSError:
            return False
        return True

    def receive(self, timeout: float | None = None) -> Message | None:
        """Return the next message; None when none came within `timeout` seconds. Raises EOFError at the end."""
        while (message := self._parse()) is None:
            if not self.poll.poll(None if timeout is None else timeout * 1000):
                return None
            try:
                data = self.socket.recv(CHUNK)
            except OSError as error:
                raise EOFError from error
            if not data:
                raise EOFError
            self.buffer += data
        return message

    def close(self) -> None:
        """Close this end; the other one reads to the end."""
        self.socket.close()

    def _parse(self) -> Message | None:
        """Take one whole message out of what has come."""
        if len(self.buffer) < LENGTHS.size:
            return None
        lengths = LENGTHS.unpack_from(self.buffer)
        begin, end = LENGTHS.size + lengths[0], LENGTHS.size + sum(lengths)
        if len(self.buffer) < end:
            return None
        header, payload = bytes(self.buffer[LENGTHS.size : begin]), bytes(self.buffer[begin:end])
        del self.buffer[:end]
        return json.loads(header), payload
