"""The world of tiny-scenes: what a landscape may hold, which landscapes are plausible, which are kept from training."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, replace

TIMES = ("dawn", "day", "sunset", "night")
PLACES = ("mountains", "hills", "sea", "beach", "desert", "forest", "meadow", "snow", "lake", "city")
WEATHERS = ("clear", "clouds", "rain", "snow", "fog", "rainbow")
SIDES = ("left", "center", "right")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")

# The colours a thing comes in; an empty tuple is a thing whose colour nobody would name.
KINDS: dict[str, tuple[str, ...]] = {
    "house": ("red", "blue", "yellow", "white", "pink"),
    "lighthouse": ("red", "blue", "white", "green"),
    "windmill": ("white", "red", "blue"),
    "sailboat": ("white", "red", "yellow", "blue", "orange"),
    "balloon": ("red", "orange", "yellow", "green", "blue", "purple", "pink"),
    "tent": ("orange", "red", "blue", "yellow", "green"),
    "umbrella": ("red", "yellow", "blue", "pink"),
    "bridge": ("red", "white"),
    "flowers": ("red", "yellow", "purple", "white", "pink"),
    "pine": (),
    "palm": (),
    "cactus": (),
    "snowman": (),
    "birds": (),
}
SIDELESS = ("bridge", "flowers")  # these span the whole picture

ALLOWED: dict[str, tuple[str, ...]] = {
    "mountains": ("house", "pine", "balloon", "birds", "tent"),
    "hills": ("house", "windmill", "balloon", "birds", "pine", "tent"),
    "sea": ("sailboat", "lighthouse", "balloon", "birds", "bridge"),
    "beach": ("sailboat", "palm", "umbrella", "lighthouse", "birds", "balloon"),
    "desert": ("cactus", "palm", "balloon", "tent", "birds"),
    "forest": ("house", "tent", "birds", "balloon"),
    "meadow": ("house", "windmill", "flowers", "balloon", "birds", "tent"),
    "snow": ("house", "pine", "snowman", "balloon", "birds", "tent"),
    "lake": ("sailboat", "house", "pine", "bridge", "birds", "balloon", "tent"),
    "city": ("bridge", "balloon", "birds", "sailboat"),
}
WEATHER_PRIOR = {"clear": 0.36, "clouds": 0.26, "rain": 0.1, "snow": 0.1, "fog": 0.09, "rainbow": 0.09}
COUNT_PRIOR = (0.26, 0.40, 0.24, 0.10)  # how many things a scene holds
SKY_KINDS = ("balloon", "birds")


@dataclass(frozen=True)
class Thing:
    """One object: its kind, its colour ("" where none is named) and its side ("" where it spans the picture)."""

    kind: str
    colour: str
    side: str


@dataclass(frozen=True)
class Scene:
    """Everything a caption may say about a picture, and the seed of everything it may not."""

    time: str
    place: str
    weather: str
    things: tuple[Thing, ...]
    seed: int

    def mirrored(self) -> Scene:
        """The scene of the picture seen in a mirror."""
        swap = {"left": "right", "right": "left"}
        return replace(self, things=tuple(replace(t, side=swap.get(t.side, t.side)) for t in self.things))


def possible(time: str, place: str, weather: str) -> bool:
    """Whether such weather comes to such a place at such a time."""
    if weather == "snow" and place in ("desert", "beach", "sea"):
        return False
    if weather == "rain" and place in ("desert", "snow"):
        return False
    if weather == "rainbow" and time == "night":
        return False
    return not (weather == "fog" and place == "desert")


def _held(*key: str, share: float) -> bool:
    digest = hashlib.sha256("/".join(key).encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < share


def held_out(scene: Scene) -> bool:
    """Whether training never sees some (time, place, weather) or (time, place, kind, colour) of the scene."""
    if _held("sky", scene.time, scene.place, scene.weather, share=0.1):
        return True
    return any(t.colour and _held("thing", scene.time, scene.place, t.kind, t.colour, share=0.1) for t in scene.things)


def _things(rng: random.Random, time: str, place: str, weather: str, count: int) -> tuple[Thing, ...]:
    kinds = [k for k in ALLOWED[place] if not (k == "birds" and (time == "night" or weather in ("rain", "snow")))]
    if weather == "snow":
        kinds = [k for k in kinds if k not in ("palm", "umbrella", "flowers")]
    chosen = rng.sample(kinds, min(count, len(kinds)))
    if "bridge" in chosen:  # a bridge takes the room that boats, houses and towers would stand in
        chosen = [k for k in chosen if k == "bridge" or k in SKY_KINDS]
    free = {"sky": list(SIDES), "ground": list(SIDES)}
    out = []
    for kind in chosen:
        side = ""
        if kind not in SIDELESS:
            # Things share a picture without covering each other: a side is given once per layer.
            layer = free["sky" if kind in SKY_KINDS else "ground"]
            side = layer.pop(rng.randrange(len(layer)))
        out.append(Thing(kind, rng.choice(KINDS[kind]) if KINDS[kind] else "", side))
    return tuple(out)


def _draw_scene(rng: random.Random, seed: int) -> Scene:
    while True:
        time, place = rng.choice(TIMES), rng.choice(PLACES)
        weather = rng.choices(list(WEATHER_PRIOR), list(WEATHER_PRIOR.values()))[0]
        if possible(time, place, weather):
            break
    count = rng.choices(range(4), COUNT_PRIOR)[0]
    return Scene(time, place, weather, _things(rng, time, place, weather, count), seed)


def sample(seed: int, held: bool = False) -> Scene:
    """The scene of a seed: one that training may see, or with `held` one that it never does."""
    rng = random.Random(seed)
    while True:
        scene = _draw_scene(rng, seed)
        if held_out(scene) == held:
            return scene
