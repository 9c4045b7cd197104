"""Draws a clip: 33 frames of a scene in motion, deterministic and anti-aliased."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import skia
from brush import SIZE
from stage import BOTTOM, TOP, Bird, Stage, build, flock, fly, lights, matrix, rng_of
from world import CLOUDS, FPS, FRAMES, HEIGHT, NIGHT_FALLS, SUN_SETS, WIDTH, Motion

Track = tuple[float, float]  # (x, y) in the units of the pictures
SNOW, RAIN = 20, 18


@dataclass(frozen=True)
class Course:
    """Where a thing is in the first frame, and how far it gets until the last."""

    x: float
    y: float
    dx: float = 0.0
    dy: float = 0.0

    def at(self, t: float) -> Track:
        return self.x + self.dx * t, self.y + self.dy * t


def _course(motion: Motion, stage: Stage) -> Course:
    """Of the moving thing: through the middle of the picture, far enough to be plain."""
    rng = rng_of(motion, "course")
    sign = -1 if motion.direction == "left" else 1
    middle = SIZE / 2 + rng.uniform(-14, 14)
    if motion.thing == "balloon":
        return Course(SIZE / 2 + rng.uniform(-60, 60), rng.uniform(130, 136), 0.0, -rng.uniform(62, 70))
    if motion.thing == "sailboat":
        dx = sign * rng.uniform(0.38, 0.54) * SIZE
        water = (stage.painter.horizon + 30, BOTTOM - 16) if motion.place == "sea" else (BOTTOM - 20, BOTTOM - 12)
        return Course(middle - dx / 2, rng.uniform(*water), dx)
    dx = sign * rng.uniform(0.42, 0.58) * SIZE
    return Course(middle - dx / 2, TOP + rng.uniform(32, 46), dx, rng.uniform(-6, 6))


def _sun_course(motion: Motion, stage: Stage) -> Course:
    """Of a sun that sinks; where night falls it touches the horizon in the middle frame."""
    p = stage.painter
    low = p.horizon - p.sun_lift
    if motion.sky == NIGHT_FALLS:
        begin = max(low - 48, TOP + 16)
        return Course(p.sun_x, begin, 0.0, 2 * (low - 6 - begin))
    begin = max(low - 46, TOP + 24)
    return Course(p.sun_x, begin, 0.0, low + 30 - begin)


def _ramp(t: float, begin: float, end: float) -> float:
    """0 before `begin`, 1 after `end`, smooth between."""
    x = min(max((t - begin) / (end - begin), 0.0), 1.0)
    return x * x * (3 - 2 * x)


def _mixture(motion: Motion, t: float) -> list[tuple[int, float]]:
    """Which lights a frame shows, from back to front, and how strongly each covers what is behind it."""
    if motion.sky == SUN_SETS:
        return [(0, 1.0), (1, _ramp(t, 0.15, 1.0))]
    if motion.sky != NIGHT_FALLS:
        return [(0, 1.0)]
    if t <= 0.5:
        return [(0, 1.0), (1, _ramp(t, 0.06, 0.47))]
    return [(1, 1.0), (2, _ramp(t, 0.53, 0.95))]


class Falling:
    """Rain or snow: what leaves the picture below comes back above."""

    def __init__(self, motion: Motion) -> None:
        rng = rng_of(motion, "fall")
        self.snow = motion.weather == "snow"
        self.height = BOTTOM - TOP + 36
        n = SNOW if self.snow else RAIN
        self.at = [(rng.uniform(-20, SIZE + 20), rng.uniform(0, self.height), rng.random()) for _ in range(n)]
        self.slant = rng.uniform(-0.22, 0.22)

    def draw(self, canvas: skia.Canvas, paint: skia.Paint, frame: int) -> None:
        for x, y, k in self.at:
            if self.snow:
                down = y + frame * (1.5 + 0.8 * k)
                sway = 3.5 * math.sin(frame / FPS * 3.1 + 6.283 * k)
                canvas.drawCircle(x + sway, TOP - 18 + down % self.height, 3.0 + 1.6 * k, paint)
            else:
                down = (y + frame * (4.5 + 1.5 * k)) % self.height
                n = 22 + 8 * k
                x0 = x + self.slant * down
                y0 = TOP - 32 + down
                canvas.drawLine(x0, y0, x0 + self.slant * n, y0 + n, paint)


def _draw_frame(
    canvas: skia.Canvas, motion: Motion, stage: Stage, sun: Course, course: Course, birds: list[Bird], frame: int
) -> None:
    """All layers of one light but what falls."""
    t = frame / (FRAMES - 1)

    def play(picture: skia.Picture, x: float, y: float, turn: float = 0.0) -> None:
        canvas.save()
        matrix(canvas)
        canvas.translate(x, y)
        canvas.rotate(turn)
        canvas.drawPicture(picture)
        canvas.restore()

    canvas.drawImage(stage.sky, 0, 0)
    if stage.sun:
        play(stage.sun, *sun.at(t))
    if stage.clouds:
        sign = -1 if motion.sky == CLOUDS["left"] else 1
        play(stage.clouds, sign * rng_of(motion, "drift").uniform(62, 86) * (t - 0.5), 0.0)
    canvas.drawImage(stage.land, 0, 0)
    if stage.thing:
        x, y = course.at(t)
        wave = 6.283 * frame / FPS * 0.9
        afloat = motion.thing == "sailboat"
        play(stage.thing, x, y + (0.9 * math.sin(wave) if afloat else 0.0), 1.3 * math.cos(wave) if afloat else 0.0)
    if birds:
        canvas.save()
        matrix(canvas)
        fly(canvas, stage, birds, *course.at(t), frame / FPS * 1.4)
        canvas.restore()


def clip(motion: Motion) -> np.ndarray:
    """The frames of a clip as (33, 128, 192, 3) uint8."""
    stages = [build(motion, light) for light in lights(motion)]
    sun, course = _sun_course(motion, stages[0]), _course(motion, stages[0])
    birds = flock(motion) if motion.thing == "birds" else []
    falling = Falling(motion) if motion.weather in ("rain", "snow") else None
    out = np.empty((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    pixels = np.empty((HEIGHT, WIDTH, 4), np.uint8)
    board = skia.Surface(pixels, skia.kRGBA_8888_ColorType)
    canvas = board.getCanvas()
    for frame in range(FRAMES):
        draw = partial(_draw_frame, motion=motion, sun=sun, course=course, birds=birds, frame=frame)
        for light, strength in _mixture(motion, frame / (FRAMES - 1)):
            if strength <= 0:
                continue
            if strength < 1:
                canvas.saveLayerAlpha(None, round(255 * strength))
            draw(canvas, stage=stages[light])
            if strength < 1:
                canvas.restore()
        if falling:
            canvas.save()
            matrix(canvas)
            if stages[0].veil:
                canvas.drawRect(skia.Rect.MakeLTRB(0, TOP, SIZE, BOTTOM), stages[0].veil)
            falling.draw(canvas, stages[0].drop, frame)
            canvas.restore()
        out[frame] = pixels[..., :3]
    return out
