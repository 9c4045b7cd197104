"""Draws a scene: a deterministic, anti-aliased flat illustration."""

from __future__ import annotations

import random

import numpy as np
import skia
from brush import SIZE, Painter, vertical
from places import PLACES
from scenes import SKY_KINDS, Scene
from sky import draw_sky, draw_weather, light_of
from things import draw_thing

SUN_LIFT = {"mountains": 38.0, "city": 40.0, "forest": 34.0, "snow": 26.0, "lake": 24.0, "hills": 20.0, "meadow": 8.0}


def draw(scene: Scene, size: int = 256) -> np.ndarray:
    """The picture of a scene as (size, size, 3) uint8."""
    rng = random.Random(scene.seed * 7919 + 17)
    light = light_of(scene, rng)
    surface = skia.Surface(size, size)
    canvas = surface.getCanvas()
    canvas.scale(size / SIZE, size / SIZE)
    p = Painter(canvas, surface, rng, light, horizon=rng.uniform(144, 156), sun_lift=SUN_LIFT.get(scene.place, 0.0))
    draw_sky(p)
    sky = [t for t in scene.things if t.kind in SKY_KINDS]
    PLACES[scene.place](p, lambda: [draw_thing(p, t) for t in sky])  # type: ignore[func-returns-value,arg-type]
    p.rect(0, 190, SIZE, 70, vertical(196, 262, (0.03, 0.03, 0.1), (0.03, 0.03, 0.1), 0.0, 0.22))
    for thing in sorted((t for t in scene.things if t.kind not in SKY_KINDS), key=lambda t: t.kind != "bridge"):
        draw_thing(p, thing)
    draw_weather(p)
    pixels = surface.makeImageSnapshot().toarray(colorType=skia.kRGBA_8888_ColorType)
    return np.ascontiguousarray(pixels[..., :3])
