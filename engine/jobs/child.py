"""The worker process as its parent sees it: started, spoken to, stopped."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from engine.runtime.channel import Channel, Message

COMMAND = (sys.executable, "-m", "engine.worker")


class Child:
    """A worker that was started and not yet seen to end."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        """Start it. Raises OSError."""
        ours, theirs = socket.socketpair()
        self.channel = Channel(ours)
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [*command, str(theirs.fileno())], pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL
                )
        except OSError:
            self.channel.close()
            raise

    def send(self, op: str, **fields: Any) -> bool:
        """Send a command; return False when nobody is there to take it."""
        return self.channel.send({"op": op, **fields})

    def receive(self, timeout: float | None = None) -> Message | None:
        """Return the next event; None when none came in time. Raises EOFError when the worker has ended."""
        return self.channel.receive(timeout)

    def stop(self, grace_s: float = 10.0) -> int:
        """End the worker, by force after `grace_s` seconds; return its exit status.

        It is told, and our end is closed, so that it is not held up by what nobody reads any more.
        """
        self.send("stop")
        self.channel.close()
        try:
            return self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
