"""Wrong keys: each is answered late, many of one address are told to wait. A right one is never held up by it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from engine.profiler import monotonic
from sgdiff_app.server.origins import address_of

MOST_TRIES, TRIES_S = 10, 60.0  # wrong keys of one address, and the time in which they are counted
ADDRESSES = 1000  # of which that is remembered
LONGEST = 64  # characters of an address: a proxy may pass on whatever it was sent
DELAY_S = 0.5  # before a wrong key is answered
MOST_HELD = 256  # answers that are held back at the same time: more are given at once
SUBNET = 64  # bits of an IPv6 address that one client has


class Tries:
    """Counts the wrong keys that an address sends, whichever way.

    It never says whether a key may be looked at, only how a wrong one is answered: behind a proxy that is not known
    as one (uvicorn's FORWARDED_ALLOW_IPS; those of loopback are), all clients have its address.
    """

    def __init__(self) -> None:
        self.of: OrderedDict[str, list[float]] = OrderedDict()
        self.held = 0

    async def wrong(self, address: str) -> float:
        """Note a wrong key and hold back its answer; return in how many seconds another is welcome, 0 for at once."""
        address = client_of(address)
        seconds = self.wait(address)
        if not seconds:  # else who goes on trying would be kept out for longer and longer
            self.count(address)  # before anything is waited for: tries at the same time count as well
        if self.held < MOST_HELD:
            self.held += 1
            try:
                await asyncio.sleep(DELAY_S)
            finally:
                self.held -= 1
        return seconds

    def wait(self, address: str) -> float:
        """Return after how many seconds an address may try again; 0 for at once."""
        since = monotonic() - TRIES_S
        recent = [moment for moment in self.of.get(address, ()) if moment > since]
        return recent[-MOST_TRIES] - since if len(recent) >= MOST_TRIES else 0.0

    def count(self, address: str) -> None:
        """Note a try."""
        self.of[address] = [*self.of.pop(address, ()), monotonic()][-MOST_TRIES:]
        while len(self.of) > ADDRESSES:
            self.of.popitem(last=False)


def client_of(address: str) -> str:
    """Return what stands for a client: its address, of IPv6 the part that it cannot change at will."""
    found = address_of(address.partition("%")[0])
    if found is None:
        return address[:LONGEST]
    if found.version == 6:
        inside = found.ipv4_mapped
        return str(inside) if inside is not None else f"{int(found) >> (128 - SUBNET):x}/{SUBNET}"
    return str(found)
