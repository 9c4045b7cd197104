"""Wrong keys: how many of an address are answered late, which addresses are one client, what is remembered."""

from __future__ import annotations

import asyncio
import time

import pytest

from sgdiff_app.server import tries
from sgdiff_app.server.tries import MOST_TRIES, TRIES_S, Tries, client_of


def test_many_have_to_wait_until_they_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(tries, "monotonic", lambda: now)
    monkeypatch.setattr(tries, "DELAY_S", 0.0)
    found = Tries()
    assert [asyncio.run(found.wrong("192.0.2.1")) for _ in range(MOST_TRIES + 1)] == [0.0] * MOST_TRIES + [TRIES_S]
    assert asyncio.run(found.wrong("192.0.2.2")) == 0.0
    now += TRIES_S - 1
    for _ in range(2 * MOST_TRIES):
        assert asyncio.run(found.wrong("192.0.2.1")) == 1.0, "what comes meanwhile does not make it longer"
    now += 1
    assert asyncio.run(found.wrong("192.0.2.1")) == 0.0


def test_the_answer_is_held_back_unless_too_many_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "DELAY_S", 0.2)
    monkeypatch.setattr(tries, "MOST_HELD", 2)

    async def three() -> list[float]:
        found, began = Tries(), time.monotonic()

        async def one() -> float:
            await found.wrong("a")
            return time.monotonic() - began

        took = await asyncio.gather(one(), one(), one())
        assert found.held == 0
        return sorted(took)

    first, second, third = asyncio.run(three())
    assert first < 0.15 and 0.19 < second <= third


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "ADDRESSES", 3)
    found = Tries()
    for address in "abcd":
        for _ in range(2 * MOST_TRIES):
            found.count(address)
    assert list(found.of) == ["b", "c", "d"]
    assert {len(moments) for moments in found.of.values()} == {MOST_TRIES}
    assert len(client_of("x" * 10_000)) == tries.LONGEST


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "unix", False),
    ],
)
def test_what_is_one_client(one: str, other: str, same: bool) -> None:
    assert (client_of(one) == client_of(other)) is same
