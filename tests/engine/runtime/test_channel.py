"""Frames of a header and bytes over a socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from engine.runtime.channel import LENGTHS, Channel


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    first, second = (Channel(end) for end in socket.socketpair())
    yield first, second
    first.close()
    second.close()


def test_messages_arrive_whole_and_in_order(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    big = bytes(range(256)) * 2000
    sender = threading.Thread(
        target=lambda: [ours.send({"n": n, "text": "ü\n"}, big if n % 2 else b"") for n in range(6)]
    )
    sender.start()
    found = [theirs.receive(10) for _ in range(6)]
    sender.join()
    assert found == [({"n": n, "text": "ü\n"}, big if n % 2 else b"") for n in range(6)]


def test_a_message_may_come_in_pieces(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    whole = LENGTHS.pack(8, 3) + b'{"a": 1}' + b"xyz"
    for byte in whole[:-1]:
        ours.socket.sendall(bytes([byte]))
    assert theirs.receive(0) is None
    ours.socket.sendall(whole[-1:])
    assert theirs.receive(5) == ({"a": 1}, b"xyz")


def test_nothing_comes_in_time(ends: tuple[Channel, Channel]) -> None:
    assert ends[1].receive(0) is None
    assert ends[1].receive(0.01) is None


def test_what_was_sent_before_the_end_is_read_before_the_end(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    assert ours.send({"last": 1})
    ours.close()
    assert theirs.receive() == ({"last": 1}, b"")
    with pytest.raises(EOFError):
        theirs.receive()


def test_sending_to_nobody_is_told_and_raises_nothing(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    theirs.close()
    assert not ours.send({"a": 1})
    ours.close()
    assert not ours.send({"a": 1})
    with pytest.raises(EOFError):
        ours.receive(0)


def test_threads_do_not_mix_their_messages(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    payload = b"x" * 50_000
    threads = [
        threading.Thread(target=lambda name=name: [ours.send({"from": name}, payload) for _ in range(20)])  # type: ignore[misc]
        for name in range(4)
    ]
    for thread in threads:
        thread.start()
    found = [theirs.receive(10) for _ in range(80)]
    for thread in threads:
        thread.join()
    assert all(message is not None and message[1] == payload for message in found)
