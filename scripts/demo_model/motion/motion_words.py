"""Words for clips: from keywords to sentences; what is said is always true, and some of it is left out."""

from __future__ import annotations

import random

from world import Motion


def caption(motion: Motion, rng: random.Random) -> str:
    """A training caption."""
    said = [motion.middle, motion.place, f"{motion.colour} {motion.thing}".strip(), motion.direction, motion.sky]
    return ", ".join(s for s in said if s)
