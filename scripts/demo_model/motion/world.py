"""The world in motion: what a clip may show, what of it moves, and which combinations are kept from training."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

FRAMES, FPS, HEIGHT, WIDTH = 33, 16, 128, 192

TIMES = ("dawn", "day", "sunset", "night")
PLACES = ("sea", "mountains", "desert", "hills", "city", "forest")
COLOURS = ("red", "yellow", "green", "blue", "white")
DIRECTIONS = ("left", "right", "up")
SUN_SETS, NIGHT_FALLS = "sun sets", "night falls"
CLOUDS = {"left": "clouds left", "right": "clouds right"}
SKIES = (SUN_SETS, NIGHT_FALLS, CLOUDS["left"], CLOUDS["right"], "rain", "snow")  # what the sky can do

# The colours of a thing, where it is found, and where it goes: what goes nowhere stands in a clip whose sky moves.
KINDS: dict[str, tuple[str, ...]] = {
    "sailboat": ("red", "yellow", "blue", "white"),
    "balloon": ("red", "yellow", "green", "blue"),
    "birds": (),
    "house": ("red", "yellow", "blue", "white"),
    "lighthouse": ("red", "blue", "green"),
}
FOUND: dict[str, tuple[str, ...]] = {
    "sailboat": ("sea", "city"),
    "balloon": PLACES,
    "birds": PLACES,
    "house": ("mountains", "hills", "forest"),
    "lighthouse": ("sea",),
}
GOES: dict[str, tuple[str, ...]] = {
    "sailboat": ("left", "right"),
    "balloon": ("up",),
    "birds": ("left", "right"),
    "house": (),
    "lighthouse": (),
}
PLACE_PRIOR = {p: 1.6 if p == "sea" else 1.3 if p == "city" else 1.0 for p in PLACES}
MOVING_PRIOR = {"sailboat": 1.2, "balloon": 0.3, "birds": 0.3}


@dataclass(frozen=True)
class Motion:
    """Everything a caption may say about a clip, and the seed of everything it may not; "" is what is not there."""

    time: str  # of the first frame
    place: str
    sky: str  # one of SKIES
    thing: str
    colour: str
    direction: str  # where the thing goes
    seed: int

    @property
    def weather(self) -> str:
        """clear, clouds, rain or snow."""
        if self.sky in ("rain", "snow"):
            return self.sky
        return "clouds" if self.sky in CLOUDS.values() else "clear"

    @property
    def middle(self) -> str:
        """The time of day that the middle frame shows: half way from day to night it is sunset."""
        return "sunset" if self.sky == NIGHT_FALLS else self.time

    @property
    def last(self) -> str:
        """The time of day that the last frame shows."""
        return "night" if self.sky == NIGHT_FALLS else self.time

    @property
    def movements(self) -> tuple[str, ...]:
        """What moves: the thing, the sky, or both."""
        thing = f"{self.thing} {self.direction}" if self.direction else ""
        return tuple(m for m in (thing, self.sky) if m)


def possible(place: str, sky: str) -> bool:
    """Whether the sky does such a thing over such a place."""
    return not (sky == "snow" and place in ("desert", "sea")) and not (sky == "rain" and place == "desert")


def _held(*key: str) -> bool:
    digest = hashlib.sha256("/".join(("motion", *key)).encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < 0.1


def held_out(motion: Motion) -> bool:
    """Whether training never sees some (time, place, movement) or (place, thing, colour, direction) of the clip."""
    if any(_held("movement", motion.time, motion.place, m) for m in motion.movements):
        return True
    return bool(motion.thing) and _held("thing", motion.place, motion.thing, motion.colour, motion.direction)


def _sky(rng: random.Random, place: str, moving: bool) -> str:
    """What the sky does: something, where nothing else moves."""
    if moving and rng.random() < 0.6:
        return ""
    clouds, fall, light = (0.25, 0.12, 0.08) if moving else (0.15, 0.18, 0.18)
    prior = {SUN_SETS: light, NIGHT_FALLS: light, "rain": fall, "snow": fall}
    prior |= {CLOUDS["left"]: clouds, CLOUDS["right"]: clouds}
    prior = {k: v for k, v in prior.items() if possible(place, k)}
    return rng.choices(list(prior), list(prior.values()))[0]


def _draw(rng: random.Random, seed: int) -> Motion:
    place = rng.choices(list(PLACE_PRIOR), list(PLACE_PRIOR.values()))[0]
    prior = {k: v for k, v in MOVING_PRIOR.items() if place in FOUND[k]}
    moving = rng.random() < 0.6
    thing = rng.choices(list(prior), list(prior.values()))[0] if moving else ""
    sky = _sky(rng, place, moving)
    if not moving and rng.random() < 0.5:  # something to look at that stands still
        thing = rng.choice([k for k in KINDS if not GOES[k] and place in FOUND[k]] or [""])
    time = {SUN_SETS: "sunset", NIGHT_FALLS: "day"}.get(sky) or rng.choice(TIMES)
    colour = rng.choice(KINDS[thing]) if thing and KINDS[thing] else ""
    direction = rng.choice(GOES[thing]) if thing and GOES[thing] else ""
    return Motion(time, place, sky, thing, colour, direction, seed)


def _natural(motion: Motion) -> bool:
    """Birds fly by daylight and when nothing falls."""
    return motion.thing != "birds" or ("night" not in (motion.time, motion.last) and motion.sky not in ("rain", "snow"))


def sample(seed: int, held: bool = False) -> Motion:
    """The clip of a seed: one that training may see, or with `held` one that it never does."""
    rng = random.Random(seed)
    while True:
        motion = _draw(rng, seed)
        if _natural(motion) and held_out(motion) == held:
            return motion


NONE = "none"
LABELS: dict[str, tuple[str, ...]] = {
    "time": TIMES,
    "place": PLACES,
    "thing": (NONE, *KINDS),
    "colour": (NONE, *COLOURS),
    "direction": (NONE, *DIRECTIONS),
    "sky": (NONE, *SKIES),
    "first": TIMES,
    "last": TIMES,
}


def labels(motion: Motion) -> list[int]:
    """The clip as indices into LABELS: time, thing and colour as the middle frame shows them; where the thing goes;
    what the sky does; the time of day in the first and in the last frame."""
    said = (motion.middle, motion.place, motion.thing, motion.colour, motion.direction, motion.sky)
    words = (*said, motion.time, motion.last)
    return [names.index(word or NONE) for names, word in zip(LABELS.values(), words, strict=True)]
