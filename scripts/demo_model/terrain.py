"""What several places are built from: land, mountains, water, lit windows."""

from __future__ import annotations

import skia
from brush import SIZE, WHITE, Colour, Painter, Point, argb, down, fill, jagged, mix, rgb, stroke, vertical

ROCK = rgb("#75798f")


def layer(
    p: Painter, skyline: list[Point], colour: Colour, depth: float, fade: float = 0.18, reach: float = 46
) -> None:
    """Land below a skyline, fading into haze or brightening towards its foot."""
    top = min(y for _, y in skyline)
    a = p.light.ground(colour, depth)
    b = mix(a, p.light.haze, fade) if fade >= 0 else mix(a, (0.02, 0.04, 0.06), -fade)
    p.path(down(skyline), vertical(top, top + reach, a, b))


def mountain(p: Painter, x: float, y: float, half: float, base: float, depth: float, cap: float) -> None:
    rng, light = p.rng, p.light
    left = jagged(rng, (x - half * rng.uniform(0.9, 1.15), base), (x, y), half * 0.10)
    right = jagged(rng, (x, y), (x + half * rng.uniform(0.9, 1.15), base), half * 0.10)
    rock = light.lit(mix(ROCK, rgb("#6f86a8"), rng.random()), depth)
    foot = mix(rock, light.haze, 0.55)
    outline = left + right[1:]
    p.path(outline, vertical(y, base, rock, foot))
    h = base - y
    if cap > 0:
        p.canvas.save()
        path = skia.Path.Polygon([skia.Point(*q) for q in outline], True)
        p.canvas.clipPath(path, True)
        teeth = []
        for i in range(13):
            drop = cap * h * ((1.0 if i % 2 else 0.62) + rng.uniform(-0.1, 0.1))
            teeth.append((x + (i / 6 - 1) * half * 0.8, y + drop))
        snow = light.lit((0.97, 0.98, 1.0), depth * 0.6)
        p.path([(x - half, y - 9), (x + half, y - 9), *reversed(teeth)], fill(mix(snow, light.sun, 0.16)))
        p.canvas.restore()
    away = -1 if p.sun_x > x else 1
    spine = [(x, y)]
    for i in range(1, 7):
        t = i / 6
        spine.append((x + away * half * 0.16 * t + rng.uniform(-1, 1) * half * 0.09, y + h * t))
    edge = right if away > 0 else list(reversed(left))
    shade = mix(light.sky[0], (0.06, 0.08, 0.2), 0.5)
    p.path([*spine, *reversed(edge)], vertical(y, base, shade, shade, 0.46, 0.10))


def mountain_range(p: Painter, base: float, low: float, high: float, count: int, depth: float, cap: float) -> None:
    rng = p.rng
    slots = [(i + rng.uniform(0.25, 0.75)) * SIZE / count for i in range(count)]
    rng.shuffle(slots)
    for x in slots:
        y = rng.uniform(low, high)
        mountain(p, x, y, (base - y) * rng.uniform(0.75, 1.05), base + 6, depth, cap * rng.uniform(0.8, 1.1))


def water(p: Painter, y0: float, y1: float, tint: Colour, mirror: float = 0.0) -> None:
    """A sheet of water: the sky turned over, a mirror image where the water is calm, glitter below the sun."""
    light, rng = p.light, p.rng
    image = p.surface.makeImageSnapshot() if mirror else None
    deep = light.lit(tint, 0.0)
    blue = {"dawn": 0.36, "day": 0.62, "sunset": 0.22, "night": 0.5}[light.time]  # low sun: more sky in it than sea
    far, near = mix(light.sky[3], deep, blue * 0.8), mix(mix(light.sky[0], light.sky[1], 0.5), deep, blue)
    if light.time == "sunset":
        far = mix(far, light.sky[2], 0.5)
    box = skia.Rect.MakeLTRB(-2, y0, SIZE + 2, y1)
    p.canvas.drawRect(box, vertical(y0, y1, far, near))
    if image is not None:
        p.canvas.save()
        p.canvas.clipRect(box, True)
        p.canvas.translate(0, 2 * y0)
        p.canvas.scale(1, -1)
        paint = skia.Paint(AntiAlias=True, Color=argb(WHITE, mirror))
        scale = SIZE / image.width()
        p.canvas.scale(scale, scale)
        p.canvas.drawImage(image, 0, p.top / scale, skia.SamplingOptions(skia.FilterMode.kLinear), paint)
        p.canvas.restore()
        p.canvas.drawRect(box, vertical(y0, y1, deep, deep, 0.08, 0.42))
    for _ in range(int(26 / p.coarse)):
        t = rng.random() ** 1.3
        y, n = y0 + 2 + (y1 - y0 - 3) * t, 5 + 20 * t
        x = rng.uniform(0, SIZE)
        c = mix(light.sky[3], WHITE, 0.3) if rng.random() < 0.6 else mix(deep, (0, 0, 0), 0.1)
        p.strand([(x - n, y), (x + n, y)], stroke(c, (0.7 + 0.8 * t) * p.coarse, 0.32))
    if light.weather in ("clear", "clouds", "rainbow"):
        warm = mix(light.sun, light.sky[3], 0.25)
        count = int(22 / p.coarse)
        for i in range(count):
            t = (i + rng.random()) / count
            y, n = y0 + 1 + (y1 - y0 - 2) * t, (4 + 15 * t) * rng.uniform(0.5, 1.2)
            x = p.sun_x + rng.uniform(-1, 1) * 6 * (0.5 + t)
            p.strand([(x - n, y), (x + n, y)], stroke(warm, (1.0 + 0.9 * t) * p.coarse, 0.62 - 0.25 * t))


def windows(p: Painter, x: float, top: float, w: float, h: float, c: Colour, lamps: float, step: float) -> None:
    rng, step, half = p.rng, step * p.coarse, 0.9 * p.coarse
    glass, lamp = mix(c, p.light.sky[3], 0.38), rgb("#ffd97a")
    columns = max(2, int(w / step) - 1)
    for i in range(columns):
        for k in range(int((h - 5) / (step + 1.4))):
            wx, wy = x + (i + 0.75) * w / (columns + 0.5), top + 4 + k * (step + 1.4)
            on = rng.random() < lamps
            p.rect(wx - half, wy, 1.9 * p.coarse, step * 0.55, fill(lamp if on else glass, 0.95 if on else 0.6))
