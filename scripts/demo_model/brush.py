"""Colours, paints and shapes that every part of the renderer draws with."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import skia

Colour = tuple[float, float, float]
Point = tuple[float, float]
SIZE = 256.0  # all drawing happens in these units; the canvas scales them to pixels


def rgb(text: str) -> Colour:
    """'#rrggbb' as three floats in 0..1."""
    return tuple(int(text[i : i + 2], 16) / 255 for i in (1, 3, 5))  # type: ignore[return-value]


def mix(a: Colour, b: Colour, t: float) -> Colour:
    """a at t = 0, b at t = 1."""
    return tuple(x + (y - x) * t for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def times(a: Colour, b: Colour) -> Colour:
    return tuple(x * y for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def grey(a: Colour) -> Colour:
    """A cool grey as bright as a."""
    light = 0.3 * a[0] + 0.59 * a[1] + 0.11 * a[2]
    return (light * 0.96, light, light * 1.06)


PAINT: dict[str, Colour] = {
    "red": rgb("#e2332f"),
    "orange": rgb("#f58a1f"),
    "yellow": rgb("#fbd22e"),
    "green": rgb("#35ad4a"),
    "blue": rgb("#2b66e0"),
    "purple": rgb("#8e3fd0"),
    "pink": rgb("#fb86b8"),
    "white": rgb("#fbfaf5"),
}

WHITE: Colour = (1.0, 1.0, 1.0)
BLACK: Colour = (0.0, 0.0, 0.0)


def argb(c: Colour, alpha: float = 1.0) -> int:
    r, g, b = (max(0, min(255, round(v * 255))) for v in c)
    return skia.Color(r, g, b, max(0, min(255, round(alpha * 255))))


def fill(c: Colour, alpha: float = 1.0, blur: float = 0.0) -> skia.Paint:
    paint = skia.Paint(AntiAlias=True, Color=argb(c, alpha))
    if blur:
        paint.setMaskFilter(skia.MaskFilter.MakeBlur(skia.kNormal_BlurStyle, blur))
    return paint


def stroke(c: Colour, width: float, alpha: float = 1.0) -> skia.Paint:
    return skia.Paint(
        AntiAlias=True,
        Color=argb(c, alpha),
        Style=skia.Paint.kStroke_Style,
        StrokeWidth=width,
        StrokeCap=skia.Paint.kRound_Cap,
        StrokeJoin=skia.Paint.kRound_Join,
    )


def gradient(a: Point, b: Point, colours: Sequence[int], stops: Sequence[float] | None = None) -> skia.Paint:
    """A linear gradient from a to b over argb colours."""
    shader = skia.GradientShader.MakeLinear([skia.Point(*a), skia.Point(*b)], list(colours), list(stops or []))
    return skia.Paint(AntiAlias=True, Shader=shader, Dither=True)


def vertical(y0: float, y1: float, top: Colour, bottom: Colour, a0: float = 1.0, a1: float = 1.0) -> skia.Paint:
    return gradient((0, y0), (0, y1), [argb(top, a0), argb(bottom, a1)])


def poly(points: Sequence[Point]) -> skia.Path:
    return skia.Path.Polygon([skia.Point(x, y) for x, y in points], True)


def line(points: Sequence[Point]) -> skia.Path:
    return skia.Path.Polygon([skia.Point(x, y) for x, y in points], False)


def down(points: Sequence[Point], floor: float = SIZE + 4) -> list[Point]:
    """A skyline closed along the floor, so that it can be filled."""
    return [*points, (points[-1][0], floor), (points[0][0], floor)]


def waves(rng: random.Random, y: float, height: float, period: float, octaves: int = 3) -> list[Point]:
    """A smooth skyline around y, crest to trough about `height`."""
    parts = [
        (height * 0.5 / (1.9**k), period / (1.9**k) * rng.uniform(0.8, 1.25), rng.uniform(0, 6.28))
        for k in range(octaves)
    ]
    xs = [x * 4.0 - 4 for x in range(67)]
    return [(x, y + sum(a * math.sin(x / w * 6.283 + ph) for a, w, ph in parts)) for x in xs]


def jagged(rng: random.Random, a: Point, b: Point, rough: float, depth: int = 5) -> list[Point]:
    """A broken line from a to b by midpoint displacement."""
    points = [a, b]
    for _ in range(depth):
        out = [points[0]]
        for p, q in itertools.pairwise(points):
            out += [((p[0] + q[0]) / 2, (p[1] + q[1]) / 2 + rng.uniform(-1, 1) * rough), q]
        points, rough = out, rough * 0.52
    return points


def at(points: Sequence[Point], x: float) -> float:
    """The height of a skyline at x."""
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / max(x1 - x0, 1e-6)
    return points[-1][1]


@dataclass
class Light:
    """What the time of day and the weather do to colours."""

    time: str
    weather: str
    sky: list[Colour]  # top to horizon
    haze: Colour
    sun: Colour
    ambient: Colour
    haze_gain: float
    whiten: float = 0.0  # how far fallen snow covers the ground

    def lit(self, c: Colour, depth: float = 0.0) -> Colour:
        """A material's colour in this light, at a depth from 0 (near) to 1 (lost in the haze)."""
        shade = times(c, self.ambient)
        if self.time == "sunset":  # shadows turn violet against an orange sky
            shade = mix(shade, (0.26, 0.10, 0.30), 0.22)
        return mix(shade, self.haze, min(1.0, depth * self.haze_gain))

    def ground(self, c: Colour, depth: float = 0.0) -> Colour:
        """As `lit`, for what snow may lie on."""
        return self.lit(mix(c, (0.93, 0.96, 1.0), self.whiten), depth)

    def thing(self, c: Colour, depth: float = 0.03) -> Colour:
        """As `lit`, kept brighter, so that a named colour can be read at any hour."""
        bright = mix(self.ambient, WHITE, 0.55 if self.time == "night" else 0.45)
        return mix(times(c, bright), self.haze, min(1.0, depth * self.haze_gain))


@dataclass
class Painter:
    """A canvas with the light that falls on it, and where in the picture things may stand."""

    canvas: skia.Canvas
    surface: skia.Surface
    rng: random.Random
    light: Light
    sun_x: float = 128.0
    sun_lift: float = 0.0  # how far a low sun must climb to be seen over the place
    horizon: float = 150.0
    top: float = 0.0  # the first row that the canvas shows
    coarse: float = 1.0  # how many times larger, and fewer, the smallest details are drawn
    water: tuple[float, float] | None = None
    stand: list[Point] = field(default_factory=list)

    def path(self, points: Sequence[Point], paint: skia.Paint) -> None:
        self.canvas.drawPath(poly(points), paint)

    def circle(self, x: float, y: float, r: float, paint: skia.Paint) -> None:
        self.canvas.drawCircle(x, y, r, paint)

    def oval(self, x: float, y: float, rx: float, ry: float, paint: skia.Paint) -> None:
        self.canvas.drawOval(skia.Rect.MakeLTRB(x - rx, y - ry, x + rx, y + ry), paint)

    def rect(self, x: float, y: float, w: float, h: float, paint: skia.Paint) -> None:
        self.canvas.drawRect(skia.Rect.MakeXYWH(x, y, w, h), paint)

    def strand(self, points: Sequence[Point], paint: skia.Paint) -> None:
        self.canvas.drawPath(line(points), paint)

    def glow(self, x: float, y: float, r: float, c: Colour, alpha: float) -> None:
        """Light that spreads from a point."""
        shader = skia.GradientShader.MakeRadial(
            skia.Point(x, y), r, [argb(c, alpha), argb(c, alpha * 0.35), argb(c, 0)], [0.0, 0.4, 1.0]
        )
        paint = skia.Paint(AntiAlias=True, Shader=shader, BlendMode=skia.BlendMode.kScreen, Dither=True)
        self.canvas.drawCircle(x, y, r, paint)
