"""Worker processes: spoken to, stopped, and never left behind."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from engine.jobs.child import Child

ECHO = """
import socket, sys
from engine.runtime.channel import Channel
channel = Channel(socket.socket(fileno=int(sys.argv[1])))
while (message := channel.receive()[0])["op"] != "stop":
    channel.send({"event": message["text"]})
"""
DEAF = "import time; time.sleep(60)"
CHATTY = """
import socket, sys
from engine.runtime.channel import Channel
channel = Channel(socket.socket(fileno=int(sys.argv[1])))
while channel.send({"event": "more"}, bytes(100000)):
    pass
"""


@pytest.fixture
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


def script(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


@pytest.mark.usefixtures("_root")
def test_a_worker_is_spoken_to_and_stopped() -> None:
    child = Child(script(ECHO))
    assert child.send("say", text="hello")
    assert child.receive(20) == ({"event": "hello"}, b"")
    assert child.receive(0) is None
    assert child.stop() == 0
    assert not child.send("say", text="gone")


def test_a_worker_that_does_not_listen_is_killed() -> None:
    child = Child(script(DEAF))
    assert child.stop(grace_s=0.1) == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):  # no zombie either
        os.kill(child.process.pid, 0)


@pytest.mark.usefixtures("_root")
def test_a_worker_that_nobody_hears_any_more_can_end() -> None:
    child = Child(script(CHATTY))
    assert child.receive(20) is not None
    assert child.stop(grace_s=20) == 0


def test_a_worker_that_ends_is_heard_to_end() -> None:
    child = Child(script("raise SystemExit(7)"))
    with pytest.raises(EOFError):
        child.receive(20)
    assert child.stop() == 7
