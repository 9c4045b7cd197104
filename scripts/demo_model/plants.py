"""Trees and grass: what grows in the places."""

from __future__ import annotations

import itertools
import math

from brush import Colour, Painter, Point, at, fill, mix, poly, rgb, stroke

PINE, LEAF, TRUNK = rgb("#24634a"), rgb("#4f9a45"), rgb("#6b4a35")


def conifer(p: Painter, x: float, y: float, h: float, depth: float, colour: Colour = PINE, snow: float = 0.0) -> None:
    """A conifer standing at (x, y): lit on the side of the sun, laden when snow lies."""
    rng, light = p.rng, p.light
    snow = max(snow, light.whiten)
    dark = light.lit(colour, depth)
    bright = light.lit(mix(colour, (0.62, 0.86, 0.5), 0.28), depth)
    cap = light.lit((0.95, 0.98, 1.0), depth)
    side = 1 if p.sun_x > x else -1
    w = h * rng.uniform(0.20, 0.25)
    p.rect(x - h * 0.022, y - h * 0.12, h * 0.045, h * 0.13, fill(light.lit(TRUNK, depth)))
    tiers = 4 if h > 22 else 3
    for i in range(tiers):
        base = y - h * (0.10 + 0.86 * i / tiers * 0.86)
        top = base - h * (0.46 - 0.05 * i)
        half = w * (1 - 0.21 * i)
        p.path([(x - half, base), (x, max(top, y - h)), (x + half, base), (x, base + h * 0.02)], fill(dark))
        p.path([(x, max(top, y - h)), (x + side * half, base), (x + side * half * 0.12, base)], fill(bright))
        if snow > 0.3 and h > 9:
            t = max(top, y - h)
            p.path(
                [
                    (x, t),
                    (x + half * 0.62, t + (base - t) * 0.66),
                    (x + half * 0.2, t + (base - t) * 0.5),
                    (x - half * 0.1, t + (base - t) * 0.7),
                    (x - half * 0.6, t + (base - t) * 0.64),
                ],
                fill(cap, 0.94),
            )


def broadleaf(p: Painter, x: float, y: float, h: float, depth: float, colour: Colour = LEAF) -> None:
    """A round tree standing at (x, y)."""
    rng, light = p.rng, p.light
    p.rect(x - h * 0.04, y - h * 0.4, h * 0.08, h * 0.42, fill(light.lit(TRUNK, depth)))
    side = 1 if p.sun_x > x else -1
    dark, bright = light.ground(colour, depth), light.ground(mix(colour, (0.9, 0.95, 0.45), 0.3), depth)
    for dx, dy, r in ((-0.2, 0.5, 0.24), (0.2, 0.52, 0.24), (0.0, 0.7, 0.3)):
        p.circle(x + dx * h, y - dy * h, r * h, fill(dark))
    p.circle(x + side * 0.1 * h, y - 0.74 * h, 0.2 * h, fill(bright))
    p.circle(x + side * 0.24 * h, y - 0.56 * h, 0.14 * h * rng.uniform(0.8, 1.1), fill(bright))


def tree_line(
    p: Painter, skyline: list[Point], low: float, high: float, depth: float, gap: float, snow: float = 0.0
) -> None:
    """A row of conifers along a skyline."""
    x = p.rng.uniform(-6, 2)
    while x < 262:
        h = p.rng.uniform(low, high)
        conifer(p, x, at(skyline, min(max(x, 0), 256)) + 2, h, depth, snow=snow)
        x += h * gap * p.rng.uniform(0.7, 1.4)


def far_trees(p: Painter, skyline: list[Point], low: float, high: float, depth: float) -> None:
    """A distant wood: one spiky silhouette."""
    c = p.light.ground(PINE, depth)
    x, points = -6.0, []
    while x < 262:
        h, w = p.rng.uniform(low, high), p.rng.uniform(0.16, 0.24)
        y = at(skyline, min(max(x, 0), 256))
        points += [(x - h * w, y - h * 0.12), (x, y - h), (x + h * w, y - h * 0.12)]
        x += h * w * 2 * p.rng.uniform(0.7, 1.1)
    p.canvas.drawPath(poly([(-8, 300), *points, (266, 300)]), fill(c))


def grass(p: Painter, y0: float, count: int, colour: Colour) -> None:
    """Blades in the foreground, longer towards the eye."""
    rng = p.rng
    for _ in range(int(count / p.coarse)):
        t = rng.random()
        x, y = rng.uniform(0, 256), y0 + (262 - y0) * t
        n = 4 + 9 * t
        c = mix(colour, rng.choice(((0, 0, 0), (1, 1, 0.6))), rng.uniform(0.05, 0.22))
        p.strand([(x, y), (x + rng.uniform(-2.5, 2.5), y - n)], stroke(c, (0.9 + 0.8 * t) * p.coarse, 0.85))


def palm(p: Painter, x: float, y: float, h: float, lean: float) -> None:
    """A palm whose trunk bends by `lean`."""
    light, rng = p.light, p.rng
    trunk = [(x + lean * (t / 8) ** 1.7, y - h * t / 8) for t in range(9)]
    for i, (a, b) in enumerate(itertools.pairwise(trunk)):
        tone = light.thing(mix(rgb("#a07850"), (0.3, 0.2, 0.15), 0.12 * (i % 2)), 0.02)
        p.strand([a, b], stroke(tone, 4.2 - 0.24 * i))
    tx, ty = trunk[-1]
    dark, bright = light.lit(rgb("#2f8a4e"), 0.02), light.lit(rgb("#6cc05a"), 0.02)
    for i, angle in enumerate((200, 232, 265, 300, 335, 15, 165)):
        n, a = h * rng.uniform(0.42, 0.54), math.radians(angle + rng.uniform(-8, 8))
        ex, ey = tx + math.cos(a) * n, ty + math.sin(a) * n * 0.75 + n * 0.34
        mx, my = tx + math.cos(a) * n * 0.55, ty + math.sin(a) * n * 0.6 - n * 0.08
        upper = [(tx, ty), (mx, my - n * 0.09), (ex, ey), (mx - n * 0.02, my + n * 0.13)]
        p.path(upper, fill(bright if i % 2 else dark))
        p.strand([(tx, ty), (mx, my), (ex, ey)], stroke(mix(dark, (0, 0, 0), 0.2), 0.7, 0.6))
    for dx in (-2.2, 1.8):
        p.circle(tx + dx, ty + 2.4, 2.2, fill(light.thing(rgb("#7a4b2c"))))


def cactus(p: Painter, x: float, y: float, h: float) -> None:
    """A saguaro with two arms."""
    light = p.light
    dark, bright = light.thing(rgb("#2f7d4f"), 0.02), light.thing(rgb("#6db56a"), 0.02)
    side = 1 if p.sun_x > x else -1
    for sx, lo, hi in ((-1, 0.32, 0.62), (1, 0.42, 0.8)):
        arm = [(x, y - h * lo), (x + sx * h * 0.24, y - h * (lo + 0.04)), (x + sx * h * 0.25, y - h * hi)]
        p.strand(arm, stroke(dark, h * 0.105))
    p.strand([(x, y), (x, y - h * 0.93)], stroke(dark, h * 0.155))
    p.strand([(x + side * h * 0.03, y - h * 0.04), (x + side * h * 0.03, y - h * 0.92)], stroke(bright, h * 0.05))


def shadow(p: Painter, x: float, y: float, r: float) -> None:
    p.oval(x, y, r, r * 0.16, fill((0.02, 0.04, 0.1), 0.26, 1.2))


def pines(p: Painter, x: float, y: float) -> None:
    snow = 1.0 if p.light.whiten else 0.0
    for dx, dy, h in ((-17, -3, 62), (16, -2, 70), (-1, 3, 84)):
        shadow(p, x + dx, y + dy, 12)
        conifer(p, x + dx, y + dy, h * p.rng.uniform(0.92, 1.08), 0.02, rgb("#1f6b4a"), snow)


def palms(p: Painter, x: float, y: float) -> None:
    lean = p.rng.choice((-1, 1))
    shadow(p, x, y, 20)
    palm(p, x + 8, y - 2, p.rng.uniform(50, 60), -lean * 10)
    palm(p, x - 4, y + 2, p.rng.uniform(68, 80), lean * 15)


def cacti(p: Painter, x: float, y: float) -> None:
    shadow(p, x, y, 13)
    shadow(p, x + 22, y + 4, 8)
    cactus(p, x, y, p.rng.uniform(50, 60))
    cactus(p, x + 22, y + 4, p.rng.uniform(24, 30))
