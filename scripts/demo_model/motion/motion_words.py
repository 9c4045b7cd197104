"""Words for clips: from keywords to sentences; what is said is always true, and some of it is left out."""

from __future__ import annotations

import random

from captions import stranger
from words import MOOD, PLACE_NOUN, PREP, THING_NOUN, TIME_ADJ, TIME_NOUN, TIME_PHRASE
from world import CLOUDS, NIGHT_FALLS, SUN_SETS, Motion

# Words of an hour that promise a sky which falling or drifting weather does not show, or a sun that moves.
FAIR = ("sunny", "moon", "star", "blue sky", "bright", "orange sky", "broad", "noon", "glow")
SUN_MOVES = ("as the sun", "setting sun")

# {n} is the thing with its article and colour; the last three stand beside "is" and "are".
GOING = {
    "sailboat": (
        "sailing {d}",
        "sailing to the {d}",
        "moving {d}",
        "gliding to the {d}",
        "heading {d}",
        "going {d}",
        "sailing towards the {d}",
    ),
    "birds": (
        "flying {d}",
        "flying to the {d}",
        "crossing to the {d}",
        "crossing the sky to the {d}",
        "heading {d}",
        "flying towards the {d}",
    ),
    "balloon": ("rising", "going up", "rising into the sky", "floating up", "lifting off", "ascending", "flying up"),
}
GOES = {
    "sailboat": (
        "sails {d}",
        "sails to the {d}",
        "moves to the {d}",
        "glides to the {d}",
        "is sailing {d}",
        "sails {d}wards",
    ),
    "birds": (
        "fly {d}",
        "fly to the {d}",
        "cross to the {d}",
        "cross the sky to the {d}",
        "are flying {d}",
        "pass to the {d}",
        "cross the sky {d}wards",
    ),
    "balloon": ("rises", "goes up", "rises into the sky", "floats up", "lifts off", "is rising", "ascends"),
}
KEY = {
    "sailboat": ("sailing {d}", "{d}", "moving {d}", "to the {d}"),
    "birds": ("flying {d}", "{d}", "to the {d}", "crossing {d}"),
    "balloon": ("rising", "up", "going up", "rising up"),
}
STANDS = ("stands", "is standing", "is")
FROM = {"left": "from right to left", "right": "from left to right"}

SKY_GOES = {
    SUN_SETS: (
        "the sun sets",
        "the sun goes down",
        "the sun is setting",
        "the sun sinks",
        "the sun is going down",
        "sun setting",
    ),
    NIGHT_FALLS: (
        "day turns to night",
        "day turns into night",
        "day turning to night",
        "night falls",
        "darkness falls",
        "it gets dark",
        "night comes",
        "day becomes night",
        "the day ends and night falls",
    ),
    "clouds": (
        "clouds drift {d}",
        "clouds drift to the {d}",
        "clouds move to the {d}",
        "clouds are drifting {d}",
        "clouds drifting {d}",
        "clouds pass to the {d}",
    ),
    "rain": ("rain falls", "it rains", "it is raining", "rain is falling", "rain pours down", "rain falling"),
    "snow": ("snow falls", "it snows", "it is snowing", "snow is falling", "snowflakes fall", "snow falling"),
}
SKY_KEY = {
    SUN_SETS: ("setting sun", "sun setting", "sun going down", "the sun sets"),
    NIGHT_FALLS: ("day to night", "day turning to night", "nightfall", "from day to night", "night falling"),
    "clouds": ("clouds drifting {d}", "clouds moving {d}", "drifting clouds", "clouds", "cloudy"),
    "rain": ("rain", "falling rain", "rainy", "rainfall"),
    "snow": ("snow", "falling snow", "snowy", "snowfall"),
}
SKY_WITH = {
    SUN_SETS: ("with a setting sun", "as the sun sets", "while the sun goes down", "with the sun going down"),
    NIGHT_FALLS: ("as day turns to night", "as night falls", "while it gets dark", "turning from day to night"),
    "clouds": ("with clouds drifting {d}", "while clouds drift to the {d}", "under clouds moving {d}", "with clouds"),
    "rain": ("in the rain", "with falling rain", "while it rains", "in falling rain"),
    "snow": ("in the snow", "with falling snow", "while it snows", "in falling snow"),
}
FRAME = (
    "a video of {}",
    "a clip of {}",
    "an animation of {}",
    "video, {}",
    "{}, animation",
    "footage of {}",
    "a short film of {}",
    "{}, flat style",
    "a movie of {}",
    "{}, 4k",
    "a scene with {}",
    "an animated view of {}",
)


def _pick(rng: random.Random, choices: tuple[str, ...], direction: str = "") -> str:
    """One of the phrases; one in seven that names a direction says where from as well."""
    text = rng.choice(choices)
    if direction in FROM and "to the {d}" in text and rng.random() < 0.14:
        text = text.replace("to the {d}", FROM[direction])
    return text.format(d=direction)


def _article(words: str) -> str:
    if words.split()[-1].endswith("s") or words.split()[0] in ("a", "an", "the"):
        return words
    return ("an " if words[0] in "aeiou" else "a ") + words


def _hour(rng: random.Random, motion: Motion, table: dict[str, tuple[str, ...]]) -> str:
    """A word for the time of day; none where the time changes, for the movement says it."""
    if motion.sky == NIGHT_FALLS:
        return ""
    choices = [w for w in table[motion.time] if motion.sky == SUN_SETS or not any(k in w for k in SUN_MOVES)]
    if motion.weather != "clear":
        choices = [w for w in choices if not any(k in w for k in FAIR)]
    return rng.choice(choices)


def _thing(rng: random.Random, motion: Motion, colour: bool) -> str:
    noun = rng.choice(THING_NOUN[motion.thing])
    if noun.startswith("a flock") or not (motion.colour and colour):
        return _article(noun)
    if rng.random() < 0.05:
        return f"{_article(noun)} that is {motion.colour}"
    return _article(f"{motion.colour} {noun}")


def _sky(rng: random.Random, motion: Motion, table: dict[str, tuple[str, ...]], whole: bool) -> str:
    """What the sky does; `whole` never leaves out where clouds drift."""
    direction = {v: k for k, v in CLOUDS.items()}.get(motion.sky, "")
    choices = table["clouds" if direction else motion.sky]
    if whole and direction:
        choices = tuple(c for c in choices if "{d}" in c)
    return _pick(rng, choices, direction)


def _where(rng: random.Random, motion: Motion) -> str:
    place = rng.choice(PLACE_NOUN[motion.place])
    if motion.thing == "sailboat":
        return f"on the {place}" if motion.place == "sea" else rng.choice(("by the ", "near the ")) + place
    text = f"{rng.choice(PREP[motion.place])} {place}"
    if motion.thing in ("birds", "balloon"):
        return f"over the {place}"
    return text.replace("out on", "on").replace("over the", "in the") if motion.thing else text


def _keywords(rng: random.Random, motion: Motion, said: dict[str, bool]) -> str:
    parts = []
    if motion.thing and said["thing"]:
        noun = rng.choice(THING_NOUN[motion.thing]).removeprefix("a ")
        parts.append(f"{motion.colour} {noun}" if motion.colour and said["colour"] else noun)
    if said["place"]:
        parts.append(rng.choice(PLACE_NOUN[motion.place]))
    hour = _hour(rng, motion, TIME_NOUN if rng.random() < 0.7 else TIME_ADJ) if said["time"] else ""
    parts += [hour] if hour else []
    if rng.random() < 0.5:
        rng.shuffle(parts)
    if motion.sky and said["sky"]:
        parts.insert(rng.randint(0, len(parts)), _sky(rng, motion, SKY_KEY, said["whole"]))
    if motion.direction and said["thing"] and said["direction"]:  # last, or it might be said of the clouds
        at = next(i for i, w in enumerate(parts) if any(n.removeprefix("a ") in w for n in THING_NOUN[motion.thing]))
        near = at + 1 if motion.sky in CLOUDS.values() or rng.random() < 0.4 else len(parts)
        parts.insert(near, _pick(rng, KEY[motion.thing], motion.direction))
    return ", ".join(parts)


def _sentence(rng: random.Random, motion: Motion, said: dict[str, bool]) -> str:
    """One clause about the thing, or about the place; the sky comes along."""
    where = _where(rng, motion) if said["place"] else ""
    hour = _hour(rng, motion, TIME_PHRASE) if said["time"] else ""
    if motion.thing and said["thing"]:
        going = motion.direction and said["direction"]
        verb = rng.random() < 0.55
        table = GOES if verb else GOING
        does = _pick(rng, table[motion.thing], motion.direction) if going else ""
        if not motion.direction and verb and rng.random() < 0.4:
            does = rng.choice(STANDS)
        core = [_thing(rng, motion, said["colour"]), does]
        sky = _sky(rng, motion, SKY_WITH, said["whole"]) if motion.sky and said["sky"] else ""
        tail = [w for w in (where, hour) if w]
        rng.shuffle(tail)
        if does.endswith(" is") or does == "is":
            core, tail = core if where else core[:1], sorted(tail, key=lambda w: w != where)
        words = [*core, *tail, sky]
        if sky and rng.random() < 0.25 and not sky.startswith("turning"):
            words = [f"{sky},", *core, *tail]
        return " ".join(w for w in words if w)
    if motion.sky and said["sky"]:
        if rng.random() < 0.5:
            tail = [w for w in (where, hour if motion.sky != SUN_SETS or rng.random() < 0.3 else "") if w]
            return " ".join([_sky(rng, motion, SKY_GOES, said["whole"]), *tail])
        adjective = f"{rng.choice(MOOD)} " if rng.random() < 0.25 else ""
        head = rng.choice(PLACE_NOUN[motion.place]) if said["place"] else rng.choice(("landscape", "scene", "view"))
        return " ".join(w for w in (_article(adjective + head), hour, _sky(rng, motion, SKY_WITH, said["whole"])) if w)
    head = _article(rng.choice(PLACE_NOUN[motion.place])) if said["place"] else "a landscape"
    return f"{head} {hour}".strip()


def _two(rng: random.Random, motion: Motion, said: dict[str, bool]) -> str:
    """Two sentences: the place, then what moves."""
    head = _article(rng.choice(PLACE_NOUN[motion.place])) if said["place"] else "a landscape"
    hour = _hour(rng, motion, TIME_PHRASE) if said["time"] else ""
    parts = [f"{head} {hour}".strip()]
    if motion.thing and said["thing"]:
        does = _pick(rng, GOES[motion.thing], motion.direction) if motion.direction and said["direction"] else ""
        thing = _thing(rng, motion, said["colour"])
        parts.append(f"{thing} {does}" if does else f"there {'are' if motion.thing == 'birds' else 'is'} {thing}")
    if motion.sky and said["sky"]:
        parts.append(_sky(rng, motion, SKY_GOES, said["whole"]))
    return ". ".join(p[:1].upper() + p[1:] for p in parts) + "."


def _say(rng: random.Random, motion: Motion, said: dict[str, bool]) -> str:
    shape = rng.random()
    form = _keywords if shape < 0.35 else _sentence if shape < 0.82 else _two
    return form(rng, motion, said)


def _polish(rng: random.Random, text: str) -> str:
    if rng.random() < 0.12:
        text = rng.choice(FRAME).format(text.rstrip("."))
    if rng.random() < 0.04:
        words = text.split()
        words.insert(rng.randint(0, len(words)), stranger(rng))
        text = " ".join(words)
    if rng.random() < 0.05:
        text = text.replace(" the ", " ")
    case = rng.random()
    if case < 0.25:
        text = text[:1].upper() + text[1:]
    elif case < 0.27:
        text = text.title()
    if rng.random() < 0.25 and not text.endswith("."):
        text += "."
    return text


def caption(motion: Motion, rng: random.Random) -> str:
    """A training caption: any part of it may go unsaid, but never all of it."""
    chances = {"time": 0.88, "place": 0.9, "thing": 0.93, "colour": 0.92, "direction": 0.88, "sky": 0.88}
    if rng.random() < 0.1:  # one or two attributes alone
        chances = dict.fromkeys(chances, 0.35)
    said = {k: rng.random() < chance for k, chance in chances.items()}
    said["whole"] = False
    return _polish(rng, _say(rng, motion, said) or rng.choice(PLACE_NOUN[motion.place]))


def full(motion: Motion, rng: random.Random) -> str:
    """A caption that says everything about a clip: what the proof draws from."""
    everything = ("time", "place", "thing", "colour", "direction", "sky", "whole")
    return _say(rng, motion, dict.fromkeys(everything, True))
