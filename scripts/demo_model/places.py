"""The ten places: layers from the far haze to the foreground, and where things may stand in them."""

from __future__ import annotations

import math
from collections.abc import Callable

from brush import (
    SIZE,
    WHITE,
    Painter,
    Point,
    at,
    down,
    fill,
    jagged,
    mix,
    rgb,
    stroke,
    vertical,
    waves,
)
from plants import broadleaf, conifer, far_trees, grass, tree_line
from terrain import ROCK, layer, mountain_range, water, windows

GRASS, GRASS_FAR, SAND = rgb("#6aa84a"), rgb("#8fbf68"), rgb("#ecd29b")
PINE_FLOOR = rgb("#3f7a52")


def mountains(p: Painter, sky_things: Callable[[], None]) -> None:
    rng = p.rng
    layer(p, jagged(rng, (-4, p.horizon - 38), (260, p.horizon - 30), 26, 6), ROCK, 0.82)
    mountain_range(p, p.horizon + 22, 44, 82, rng.randint(3, 4), 0.38, 0.36)
    sky_things()
    far = waves(rng, p.horizon + 16, 14, 170)
    far_trees(p, far, 6, 11, 0.42)
    layer(p, waves(rng, p.horizon + 22, 12, 140), mix(PINE_FLOOR, GRASS, 0.4), 0.3)
    near = waves(rng, p.horizon + 44, 14, 190)
    grow = p.coarse**0.5
    tree_line(p, [(x, y + 2) for x, y in near], 13 * grow, 24 * grow, 0.2, rng.uniform(0.55, 0.9))
    layer(p, near, GRASS, 0.06, -0.38, 75)
    grass(p, p.horizon + 66, 60, p.light.ground(GRASS, 0.0))
    p.stand = [(x, y + 15) for x, y in near]


def hills(p: Painter, sky_things: Callable[[], None]) -> None:
    rng, grow = p.rng, p.coarse**0.5
    sky_things()
    tones = [rgb(c) for c in ("#9cc47a", "#7fb863", "#a3c95c", "#6fae50", "#5c9d48")]
    rng.shuffle(tones)
    near: list[Point] = []
    for i in range(5):
        y = p.horizon - 28 + 21 * i
        skyline = waves(rng, y, 26 - 2 * i, rng.uniform(110, 190), 2)
        depth = 0.66 - 0.16 * i
        layer(p, skyline, tones[i], depth, -0.16, 60)
        light = p.light.ground(mix(tones[i], (1, 1, 0.6), 0.35), depth)
        p.strand(skyline, stroke(light, 1.4, 0.7))
        for _ in range(3 if 0 < i < 4 else 0):
            x = rng.uniform(0, SIZE)
            for k in range(rng.randint(1, 4)):
                tx = x + k * (4 + 2 * i) * grow
                broadleaf(p, tx, at(skyline, min(tx, 256)) + 2, (7 + 3.2 * i + rng.uniform(0, 3)) * grow, depth)
        near = skyline if i == 3 else near
    grass(p, 226, 50, p.light.ground(tones[4], 0.0))
    p.stand = [(x, y + 9) for x, y in near]


def sea(p: Painter, sky_things: Callable[[], None]) -> None:
    rng, light = p.rng, p.light
    p.horizon -= 6
    if rng.random() < 0.55:
        x, w = rng.uniform(0, SIZE), rng.uniform(40, 80)
        island = [(x - w, p.horizon), *[(x - w + 2 * w * i / 12, p.horizon - rng.uniform(3, 13)) for i in range(1, 12)]]
        p.path([*island, (x + w, p.horizon)], fill(light.lit(rgb("#5d7f86"), 0.62)))
    sky_things()
    water(p, p.horizon, 260, rgb("#1f6fa6"))
    rows = round(7 / p.coarse)
    for row in range(rows):
        t = row / (rows - 1)
        y = p.horizon + 16 + 84 * t**1.3
        crest = waves(rng, y, 2 + 5 * t, 26 + 44 * t, 2)
        tone = mix(light.lit(rgb("#2a83b5"), 0.3 * (1 - t)), mix(light.sky[2], light.sky[1], t), 0.55)
        p.path(down(crest, y + 14 + 10 * t), vertical(y, y + 14 + 10 * t, tone, tone, 0.55, 0.0))
        p.strand(crest, stroke(mix(tone, WHITE, 0.5), (0.8 + 0.6 * t) * p.coarse, 0.36))
    p.water = (p.horizon + 26, p.horizon + 62)
    p.stand = [(0, p.horizon + 52), (256, p.horizon + 52)]


def beach(p: Painter, sky_things: Callable[[], None]) -> None:
    rng, light = p.rng, p.light
    p.horizon -= 22
    if rng.random() < 0.5:
        layer(p, [(x, max(y, 0)) for x, y in waves(rng, p.horizon - 7, 13, 120)], rgb("#6f9a86"), 0.66)
    sky_things()
    water(p, p.horizon, 200, rgb("#22a0b4"))
    shore = waves(rng, 184, 13, 210, 2)
    shallow = mix(light.lit(rgb("#8fe0d4"), 0.04), light.sky[2], 0.5 if light.time == "sunset" else 0.1)
    p.path(down([(x, y - 17) for x, y in shore]), vertical(160, 190, shallow, shallow, 0.1, 0.75))
    for lift, alpha in ((-9, 0.5), (-1.5, 0.95)):
        foam = [(x, y + lift + 1.6 * math.sin(x / 6.0 + lift)) for x, y in shore]
        p.strand(foam, stroke(light.lit((0.98, 1, 1), 0.0), 3.0, alpha))
    wet = light.lit(rgb("#cfae78"), 0.0)
    p.path(down(shore), fill(wet))
    dry = [(x, y + 7) for x, y in shore]
    layer(p, dry, SAND, 0.03, -0.16, 80)
    for _ in range(70):
        x, y = rng.uniform(0, SIZE), rng.uniform(200, 256)
        p.oval(x, y, rng.uniform(0.6, 1.6), 0.6, fill(light.lit(mix(SAND, (0.4, 0.3, 0.2), rng.random()), 0), 0.6))
    p.water = (p.horizon + 14, p.horizon + 34)
    p.stand = [(x, y + 34) for x, y in shore]


def desert(p: Painter, sky_things: Callable[[], None]) -> None:
    rng, light = p.rng, p.light
    for _ in range(rng.randint(2, 4)):
        x, w, h = rng.uniform(0, SIZE), rng.uniform(14, 38), rng.uniform(16, 44)
        y = p.horizon + 4
        mesa = [
            (x - w * 1.3, y),
            (x - w, y - h * 0.9),
            (x - w * 0.7, y - h),
            (x + w * 0.75, y - h),
            (x + w, y - h * 0.8),
            (x + w * 1.35, y),
        ]
        c = light.lit(rgb("#b4694a"), 0.55)
        p.path(mesa, vertical(y - h, y, c, mix(c, light.haze, 0.5)))
        for k in (0.3, 0.55):
            p.strand(
                [(x - w * 0.95, y - h * k), (x + w * 1.0, y - h * k)], stroke(mix(c, (0.3, 0.1, 0.1), 0.3), 1.2, 0.5)
            )
    sky_things()
    for i in range(4):
        y = p.horizon + 4 + 24 * i
        crest = waves(rng, y, 16 + 5 * i, rng.uniform(150, 230), 2)
        tone = mix(rgb("#f0c27c"), rgb("#e0a05e"), i / 3)
        layer(p, crest, tone, 0.4 - 0.13 * i, -0.1, 60)
        shade = light.lit(mix(tone, rgb("#8a4f3c"), 0.6), 0.36 - 0.12 * i)
        peak = min(crest[10:57], key=lambda q: q[1])[0]
        side = -1 if p.sun_x > peak else 1
        flank = [(x, y) for x, y in crest if 0 <= (x - peak) * side <= 74]
        if len(flank) > 2:
            flank.sort(key=lambda q: abs(q[0] - peak))
            low = [(x, y + 3 + abs(x - peak) * 0.45) for x, y in reversed(flank)]
            p.path([*flank, *low], fill(shade, 0.75))
        p.strand(crest, stroke(light.lit(mix(tone, WHITE, 0.5), 0.3 - 0.1 * i), 1.1, 0.7))
    for i in range(9):
        p.strand(waves(rng, 226 + 4 * i, 3, 70, 2), stroke(light.lit(rgb("#b97a4a"), 0.0), 0.9, 0.3))
    p.stand = [(x, p.horizon + 66) for x, _ in crest]


def forest(p: Painter, sky_things: Callable[[], None]) -> None:
    rng, light = p.rng, p.light
    sky_things()
    for i in range(4):
        skyline = waves(rng, p.horizon - 8 + 13 * i, 9, 130)
        depth = (0.74, 0.55, 0.36, 0.2)[i]
        if i < 2:
            far_trees(p, skyline, 24 + 4 * i, 46 + 6 * i, depth)
        else:
            tree_line(p, skyline, 34 + 6 * i, 54 + 8 * i, depth, 0.36)
            layer(p, [(x, y) for x, y in skyline], PINE_FLOOR, depth, 0.1)
        p.rect(0, p.horizon - 30, SIZE, 70, vertical(p.horizon - 30, p.horizon + 40, light.haze, light.haze, 0.0, 0.30))
    near = waves(rng, p.horizon + 38, 8, 170)
    layer(p, near, rgb("#56924a"), 0.05, -0.42, 80)
    x = rng.uniform(100, 156)
    path = light.ground(rgb("#c9a878"), 0.04)
    p.path(
        [
            (x - 3, p.horizon + 40),
            (x + 4, p.horizon + 40),
            (x + 12, p.horizon + 66),
            (x + 44, 258),
            (x - 30, 258),
            (x - 6, p.horizon + 66),
        ],
        vertical(p.horizon + 40, 256, path, mix(path, (0, 0, 0), 0.2), 0.5, 0.95),
    )
    grass(p, p.horizon + 54, 90, light.ground(rgb("#56924a"), 0.0))
    for side in (0, 1):
        for k in range(2):
            px = rng.uniform(-6, 14) + 15 * k if not side else rng.uniform(242, 262) - 15 * k
            conifer(p, px, rng.uniform(216, 250) - 10 * k, rng.uniform(120, 165) - 30 * k, 0.02, rgb("#1d5340"))
    p.stand = [(x, y + 15) for x, y in near]


def meadow(p: Painter, sky_things: Callable[[], None]) -> None:
    rng, light = p.rng, p.light
    layer(p, waves(rng, p.horizon - 6, 16, 160), rgb("#7fae86"), 0.66)
    sky_things()
    row = waves(rng, p.horizon + 9, 6, 180)
    x = rng.uniform(0, 10)
    while x < 256:
        if rng.random() < 0.72:
            broadleaf(p, x, at(row, x) + 2, rng.uniform(9, 17), 0.4)
        x += rng.uniform(5, 15)
    layer(p, row, GRASS_FAR, 0.26, -0.05, 40)
    near = waves(rng, p.horizon + 24, 7, 230)
    layer(p, near, rgb("#86c24e"), 0.06, -0.30, 95)
    for i in range(16):
        y = p.horizon + 34 + 74 * (i / 15) ** 1.2
        tone = mix(rgb("#9ed35c"), rgb("#57963a"), rng.random())
        x, n = rng.uniform(-20, SIZE), rng.uniform(30, 90)
        p.oval(x, y, n, 1.6 + 3 * i / 15, fill(light.ground(tone, 0.05), 0.4))
    grass(p, p.horizon + 44, 170, light.ground(rgb("#6db043"), 0.0))
    p.stand = [(x, y + 26) for x, y in near]


def snow(p: Painter, sky_things: Callable[[], None]) -> None:
    rng, light = p.rng, p.light
    mountain_range(p, p.horizon + 10, 66, 100, rng.randint(2, 3), 0.6, 0.75)
    sky_things()
    near: list[Point] = []
    for i in range(4):
        skyline = waves(rng, p.horizon - 2 + 20 * i, 17, rng.uniform(130, 220), 2)
        depth = 0.42 - 0.13 * i
        if i in (1, 2):
            tree_line(p, [(x, y + 2) for x, y in skyline], 14 + 5 * i, 24 + 8 * i, depth, rng.uniform(0.8, 1.6), 1.0)
        a = light.lit((0.95, 0.975, 1.0), depth * 0.7)
        shade = mix(a, mix(light.sky[1], (0.55, 0.68, 0.9), 0.4), 0.34)
        top = min(y for _, y in skyline)
        p.path(down(skyline), vertical(top, top + 52, a, shade))
        near = skyline if i == 2 else near
    for _ in range(40):
        x, y = rng.uniform(0, SIZE), rng.uniform(p.horizon + 50, 256)
        p.oval(x, y, rng.uniform(3, 12), 0.8, fill(mix(light.sky[1], (0.6, 0.7, 0.9), 0.5), 0.25))
    p.stand = [(x, y + 15) for x, y in near]


def lake(p: Painter, sky_things: Callable[[], None]) -> None:
    rng, light = p.rng, p.light
    p.horizon -= 8
    if rng.random() < 0.6:
        mountain_range(p, p.horizon + 6, 66, 98, rng.randint(3, 4), 0.5, 0.3)
    else:
        for i in range(2):
            layer(p, waves(rng, p.horizon - 34 + 15 * i, 22, 150), rgb("#5f8f78"), 0.72 - 0.2 * i)
    sky_things()
    far_trees(p, [(0, p.horizon), (256, p.horizon)], 6, 17, 0.34)
    water(p, p.horizon + 1, 262, rgb("#2c6f94"), mirror=0.62)
    near = [(x, y - 17 * (abs(x - 128) / 128) ** 2) for x, y in waves(rng, 222, 8, 160, 2)]
    p.strand([(x, y - 1.5) for x, y in near], stroke(mix(light.sky[3], WHITE, 0.4), 1.6, 0.6))
    layer(p, near, rgb("#5f9a4a"), 0.03, -0.35, 46)
    grass(p, 226, 90, light.ground(rgb("#5f9a4a"), 0.0))
    p.water = (p.horizon + 20, p.horizon + 44)
    p.stand = [(x, y + 9) for x, y in near]


def city(p: Painter, sky_things: Callable[[], None]) -> None:
    rng, light = p.rng, p.light
    quay = p.horizon + 28
    lamps = {"dawn": 0.28, "day": 0.0, "sunset": 0.5, "night": 0.62}[light.time]
    sky_things_drawn = False
    for row, (depth, low, high) in enumerate(((0.68, 30, 112), (0.42, 26, 92), (0.14, 18, 66))):
        x = rng.uniform(-14, 0)
        while x < 256:
            w, h = rng.uniform(13, 27), rng.uniform(low, high)
            tone = rng.choice([rgb(c) for c in ("#6d84a8", "#8a93ac", "#5f7391", "#a08c90", "#76869a")])
            c, top = light.lit(tone, depth), quay - h
            p.rect(x, top, w, h + 2, vertical(top, quay, c, mix(c, light.haze, 0.35)))
            p.rect(
                x + (0 if p.sun_x > x else w * 0.62), top, w * 0.38, h, fill(mix(light.sky[0], (0, 0, 0.1), 0.5), 0.16)
            )
            if rng.random() < 0.22:
                p.rect(x + w * 0.46, top - 11, 1.4, 11, fill(c))
            elif rng.random() < 0.3:
                p.path([(x, top), (x + w / 2, top - w * 0.5), (x + w, top)], fill(mix(c, light.sky[0], 0.2)))
            if row:
                windows(p, x, top, w, h, c, lamps, 3.4 + row)
            x += w * rng.uniform(0.8, 1.25) + (2 if row == 2 else 0)
        if row == 0 and not sky_things_drawn:
            sky_things()
            sky_things_drawn = True
    p.rect(0, quay - 1, SIZE, 4, fill(light.lit(rgb("#6c6a76"), 0.08)))
    water(p, quay + 3, 260, rgb("#3a6a90"), mirror=0.5)
    p.water = (quay + 24, quay + 42)
    p.stand = [(0, quay + 2), (256, quay + 2)]


PLACES: dict[str, Callable[[Painter, Callable[[], None]], None]] = {
    f.__name__: f for f in (mountains, hills, sea, beach, desert, forest, meadow, snow, lake, city)
}
