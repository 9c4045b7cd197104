"""Clips that are cut, joined and turned into GIF files: the right frames, the right length, the recipe kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import editing, media, recipe, recipe_file, video
from engine.editing import Clip
from engine.errors import InputError, UsageError
from engine.types import Request
from tests.engine.test_settings_text import RECIPE

FPS = 16


def shades(*levels: int, size: tuple[int, int] = (32, 48)) -> np.ndarray[Any, Any]:
    return np.stack([np.full((*size, 3), level, np.uint8) for level in levels])


def written(path: Path, frames: np.ndarray[Any, Any], fps: int = FPS) -> Path:
    media.encode(frames, path, "mp4", Request(fps=fps, output_quality="maximum"), RECIPE)
    return path


def levels(path: Path, clip: Clip) -> list[int]:
    found = video.read_frames(path, range(clip.frames + 5), (clip.height, clip.width))
    return [round(float(frame.mean())) for frame in found]


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    """Ten frames, the i-th of brightness 20 i."""
    return written(tmp_path / "ramp.mp4", shades(*range(0, 200, 20)))


def close(found: list[int], wanted: list[int]) -> None:
    assert len(found) == len(wanted), (found, wanted)
    assert all(abs(a - b) <= 3 for a, b in zip(found, wanted, strict=True)), (found, wanted)


def test_what_a_clip_holds(ramp: Path) -> None:
    clip = editing.probe(ramp)
    assert clip == Clip(48, 32, 10, 16.0)
    assert clip.duration_s == 10 / 16


@pytest.mark.parametrize(
    ("start", "end", "first", "last"),
    [(0, None, 0, 10), (2 / FPS, 5 / FPS, 2, 5), (0.5, 99, 8, 10), (0.1, 0.11, 2, 3), (0.62, None, 9, 10)],
)
def test_a_part_of_a_clip(start: float, end: float | None, first: int, last: int, ramp: Path, tmp_path: Path) -> None:
    clip = editing.trim(ramp, tmp_path / "cut.mp4", start, end)
    assert clip == editing.probe(tmp_path / "cut.mp4") == Clip(48, 32, last - first, 16.0)
    close(levels(tmp_path / "cut.mp4", clip), [20 * i for i in range(first, last)])


def test_an_edited_clip_keeps_its_recipe_and_says_what_was_done(ramp: Path, tmp_path: Path) -> None:
    cut, again, gif = (tmp_path / name for name in ("cut.mp4", "again.mp4", "x.gif"))
    editing.trim(ramp, cut, 0.125, 0.5)
    editing.join([cut, ramp], again)
    editing.to_gif(again, gif)
    done = [{"trim": {"start_s": 0.125, "end_s": 0.5}}, {"join": {"clips": 2, "crossfade_s": 0.0}}]
    assert recipe_file.read_recipe(again) == {**RECIPE, "edited": done}
    assert recipe_file.read_recipe(gif)["edited"][2] == {"gif": {"fps": 12, "width": 48}}
    recipe.check(recipe_file.read_recipe(gif))
    data = again.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # it starts before it is there as a whole


def test_clips_one_after_another(ramp: Path, tmp_path: Path) -> None:
    other = written(tmp_path / "b.mp4", shades(200, 100, 200))
    clip = editing.join([ramp, other, ramp], tmp_path / "all.mp4")
    ramped = list(range(0, 200, 20))
    close(levels(tmp_path / "all.mp4", clip), [*ramped, 200, 100, 200, *ramped])


def test_a_crossfade_blends(tmp_path: Path) -> None:
    dark, light = written(tmp_path / "a.mp4", shades(*[40] * 8)), written(tmp_path / "b.mp4", shades(*[200] * 8))
    clip = editing.join([dark, light], tmp_path / "all.mp4", crossfade_s=4 / FPS)
    assert clip.frames == 12
    found = levels(tmp_path / "all.mp4", clip)
    close(found[:4] + found[8:], [40] * 4 + [200] * 4)
    close(found[4:8], [60, 100, 140, 180])


def test_another_size_is_fitted_into_the_first(tmp_path: Path) -> None:
    wide = written(tmp_path / "a.mp4", shades(200, 200, size=(32, 48)))
    tall = written(tmp_path / "b.mp4", shades(200, 200, size=(64, 32)), fps=8)
    clip = editing.join([wide, tall], tmp_path / "all.mp4")
    assert (clip.width, clip.height, clip.frames) == (48, 32, 6)  # 2 at 16 a second, and 2 at 8
    frame = video.read_frames(tmp_path / "all.mp4", [4], (32, 48))[0].mean(-1)
    assert frame[:, 20:28].min() > 180
    assert frame[:, :12].max() < 30 and frame[:, 36:].max() < 30


def test_a_gif_is_not_faster_and_not_larger(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp4", shades(*range(0, 240, 10)), fps=24)
    clip = editing.to_gif(path, tmp_path / "a.gif", fps=12, width=24)
    assert clip == Clip(24, 16, 12, 12)
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.size, getattr(image, "n_frames", 1)) == ((24, 16), 12)
    assert editing.to_gif(path, tmp_path / "b.gif", fps=50, width=900) == Clip(48, 32, 24, 24)


def test_pictures_for_a_strip(ramp: Path) -> None:
    found = editing.frames(ramp, 4, height=16)
    assert [image.size for image in found] == [(24, 16)] * 4
    close([round(float(np.asarray(image).mean())) for image in found], [0, 60, 120, 180])
    assert len(editing.frames(ramp, 50)) == 10
    assert len(editing.frames(ramp, 1)) == 1


def test_mistakes_say_what_is_possible(ramp: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.mp4"
    for wrong, words in (
        (lambda: editing.trim(ramp, target, 0.5, 0.2), "end: must be after the start at 0.5 s, got 0.2"),
        (lambda: editing.trim(ramp, target, -1), "start: must be from 0 .*the clip has 0.625 s, got -1"),
        (lambda: editing.trim(ramp, target, 3), "the clip has 0.625 s, got 3"),
        (lambda: editing.trim(ramp, target, float("nan")), "start: must be"),
        (lambda: editing.trim(ramp, target, 0, float("nan")), "end: must be"),
        (lambda: editing.join([ramp], target), "join: needs 2 to 20 clips, got 1"),
        (lambda: editing.join([ramp, ramp], target, 1), "crossfade: must be from 0 to 0.3125, half of the shortest"),
        (lambda: editing.to_gif(ramp, target, fps=90), "fps: must be from 1 to 50, got 90"),
        (lambda: editing.to_gif(ramp, target, width=4), "width: must be from 16 to 1920, got 4"),
    ):
        with pytest.raises(UsageError, match=words):
            wrong()
    assert not target.exists()


def test_what_is_no_clip_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    (tmp_path / "cut.mp4").write_bytes(b"\0\0\0\x20ftypisom" + b"\0" * 500)
    for name, words in (
        ("a.png", "a.png: is no MP4 file"),
        ("list.mp4", "list.mp4: is no MP4 file"),
        ("cut.mp4", "cut.mp4: is a damaged video"),
        ("none.mp4", "none.mp4: cannot be read: No such file"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            editing.probe(tmp_path / name)
        assert str(tmp_path) not in caught.value.message
