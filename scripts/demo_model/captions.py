"""Words for scenes: a grammar with many paraphrases, from one word to two sentences."""

from __future__ import annotations

import random

from scenes import Scene, Thing
from words import (
    FRAME,
    MOOD,
    PLACE_NOUN,
    PREP,
    SIDE_PHRASE,
    THING_NOUN,
    TIME_ADJ,
    TIME_NOUN,
    TIME_PHRASE,
    WEATHER_ADJ,
    WEATHER_PHRASE,
    WEATHER_SAID,
)


def _article(phrase: str) -> str:
    last, head = phrase.split()[-1], phrase.split()[0]
    if (last.endswith("s") and last not in ("cactus", "grass")) or last in ("cacti",) or head in ("a", "an", "the"):
        return phrase
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _thing(rng: random.Random, t: Thing, colour: bool, side: bool) -> str:
    noun = rng.choice(THING_NOUN[t.kind])
    if noun.startswith("a flock"):
        words = noun
    elif t.colour and colour:
        words = _article(f"{t.colour} {noun}")
        if rng.random() < 0.06:
            words = f"{_article(noun)} that {'are' if t.kind == 'flowers' else 'is'} {t.colour}"
    else:
        words = _article(noun)
    return f"{words} {rng.choice(SIDE_PHRASE[t.side])}" if side and t.side else words


def _join(parts: list[str], rng: random.Random) -> str:
    if len(parts) < 2:
        return "".join(parts)
    glue = rng.choice((" and ", ", ", " with ")) if len(parts) == 2 else rng.choice((" and ", ", and "))
    return ", ".join(parts[:-1]) + glue + parts[-1]


def describe(
    rng: random.Random, time: str, place: str, weather: str, things: list[Thing], colour: bool, side: bool, mood: float
) -> str:
    """A caption that says what is given; an empty string is an attribute left out."""
    said = [_thing(rng, t, colour, side) for t in things]
    rng.shuffle(said)
    adj = f"{rng.choice(MOOD)} " if rng.random() < mood else ""
    noun = rng.choice(PLACE_NOUN[place]) if place else ""
    where = f"{rng.choice(PREP[place])} {noun}" if place else ""
    if where.startswith("at ") and noun != "sea" and place == "sea":
        where = f"on the {noun}"
    when = rng.choice(TIME_PHRASE[time]) if time else ""
    sky = rng.choice(WEATHER_PHRASE[weather]) if weather else ""
    shape = rng.random()
    if shape < 0.16:  # keywords
        parts = [
            p
            for p in (
                rng.choice(TIME_ADJ[time]) if time else "",
                noun,
                rng.choice(WEATHER_ADJ[weather]) if weather else "",
                *said,
            )
            if p
        ]
        if rng.random() < 0.5:
            rng.shuffle(parts)
        return (adj + rng.choice((", ", ", ", " ")).join(parts)).strip()
    if shape < 0.34 and time:  # "a beautiful sunset over the mountains"
        head = rng.choice(TIME_NOUN[time])
        if weather and rng.random() < 0.5:
            head, sky = f"{rng.choice(WEATHER_ADJ[weather])} {head}", ""
        text = " ".join(w for w in (_article(adj + head), where, sky) if w)
        return text + (f"{rng.choice((' with ', ', ', ' and '))}{_join(said, rng)}" if said else "")
    if shape < 0.62 and said:  # "a red house by the lake at night"
        tail = [w for w in (where, when, sky) if w]
        if rng.random() < 0.3:
            rng.shuffle(tail)
        return f"{_join(said, rng)} {rng.choice((' ', ' ', ', ')).join(tail)}".strip()
    if shape < 0.74:  # two sentences
        first = " ".join(w for w in (_article(adj + noun) if noun else f"{_article(adj + 'landscape')}", when) if w)
        rest = []
        if weather:
            rest.append(rng.choice(WEATHER_SAID[weather]))
        if said:
            verb = "There is" if rng.random() < 0.7 else "We see"
            rest.append(f"{verb} {_join(said, rng)}.")
        return " ".join([first + ".", *rest])
    head = noun or rng.choice(("landscape", "scene", "view"))
    if weather and rng.random() < 0.4:
        head, sky = f"{rng.choice(WEATHER_ADJ[weather])} {head}", ""
    elif time and rng.random() < 0.3:
        head, when = f"{rng.choice(TIME_ADJ[time])} {head}", ""
    bits = [w for w in (when, sky) if w]
    rng.shuffle(bits)
    text = " ".join([_article(adj + head), *bits])
    return text + (f"{rng.choice((' with ', ', ', ', ', ' and '))}{_join(said, rng)}" if said else "")


def stranger(rng: random.Random) -> str:
    """A word nobody has seen."""
    return "".join(
        rng.choice(("ba", "zor", "qui", "lum", "te", "xo", "ri", "van", "ko", "eth", "pli", "mo", "su", "ng"))
        for _ in range(rng.randint(2, 4))
    )


def _polish(rng: random.Random, text: str) -> str:
    if rng.random() < 0.14:
        text = rng.choice(FRAME).format(text)
    if rng.random() < 0.05:
        words = text.split()
        words.insert(rng.randint(0, len(words)), stranger(rng))
        text = " ".join(words)
    if rng.random() < 0.06:
        text = text.replace(" the ", " ").replace("a ", "", 1)
    case = rng.random()
    if case < 0.4:
        text = text[:1].upper() + text[1:]
    elif case < 0.44:
        text = text.title()
    elif case < 0.46:
        text = text.upper()
    if rng.random() < 0.35 and not text.endswith("."):
        text += rng.choice((".", ".", ".", "!"))
    return text


def caption(scene: Scene, rng: random.Random) -> str:
    """A training caption of a scene: any part of it may go unsaid, and now and then all of it."""
    if rng.random() < 0.1:
        return ""
    if rng.random() < 0.025:
        return _polish(rng, " ".join(stranger(rng) for _ in range(rng.randint(1, 3))))
    if rng.random() < 0.16:  # one attribute alone
        pool = [rng.choice(TIME_NOUN[scene.time]), rng.choice(PLACE_NOUN[scene.place])]
        pool += [rng.choice(WEATHER_ADJ[scene.weather] + WEATHER_PHRASE[scene.weather] + (scene.weather,))]
        if "snow" in (scene.weather, scene.place):
            pool += ["snow", "snowy"]
        pool += [_thing(rng, t, rng.random() < 0.8, rng.random() < 0.3) for t in scene.things]
        return _polish(rng, rng.choice(pool))
    time = scene.time if rng.random() < 0.84 else ""
    place = scene.place if rng.random() < 0.88 else ""
    weather = scene.weather if rng.random() < (0.45 if scene.weather == "clear" else 0.84) else ""
    things = [t for t in scene.things if rng.random() < 0.88]
    if not (time or place or weather or things):
        return ""
    return _polish(rng, describe(rng, time, place, weather, things, rng.random() < 0.92, rng.random() < 0.55, 0.3))


def full(scene: Scene, rng: random.Random) -> str:
    """A caption that says everything about a scene: what the evaluation draws from."""
    text = describe(rng, scene.time, scene.place, scene.weather, list(scene.things), True, True, 0.2)
    return text[:1].upper() + text[1:]
