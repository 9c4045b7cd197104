"""Light, sky, sun and moon, clouds, and the weather that falls in front of everything."""

from __future__ import annotations

import math
import random

import skia
from brush import SIZE, WHITE, Colour, Light, Painter, argb, fill, gradient, grey, mix, rgb, stroke, vertical, waves
from scenes import Scene

# Per time of day: sky from top to horizon, haze, sun, ambient light. Two or more moods each.
MOODS: dict[str, list[tuple[list[str], str, str, Colour]]] = {
    "dawn": [
        (["#7f97cc", "#bdb2dc", "#f3c8d4", "#fdeccf"], "#eccfda", "#fff6dc", (0.86, 0.83, 0.97)),
        (["#86b0d2", "#c9cbe6", "#fbd3cf", "#fff1d6"], "#efd6d8", "#fffae6", (0.90, 0.87, 0.98)),
        (["#8a8fc4", "#c9aed6", "#f7bccb", "#ffdfc8"], "#e8c4d4", "#fff0d8", (0.84, 0.80, 0.97)),
    ],
    "day": [
        (["#2b86d9", "#63b1ee", "#a9d9f7", "#dcf1fb"], "#bfe1f5", "#fff7cf", (1.0, 1.0, 0.99)),
        (["#1f9bd8", "#5cc3ea", "#a5e0f2", "#e2f6f4"], "#c2e8ef", "#fff9d8", (1.0, 1.0, 0.97)),
        (["#3f7fd6", "#79a9ea", "#b3d2f6", "#e3effc"], "#c8dcf6", "#fffbe2", (0.99, 1.0, 1.0)),
    ],
    "sunset": [
        (["#3a2a66", "#8a3c7e", "#e75d4d", "#ffb648"], "#e27a58", "#fff0a8", (0.80, 0.52, 0.56)),
        (["#2b3875", "#9a4a80", "#f4734f", "#ffd064"], "#ea8f5c", "#fff6c0", (0.84, 0.57, 0.55)),
        (["#54235f", "#b23a6c", "#fb6b43", "#ffc356"], "#e5694f", "#fff2b0", (0.80, 0.49, 0.54)),
    ],
    "night": [
        (["#070c28", "#101c48", "#203669", "#36558c"], "#263f70", "#f4f1dc", (0.27, 0.34, 0.58)),
        (["#0a0a2b", "#191c54", "#30357c", "#4e5aa0"], "#323a7c", "#fbf3d4", (0.31, 0.33, 0.60)),
        (["#04141f", "#0a2a3f", "#14485c", "#28697a"], "#1b4d60", "#eef6e4", (0.24, 0.38, 0.52)),
    ],
}


def light_of(scene: Scene, rng: random.Random) -> Light:
    """The palette of a scene: a mood of its hour, bent by its weather."""
    sky_hex, haze_hex, sun_hex, ambient = rng.choice(MOODS[scene.time])
    sky, haze, sun = [rgb(c) for c in sky_hex], rgb(haze_hex), rgb(sun_hex)
    gain, whiten = 1.0, 0.0
    if scene.weather == "rain":
        sky = [mix(mix(c, grey(c), 0.62), (0.3, 0.33, 0.4), 0.16) for c in sky]
        haze, ambient = mix(haze, grey(haze), 0.6), tuple(v * 0.86 for v in ambient)
        gain = 1.15
    elif scene.weather == "fog":
        pale = mix(haze, WHITE if scene.time != "night" else haze, 0.25)
        sky = [mix(c, pale, t) for c, t in zip(sky, (0.32, 0.5, 0.7, 0.85), strict=True)]
        haze, gain = pale, 1.4 if scene.time != "night" else 1.0
    elif scene.weather == "snow":
        sky = [mix(c, mix(grey(c), WHITE, 0.18 if scene.time != "night" else 0.05), 0.55) for c in sky]
        haze, gain, whiten = mix(haze, grey(haze), 0.4), 1.15, 0.55
    return Light(scene.time, scene.weather, sky, haze, sun, ambient, gain, whiten)


def draw_sky(p: Painter) -> None:
    """Sky, stars, sun or moon, clouds, rainbow."""
    light, rng = p.light, p.rng
    stops = (0.0, 0.38, 0.72, 1.0)
    p.canvas.drawRect(
        skia.Rect.MakeWH(SIZE, SIZE),
        gradient((0, 0), (0, p.horizon + 6 - p.sun_lift * 0.6), [argb(c) for c in light.sky], stops),
    )
    veiled = light.weather in ("rain", "fog", "snow")
    p.sun_x = rng.uniform(40, 216)
    if light.time == "night":
        if not veiled:
            stars(p, 130 if light.weather == "clear" else 80)
        moon(p, 0.5 if veiled else 1.0)
    else:
        _sun(p, 0.35 if veiled else 1.0)
    if light.weather == "clouds":
        _cumulus(p, rng.randint(4, 6))
    elif light.weather == "rain":
        overcast(p)
    elif light.weather == "rainbow":
        _rainbow(p)
        _cumulus(p, rng.randint(1, 2), small=True)


def stars(p: Painter, count: int, grow: float = 1.0) -> None:
    rng = p.rng
    for _ in range(count):
        x, y = rng.uniform(0, SIZE), rng.uniform(0, p.horizon) * rng.random() ** 0.4
        size = grow * (0.45 + 0.75 * rng.random() ** 4)
        p.circle(x, y, size, fill(WHITE, 0.45 + 0.5 * rng.random()))
    for _ in range(4):
        x, y = rng.uniform(10, 246), rng.uniform(8, p.horizon * 0.6)
        p.glow(x, y, 5, (0.8, 0.88, 1.0), 0.6)
        p.circle(x, y, 1.1, fill(WHITE))


def moon(p: Painter, strength: float) -> None:
    rng, light = p.rng, p.light
    x, y, r = p.sun_x, rng.uniform(30, 62), rng.uniform(11, 16)
    p.glow(x, y, r * 6.5, mix(light.sun, light.haze, 0.3), 0.42 * strength)
    p.glow(x, y, r * 2.4, light.sun, 0.35 * strength)
    disc = skia.Path()
    disc.addCircle(x, y, r)
    crescent = rng.random() < 0.5
    if crescent:
        bite = skia.Path()
        bite.addCircle(x + r * 0.5, y - r * 0.2, r * 0.9)
        disc = skia.Op(disc, bite, skia.PathOp.kDifference_PathOp) or disc
    p.canvas.drawPath(disc, fill(light.sun, 0.4 + 0.6 * strength))
    if not crescent:
        for dx, dy, s in ((-0.35, -0.2, 0.2), (0.25, 0.3, 0.26), (0.3, -0.4, 0.13), (-0.2, 0.45, 0.12)):
            p.circle(x + dx * r, y + dy * r, s * r, fill(mix(light.sun, light.haze, 0.35), 0.55 * strength))


def _sun(p: Painter, strength: float) -> None:
    rng, light, x = p.rng, p.light, p.sun_x
    if light.time == "day":
        y, r, spread = rng.uniform(28, 56), rng.uniform(11, 14), 7.0
    else:
        low = light.time == "sunset"
        y = p.horizon - p.sun_lift - (rng.uniform(2, 34) if low else rng.uniform(10, 40))
        r, spread = (rng.uniform(17, 25), 6.5) if low else (rng.uniform(11, 15), 8.0)
    sun_disc(p, x, y, r, spread, strength)


def sun_disc(p: Painter, x: float, y: float, r: float, spread: float, strength: float) -> None:
    """The sun and the light around it; a weak one is light alone."""
    light = p.light
    warm = light.sun if light.time != "sunset" else mix(light.sun, light.sky[3], 0.45)
    p.glow(x, y, r * spread, warm, 0.5 * strength + 0.1)
    p.glow(x, y, r * 2.3, light.sun, 0.55 * strength)
    if strength > 0.5:
        disc = vertical(y - r, y + r, light.sun, mix(light.sun, light.sky[3], 0.55 if light.time == "sunset" else 0.15))
        p.circle(x, y, r, disc)


def cloud_colours(light: Light) -> tuple[Colour, Colour]:
    """Bright rim and shaded base of a cloud."""
    top = {"dawn": "#fff1ee", "day": "#ffffff", "sunset": "#ffb27a", "night": "#5a6a9c"}[light.time]
    base = {"dawn": "#cdb9d8", "day": "#c4dbee", "sunset": "#93406f", "night": "#28335f"}[light.time]
    return rgb(top), rgb(base)


def puff(p: Painter, x: float, y: float, w: float, top: Colour, base: Colour, alpha: float) -> None:
    rng = p.rng
    h = w * rng.uniform(0.22, 0.32)
    path = skia.Path()
    lumps = max(4, int(w / 9))
    for i in range(lumps):
        t = (i + 0.5) / lumps
        r = h * (0.34 + 0.62 * math.sin(math.pi * t) ** 0.8) * rng.uniform(0.8, 1.15)
        path.addCircle(x + (t - 0.5) * w, y - r * 0.62, r)
    path.addRoundRect(skia.Rect.MakeLTRB(x - w * 0.56, y - h * 0.34, x + w * 0.56, y + h * 0.06), h * 0.2, h * 0.2)
    p.canvas.save()
    p.canvas.clipRect(skia.Rect.MakeLTRB(-9, -99, SIZE + 9, y + h * 0.06), True)
    p.canvas.drawPath(path, vertical(y - h * 1.25, y + h * 0.1, top, base, alpha, alpha))
    p.canvas.restore()


def _cumulus(p: Painter, count: int, small: bool = False) -> None:
    rng = p.rng
    top, base = cloud_colours(p.light)
    slots = [(i + rng.uniform(0.2, 0.8)) * SIZE / count for i in range(count)]
    rng.shuffle(slots)
    for i, x in enumerate(slots):
        y = 22 + (p.horizon - 66) * ((i + rng.random()) / count)
        w = rng.uniform(34, 50) if small else rng.uniform(52, 104) * (1.15 - 0.5 * y / p.horizon)
        puff(p, x, y, w, top, mix(base, p.light.sky[2], 0.25), 0.94)
    if not small and p.light.time in ("dawn", "sunset"):
        for _ in range(5):
            x, y, w = rng.uniform(0, SIZE), rng.uniform(p.horizon * 0.45, p.horizon - 10), rng.uniform(20, 60)
            p.oval(x, y, w, rng.uniform(1.0, 2.6), fill(mix(top, base, rng.random() * 0.6), 0.65))


def overcast(p: Painter) -> None:
    """A low ceiling of dark cloud."""
    rng, light = p.rng, p.light
    dark = mix(grey(light.sky[1]), (0.2, 0.23, 0.3), 0.45 if light.time != "night" else 0.3)
    for row in range(3):
        y = 46 - row * 16
        colour = mix(dark, light.sky[2], 0.34 - 0.15 * row)
        path = skia.Path()
        x = -20.0
        while x < SIZE + 20:
            r = rng.uniform(11, 24)
            path.addCircle(x, y - rng.uniform(0, 8), r)
            x += r * rng.uniform(0.75, 1.2)
        path.addRect(skia.Rect.MakeLTRB(-5, -30, SIZE + 5, y - 4))
        p.canvas.drawPath(path, vertical(y - 20, y + 22, mix(colour, dark, 0.35), mix(colour, light.sky[2], 0.3)))


def _rainbow(p: Painter) -> None:
    rng = p.rng
    x, r = rng.uniform(80, 176), rng.uniform(104, 124)
    y = max(p.horizon + 6, r + 22)
    for i, c in enumerate(("#f0463c", "#f9973a", "#fbe04e", "#5cc862", "#3f9bf0", "#7d5ae0")):
        p.canvas.drawCircle(x, y, r - i * 3.4, stroke(rgb(c), 3.7, 0.74))


def draw_weather(p: Painter) -> None:
    """What falls or drifts between the picture and the eye."""
    light, rng = p.light, p.rng
    if light.weather == "rain":
        p.rect(0, 0, SIZE, SIZE, vertical(0, SIZE, light.haze, light.haze, 0.10, 0.22))
        slant = rng.uniform(-0.32, 0.32)
        bright = mix(light.haze, WHITE, 0.62 if light.time != "night" else 0.42)
        for _ in range(150):
            x, y, n = rng.uniform(-30, SIZE + 30), rng.uniform(-20, SIZE), rng.uniform(9, 20)
            p.strand([(x, y), (x + slant * n, y + n)], stroke(bright, rng.uniform(0.8, 1.35), rng.uniform(0.45, 0.8)))
    elif light.weather == "snow":
        p.rect(0, 0, SIZE, SIZE, vertical(0, SIZE, light.haze, light.haze, 0.05, 0.12))
        for _ in range(170):
            r = rng.choice((0.9, 1.2, 1.6, 2.3))
            p.circle(rng.uniform(0, SIZE), rng.uniform(0, SIZE), r, fill(WHITE, 0.92 if r < 2 else 0.8))
    elif light.weather == "fog":
        veil = mix(light.haze, WHITE, 0.12 if light.time == "night" else 0.2)
        for i in range(4):
            y = p.horizon - 34 + i * rng.uniform(20, 30)
            points = waves(rng, y, 9, 150) + [(x, yy + 44) for x, yy in reversed(waves(rng, y, 9, 150))]
            p.path(points, vertical(y - 8, y + 40, veil, veil, 0.58 - 0.06 * i, 0.0))
        p.rect(0, 0, SIZE, SIZE, fill(veil, 0.16))
