"""The things that stand, sail and fly in a landscape."""

from __future__ import annotations

import math

import skia
from brush import PAINT, SIZE, WHITE, Colour, Painter, at, fill, mix, poly, rgb, stroke
from plants import cacti, palms, pines, shadow
from scenes import Thing

LAMP = rgb("#ffdc82")


def _dark(p: Painter) -> bool:
    return p.light.time in ("night", "sunset")


def house(p: Painter, x: float, y: float, c: Colour) -> None:
    light = p.light
    front, wall = light.thing(c), light.thing(mix(c, (0.1, 0.08, 0.16), 0.24))
    roof, edge = light.thing(rgb("#5d4a48")), light.thing(rgb("#463838"))
    if light.whiten:
        roof = light.thing((0.93, 0.95, 0.99))
    shadow(p, x, y + 1, 27)
    p.rect(x + 9, y - 47, 5, 13, fill(edge))
    p.rect(x - 4, y - 21, 27, 21, fill(wall))
    p.path([(x - 23, y), (x - 23, y - 21), (x - 13, y - 38), (x - 3, y - 21), (x - 3, y)], fill(front))
    p.path([(x - 13, y - 41), (x + 16, y - 41), (x + 27, y - 19), (x - 1, y - 19)], fill(roof))
    p.strand([(x - 26, y - 19), (x - 13, y - 40.5), (x - 0.5, y - 19)], stroke(edge, 2.6))
    glass = LAMP if _dark(p) else light.thing(rgb("#bfe3f5"))
    for wx, wy in ((x + 4, y - 14), (x + 14, y - 14), (x - 15.8, y - 27)):
        p.rect(wx, wy, 5.6, 6.6, fill(light.thing(WHITE)))
        p.rect(wx + 0.8, wy + 0.8, 4.0, 5.0, fill(glass))
        if _dark(p):
            p.glow(wx + 2.8, wy + 3.3, 11, LAMP, 0.5)
    p.rect(x - 16, y - 13, 6.4, 13, fill(edge))


def lighthouse(p: Painter, x: float, y: float, c: Colour) -> None:
    light = p.light
    if p.water and p.water[1] > y:  # out at sea it needs a rock to stand on
        rock = light.lit(rgb("#6a6f78"), 0.06)
        p.path(
            [(x - 30, y + 9), (x - 22, y - 2), (x - 10, y - 8), (x + 6, y - 7), (x + 20, y - 1), (x + 30, y + 9)],
            fill(rock),
        )
        p.path([(x - 30, y + 9), (x - 22, y - 2), (x - 12, y + 2), (x - 8, y + 9)], fill(mix(rock, (0, 0, 0), 0.25)))
        p.strand([(x - 34, y + 9), (x + 34, y + 9)], stroke(light.lit(WHITE), 1.6, 0.8))
        y -= 5
    h = 66.0
    pale = light.thing(rgb("#f7f4ec"))
    tower = poly([(x - 9.5, y), (x - 5.8, y - h), (x + 5.8, y - h), (x + 9.5, y)])
    p.canvas.drawPath(tower, fill(pale))
    p.canvas.save()
    p.canvas.clipPath(tower, True)
    if c != PAINT["white"]:
        for k in (0.0, 0.4, 0.8):
            p.rect(x - 12, y - h * (k + 0.2), 24, h * 0.2, fill(light.thing(c)))
    p.rect(x + 1.5, y - h, 12, h, fill((0.05, 0.05, 0.2), 0.16))
    p.canvas.restore()
    dark = light.thing(rgb("#3b4256"))
    p.rect(x - 8.5, y - h - 2, 17, 3, fill(dark))
    if _dark(p):
        for side in (-1, 1):
            beam = [(x, y - h - 7), (x + side * 140, y - h - 30), (x + side * 140, y - h + 8)]
            shader = skia.GradientShader.MakeRadial(
                skia.Point(x, y - h - 7), 120, [skia.Color(255, 240, 180, 130), skia.Color(255, 240, 180, 0)]
            )
            p.canvas.drawPath(poly(beam), skia.Paint(AntiAlias=True, Shader=shader))
    p.rect(x - 4.2, y - h - 11, 8.4, 9, fill(LAMP))
    p.path(
        [(x - 6.4, y - h - 11), (x, y - h - 19), (x + 6.4, y - h - 11)],
        fill(dark if c == PAINT["white"] else light.thing(c)),
    )
    if _dark(p):
        p.glow(x, y - h - 7, 22, LAMP, 0.8)


def windmill(p: Painter, x: float, y: float, c: Colour) -> None:
    light = p.light
    shadow(p, x, y + 1, 17)
    p.path([(x - 12, y), (x - 7.5, y - 44), (x + 7.5, y - 44), (x + 12, y)], fill(light.thing(c)))
    p.path([(x + 2, y), (x + 2, y - 44), (x + 7.5, y - 44), (x + 12, y)], fill((0.05, 0.05, 0.2), 0.16))
    cap, blade = light.thing(rgb("#5a4038")), light.thing(rgb("#6a4c3c"))
    p.path([(x - 9, y - 43), (x - 6, y - 52), (x, y - 56), (x + 6, y - 52), (x + 9, y - 43)], fill(cap))
    p.rect(x - 3.4, y - 11, 6.8, 11, fill(cap))
    p.rect(x - 2.2, y - 31, 4.4, 5.5, fill(LAMP if _dark(p) else light.thing(rgb("#bfe3f5"))))
    turn, hub = p.rng.uniform(15, 75), y - 47
    sail = light.thing(rgb("#f3ead6"))
    for k in range(4):
        a = math.radians(turn + 90 * k)
        dx, dy = math.cos(a), math.sin(a)
        p.strand([(x, hub), (x + dx * 32, hub + dy * 32)], stroke(blade, 1.8))
        nx, ny = -dy * 6.5, dx * 6.5
        p.path(
            [
                (x + dx * 8, hub + dy * 8),
                (x + dx * 31, hub + dy * 31),
                (x + dx * 31 + nx, hub + dy * 31 + ny),
                (x + dx * 8 + nx, hub + dy * 8 + ny),
            ],
            fill(sail, 0.95),
        )
    p.circle(x, hub, 2.6, fill(cap))


def sailboat(p: Painter, x: float, y: float, c: Colour, bow: int = 0) -> None:
    """A boat whose bow points to the left (-1), to the right (1) or either way (0)."""
    light, flip = p.light, -bow or p.rng.choice((-1, 1))
    sail, jib = light.thing(c), light.thing(mix(c, WHITE if c != PAINT["white"] else (0.7, 0.75, 0.85), 0.28))
    hull = light.thing(rgb("#6b4030"))

    def shape(points: list[tuple[float, float]], paint: skia.Paint) -> None:
        p.path([(x + flip * a, y + b) for a, b in points], paint)

    for alpha, sign in ((0.26, -0.55), (1.0, 1.0)):  # first its mirror image in the water
        shape([(1, -7 * sign), (1, -52 * sign), (23, -9 * sign)], fill(sail, alpha))
        shape([(-2, -9 * sign), (-2, -46 * sign), (-17, -9 * sign)], fill(jib, alpha))
        shape([(-23, -6 * sign), (25, -6 * sign), (17, 3 * sign), (-15, 3 * sign)], fill(hull, alpha))
    p.strand([(x - flip * 0.4, y - 5), (x - flip * 0.4, y - 54)], stroke(light.thing(rgb("#4a332a")), 1.5))
    p.strand([(x - flip * 21, y - 4.4), (x + flip * 23, y - 4.4)], stroke(light.thing(WHITE), 1.4))
    p.strand([(x - 27, y + 3.4), (x + 27, y + 3.4)], stroke(light.lit(WHITE, 0.1), 1.5, 0.75))


def balloon(p: Painter, x: float, y: float, c: Colour) -> None:
    light, r = p.light, 19.0
    main, stripe = light.thing(c, 0.06), light.thing(mix(c, WHITE, 0.42), 0.06)
    bag = skia.Path()
    bag.moveTo(x, y - r)
    bag.cubicTo(x + r * 1.35, y - r, x + r * 1.2, y + r * 0.45, x + r * 0.28, y + r * 1.25)
    bag.lineTo(x - r * 0.28, y + r * 1.25)
    bag.cubicTo(x - r * 1.2, y + r * 0.45, x - r * 1.35, y - r, x, y - r)
    if light.time == "night":
        p.glow(x, y, r * 2.6, mix(c, LAMP, 0.5), 0.45)
    p.canvas.drawPath(bag, fill(main))
    p.canvas.save()
    p.canvas.clipPath(bag, True)
    p.oval(x, y + 2, r * 0.28, r * 1.35, fill(stripe))
    for s in (-1, 1):
        gore = skia.Path()
        gore.moveTo(x, y - r)
        gore.cubicTo(x + s * r * 1.0, y - r * 0.7, x + s * r * 0.9, y + r * 0.4, x + s * r * 0.18, y + r * 1.3)
        gore.cubicTo(x + s * r * 0.62, y + r * 0.3, x + s * r * 0.66, y - r * 0.6, x, y - r)
        p.canvas.drawPath(gore, fill(stripe))
    away = -1 if p.sun_x > x else 1
    p.oval(x + away * r * 1.1, y + 4, r * 0.75, r * 1.5, fill((0.05, 0.05, 0.25), 0.20, 3.0))
    p.canvas.restore()
    rope, basket = light.thing(rgb("#5b4636"), 0.06), light.thing(rgb("#8a5a34"), 0.06)
    for s in (-1, 1):
        p.strand([(x + s * r * 0.26, y + r * 1.25), (x + s * 3.4, y + r * 1.62)], stroke(rope, 0.9))
    p.rect(x - 4.2, y + r * 1.6, 8.4, 6.4, fill(basket))
    p.rect(x - 4.2, y + r * 1.6, 8.4, 1.6, fill(rope))


def tent(p: Painter, x: float, y: float, c: Colour) -> None:
    light = p.light
    shadow(p, x, y + 1, 26)
    front, side = light.thing(c), light.thing(mix(c, (0.1, 0.05, 0.15), 0.24))
    p.path([(x - 6, y - 27), (x + 17, y - 25), (x + 27, y), (x + 6, y)], fill(side))
    p.path([(x - 23, y), (x - 6, y - 27), (x + 8, y)], fill(front))
    p.path([(x - 13, y), (x - 6, y - 20), (x + 1, y)], fill(LAMP if _dark(p) else light.thing(rgb("#3a3038"))))
    p.strand([(x - 26, y + 1), (x - 6, y - 28), (x + 17.4, y - 25.5)], stroke(light.thing(rgb("#f5ead2")), 1.1, 0.9))
    if _dark(p):
        p.glow(x - 6, y - 7, 24, LAMP, 0.5)


def umbrella(p: Painter, x: float, y: float, c: Colour) -> None:
    light, r = p.light, 25.0
    pale = light.thing(rgb("#fbf8ef"))
    shadow(p, x + 2, y + 1, 22)
    p.path([(x - 22, y + 1), (x + 6, y - 1), (x + 12, y + 5), (x - 17, y + 7)], fill(light.thing(mix(c, WHITE, 0.5))))
    p.strand([(x, y + 2), (x + 5, y - 42)], stroke(light.thing(rgb("#e9dcc6")), 2.0))
    p.canvas.save()
    p.canvas.translate(x + 4, y - 26)
    p.canvas.rotate(9)
    dome = skia.Path()
    dome.moveTo(-r, 0)
    dome.cubicTo(-r * 0.8, -r * 1.0, r * 0.8, -r * 1.0, r, 0)
    dome.close()
    p.canvas.drawPath(dome, fill(light.thing(c)))
    p.canvas.clipPath(dome, True)
    for lo, hi in ((-0.62, -0.24), (0.24, 0.62)):
        p.path([(0, -r), (lo * r, 1), (hi * r, 1)], fill(pale))
    p.canvas.restore()


def bridge(p: Painter, c: Colour) -> None:
    assert p.water is not None
    light, y = p.light, p.water[0] + 9
    tone, dark = light.thing(c, 0.08), light.thing(mix(c, (0.1, 0.1, 0.2), 0.3), 0.08)
    towers = (58 + p.rng.uniform(-8, 8), 198 + p.rng.uniform(-8, 8))
    top = y - 56
    xs = [i * 8.0 - 8 for i in range(35)]

    def cable(x: float) -> float:
        a, b = towers
        if x < a:
            return y - 4 - (y - 4 - top) * max(0.0, (x + 30) / (a + 30)) ** 2
        if x > b:
            return y - 4 - (y - 4 - top) * max(0.0, (286 - x) / (286 - b)) ** 2
        t = (x - (a + b) / 2) / ((b - a) / 2)
        return y - 7 - (y - 7 - top) * t * t

    for x in xs:
        p.strand([(x, cable(x)), (x, y)], stroke(tone, 0.9, 0.8))
    p.strand([(x, cable(x)) for x in xs], stroke(tone, 2.2))
    p.rect(-2, y - 2, SIZE + 4, 5.5, fill(tone))
    p.rect(-2, y + 3.2, SIZE + 4, 2, fill(dark))
    for x in towers:
        for dx in (-4.6, 2.2):
            p.rect(x + dx, top - 5, 3.2, y - top + 24, fill(tone))
        for k in (0.02, 0.3, 0.6):
            p.rect(x - 4.6, top + (y - top) * k - 1, 10, 3, fill(dark))
        p.oval(x, y + 20, 11, 2.4, fill(light.lit(WHITE, 0.2), 0.5))


def flowers(p: Painter, c: Colour) -> None:
    light, rng = p.light, p.rng
    heart = light.thing(rgb("#f7c52b") if c != PAINT["yellow"] else rgb("#a3641c"))
    petal, deep = light.thing(c), light.thing(mix(c, (0.2, 0.0, 0.2), 0.2))
    stem = light.lit(rgb("#3f7d35"))
    spots = sorted((198 + 62 * rng.random() ** 1.1, rng.uniform(-4, 260)) for _ in range(95))
    for y, x in spots:
        s = 1.3 + 3.4 * ((y - 198) / 62) ** 1.1
        p.strand([(x, y), (x + rng.uniform(-1, 1), y + 3.4 * s)], stroke(stem, 0.9 + s * 0.12))
        turn = rng.uniform(0, 1.2)
        for k in range(5):
            a = turn + 1.2566 * k
            p.circle(
                x + math.cos(a) * s * 0.8,
                y + math.sin(a) * s * 0.62,
                s * 0.66,
                fill(petal if k % 2 else mix(petal, deep, 0.5)),
            )
        p.circle(x, y, s * 0.5, fill(heart))


def snowman(p: Painter, x: float, y: float) -> None:
    light = p.light
    pale, shade = light.thing((1, 1, 1), 0.0), light.thing((0.74, 0.81, 0.93), 0.0)
    dark = light.thing(rgb("#2b2b33"))
    shadow(p, x, y + 1, 15)
    away = 1.6 if p.sun_x < x else -1.6
    for dy, r in ((-10, 12), (-26, 8.8), (-39, 6.6)):
        p.circle(x, y + dy, r + 0.7, fill(light.thing((0.55, 0.64, 0.82), 0.0)))
        p.circle(x, y + dy, r, fill(shade))
        p.circle(x - away, y + dy - 0.8, r - 1.6, fill(pale))
    for s in (-1, 1):
        p.strand([(x + s * 8, y - 27), (x + s * 19, y - 35)], stroke(light.thing(rgb("#5a3d2a")), 1.5))
        p.circle(x + s * 2.3, y - 41, 1.1, fill(dark))
    p.path([(x, y - 39.6), (x + 8, y - 38), (x, y - 37)], fill(light.thing(rgb("#f28a2e"))))
    p.rect(x - 8.4, y - 46.4, 16.8, 2.4, fill(dark))
    p.rect(x - 5.2, y - 57, 10.4, 11, fill(dark))
    for k in (-30, -25, -20):
        p.circle(x, y + k, 1.1, fill(dark))


def birds(p: Painter, x: float, y: float) -> None:
    rng, light = p.rng, p.light
    ink = mix(light.lit(rgb("#23273a")), (0.08, 0.09, 0.16), 0.7)
    for i in range(rng.randint(5, 7)):
        bx, by = x + (i % 3 - 1) * 17 + rng.uniform(-5, 5), y + (i // 3 - 1) * 13 + rng.uniform(-4, 4)
        s, lift = rng.uniform(5.0, 7.4), rng.uniform(0.35, 0.7)
        bird(p, bx, by, s, lift, stroke(ink, 1.9))


def bird(p: Painter, x: float, y: float, s: float, lift: float, paint: skia.Paint) -> None:
    """Two wings that reach s to each side; lift is how far their tips are raised."""
    wing = skia.Path()
    wing.moveTo(x - s, y - s * lift)
    wing.quadTo(x - s * 0.35, y - s * lift * 0.9, x, y)
    wing.quadTo(x + s * 0.35, y - s * lift * 0.9, x + s, y - s * lift)
    p.canvas.drawPath(wing, paint)


COLOURED = {"house": house, "lighthouse": lighthouse, "windmill": windmill, "tent": tent, "umbrella": umbrella}
PLAIN = {"pine": pines, "palm": palms, "cactus": cacti, "snowman": snowman}
CENTRES = {"left": 0.2, "center": 0.5, "right": 0.8}


def draw_thing(p: Painter, thing: Thing) -> None:
    """Draws one thing of a scene in its place."""
    colour = PAINT.get(thing.colour, WHITE)
    if thing.kind == "bridge":
        return bridge(p, colour)
    if thing.kind == "flowers":
        return flowers(p, colour)
    x = CENTRES[thing.side] * SIZE + p.rng.uniform(-11, 11)
    if thing.kind == "balloon":
        return balloon(p, x, p.rng.uniform(40, 78), colour)
    if thing.kind == "birds":
        return birds(p, x, p.rng.uniform(34, 76))
    if thing.kind == "sailboat":
        assert p.water is not None
        return sailboat(p, x, p.rng.uniform(*p.water), colour)
    y = at(p.stand, x) + p.rng.uniform(-2, 3)
    if thing.kind in COLOURED:
        return COLOURED[thing.kind](p, x, y, colour)
    return PLAIN[thing.kind](p, x, y)
