"""The layers of a clip under one light: what stands still is drawn once, what moves is recorded."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import skia
from brush import (
    PAINT,
    SIZE,
    WHITE,
    Colour,
    Light,
    Painter,
    argb,
    at,
    fill,
    gradient,
    mix,
    rgb,
    stroke,
    times,
    vertical,
)
from draw import SUN_LIFT
from places import PLACES
from scenes import Scene
from sky import cloud_colours, light_of, moon, overcast, puff, stars, sun_disc
from things import balloon, bird, house, lighthouse, sailboat
from world import CLOUDS, HEIGHT, NIGHT_FALLS, SUN_SETS, WIDTH, Motion

TOP = 40.0  # a clip shows this row of the square world of the pictures and what lies below
SCALE = WIDTH / SIZE
BOTTOM = TOP + HEIGHT / SCALE
COARSE = 2.0  # details that a clip of 192 x 128 still shows well
GROW = {"house": 1.25, "sailboat": 1.3, "balloon": 1.22}
CLOUD_REACH = 120.0  # how far clouds are drawn beyond either edge
LINEAR = skia.SamplingOptions(skia.FilterMode.kLinear)


def rng_of(motion: Motion, part: str) -> random.Random:
    """A stream of its own for each part, so that two lights of one clip draw the same shapes."""
    return random.Random(f"{motion.seed}/{part}")


class Vivid(Light):
    """A light that leaves coloured things more of their own colour."""

    def thing(self, c: Colour, depth: float = 0.03) -> Colour:
        bright = mix(self.ambient, WHITE, 0.75)
        return mix(times(c, bright), self.haze, min(1.0, 0.5 * depth * self.haze_gain))


def lights(motion: Motion) -> list[Light]:
    """The light of a clip, or the lights that it passes through."""
    veil = motion.weather if motion.weather in ("rain", "snow") else "clear"

    def light(time: str) -> Light:
        found = light_of(Scene(time, motion.place, veil, (), motion.seed), rng_of(motion, "mood"))
        return Vivid(**{**vars(found), "weather": motion.weather})

    if motion.sky == NIGHT_FALLS:
        return [light("day"), light("sunset"), light("night")]
    if motion.sky == SUN_SETS:
        return [light("sunset"), _dusk(light("sunset"))]
    return [light(motion.time)]


def _dusk(light: Light) -> Light:
    """What is left of a sunset once the sun is gone."""
    violet = rgb("#2a1f4f")
    sky = [mix(c, violet, t) for c, t in zip(light.sky, (0.6, 0.52, 0.4, 0.25), strict=True)]
    ambient = (light.ambient[0] * 0.62, light.ambient[1] * 0.66, light.ambient[2] * 0.85)
    return replace(light, sky=sky, haze=mix(light.haze, violet, 0.45), ambient=ambient)


def matrix(canvas: skia.Canvas) -> None:
    """From the units that everything is drawn in to pixels."""
    canvas.scale(SCALE, SCALE)
    canvas.translate(0, -TOP)


def surface() -> skia.Surface:
    made = skia.Surface(WIDTH, HEIGHT)
    matrix(made.getCanvas())
    return made


def record(p: Painter, draw: Callable[[], None]) -> skia.Picture:
    """What `draw` draws, to be played back anywhere."""
    recorder, canvas = skia.PictureRecorder(), p.canvas
    p.canvas = recorder.beginRecording(skia.Rect.MakeLTRB(-512, -512, 768, 768))
    draw()
    p.canvas = canvas
    return recorder.finishRecordingAsPicture()


@dataclass
class Stage:
    """The layers from back to front; pictures are recorded around the point (0, 0)."""

    painter: Painter
    sky: skia.Image
    sun: skia.Picture | None  # where the sun moves
    clouds: skia.Picture | None
    land: skia.Image
    thing: skia.Picture | None  # that stands or moves as one piece
    ink: Colour  # of birds
    drop: skia.Paint  # of rain or snow
    veil: skia.Paint | None


def build(motion: Motion, light: Light) -> Stage:
    """Draws and records the layers of a clip under a light."""
    board = surface()
    p = Painter(board.getCanvas(), board, rng_of(motion, "land"), light, top=TOP, coarse=COARSE)
    p.horizon, p.sun_lift = p.rng.uniform(135, 143), SUN_LIFT.get(motion.place, 0.0)
    p.sun_x = p.rng.uniform(44, 212)
    if motion.sky == NIGHT_FALLS and light.time == "night":  # the moon rises across from where the sun went down
        p.sun_x = SIZE - p.sun_x
    horizon = p.horizon
    PLACES[motion.place](p, lambda: None)
    p.rect(0, 165, SIZE, 70, vertical(168, 224, (0.03, 0.03, 0.1), (0.03, 0.03, 0.1), 0.0, 0.22))
    thing = _still_thing(p, motion)
    land, ground = board.makeImageSnapshot(), p.horizon
    p.horizon = horizon
    sky = _sky(p, motion)
    clouds = record(p, lambda: _clouds(p, motion)) if motion.sky in CLOUDS.values() else None
    sun = None
    if motion.sky in (SUN_SETS, NIGHT_FALLS) and light.time != "night":
        r, spread = (20.0, 6.0) if light.time == "sunset" else (13.0, 7.0)
        sun = record(p, lambda: sun_disc(p, 0, 0, r, spread, 1.0))
    p.horizon = ground
    thing = thing or _moving_thing(p, motion)
    ink = mix(light.lit(rgb("#23273a")), (0.08, 0.09, 0.16), 0.7)
    return Stage(p, sky, sun, clouds, land, thing, ink, _drop(light), _veil(light))


def _sky(p: Painter, motion: Motion) -> skia.Image:
    board, canvas, light = surface(), p.canvas, p.light
    p.canvas, p.rng = board.getCanvas(), rng_of(motion, "sky")
    low = p.horizon + 6 - p.sun_lift * 0.6
    p.rect(0, 0, SIZE, SIZE, gradient((0, TOP), (0, low), [argb(c) for c in light.sky], (0.0, 0.38, 0.72, 1.0)))
    veiled = light.weather in ("rain", "snow")
    strength = 0.35 if veiled else 1.0
    if light.time == "night":
        if not veiled:
            stars(p, 14, 3.0)
        p.canvas.save()
        p.canvas.translate(0, TOP - 16)
        moon(p, 0.5 if veiled else 1.0)
        p.canvas.restore()
    elif motion.sky not in (SUN_SETS, NIGHT_FALLS):
        if light.time == "day":
            sun_disc(p, p.sun_x, TOP + p.rng.uniform(16, 34), p.rng.uniform(12, 14), 6.5, strength)
        else:
            y, low = p.horizon - p.sun_lift, light.time == "sunset"
            y -= p.rng.uniform(4, 26) if low else p.rng.uniform(10, 30)
            sun_disc(p, p.sun_x, y, p.rng.uniform(18, 23) if low else p.rng.uniform(12, 15), 6.5, strength)
    if light.weather == "rain":
        p.canvas.translate(0, TOP - 14)
        overcast(p)
    p.canvas = canvas
    return board.makeImageSnapshot()


def _clouds(p: Painter, motion: Motion) -> None:
    """A row of clouds that reaches beyond both edges."""
    p.rng = rng_of(motion, "clouds")
    top, base = cloud_colours(p.light)
    base = mix(base, p.light.sky[2], 0.25)
    x, row = -CLOUD_REACH, 0
    while x < SIZE + CLOUD_REACH:
        y = TOP + 28 + (0, 32, 14)[row % 3] + p.rng.uniform(-5, 5)
        p.canvas.save()
        p.canvas.translate(x - SIZE / 2, 0)
        puff(p, SIZE / 2, y, p.rng.uniform(54, 80), top, base, 0.95)
        p.canvas.restore()
        x, row = x + p.rng.uniform(78, 104), row + 1


def _still_thing(p: Painter, motion: Motion) -> None:
    """Things that stand are part of the land."""
    p.rng = rng_of(motion, "thing")
    x, c = p.rng.uniform(70, 186), PAINT.get(motion.colour, WHITE)
    if motion.thing == "house":
        _grown(p, x, min(at(p.stand, x), BOTTOM - 14), GROW["house"], lambda: house(p, 0, 0, c))
    elif motion.thing == "lighthouse":
        lighthouse(p, x, min(at(p.stand, x), BOTTOM - 20), c)


def _grown(p: Painter, x: float, y: float, grow: float, draw: Callable[[], None]) -> None:
    p.canvas.save()
    p.canvas.translate(x, y)
    p.canvas.scale(grow, grow)
    draw()
    p.canvas.restore()


def _moving_thing(p: Painter, motion: Motion) -> skia.Picture | None:
    c = PAINT.get(motion.colour, WHITE)
    if motion.thing == "sailboat":
        bow = -1 if motion.direction == "left" else 1
        return record(p, lambda: _grown(p, 0, 0, GROW["sailboat"], lambda: sailboat(p, 0, 0, c, bow)))
    if motion.thing == "balloon":
        return record(p, lambda: _grown(p, 0, 0, GROW["balloon"], lambda: balloon(p, 0, 0, c)))
    return None


def _drop(light: Light) -> skia.Paint:
    """The paint of what falls."""
    if light.weather == "rain":
        return stroke(mix(light.haze, WHITE, 0.7 if light.time != "night" else 0.5), 3.4, 0.75)
    return fill(WHITE, 0.9)


def _veil(light: Light) -> skia.Paint | None:
    """What falls, seen from afar."""
    if light.weather not in ("rain", "snow"):
        return None
    return vertical(TOP, BOTTOM, light.haze, light.haze, *((0.10, 0.22) if light.weather == "rain" else (0.05, 0.12)))


@dataclass(frozen=True)
class Bird:
    """One of a flock: where it flies beside the flock's middle, how large it is and when it beats its wings."""

    x: float
    y: float
    size: float
    phase: float


def flock(motion: Motion) -> list[Bird]:
    """Four or five birds in a loose arrow."""
    rng = rng_of(motion, "thing")
    away = 1 if motion.direction == "left" else -1
    out = []
    for i in range(rng.randint(4, 5)):
        arm, side = (i + 1) // 2, 1 if i % 2 else -1
        x, y = away * arm * 19 + rng.uniform(-3, 3), side * arm * 11 + rng.uniform(-2, 2)
        out.append(Bird(x, y, rng.uniform(12.5, 14.5), rng.random()))
    return out


def fly(canvas: skia.Canvas, stage: Stage, birds: list[Bird], x: float, y: float, time: float) -> None:
    """Draws a flock around (x, y)."""
    p, paint = stage.painter, stroke(stage.ink, 3.6)
    p.canvas = canvas
    for b in birds:
        bird(p, x + b.x, y + b.y, b.size, 0.45 + 0.3 * float(np.sin(6.283 * (time + b.phase))), paint)
