"""Clips cut, joined and turned into GIF files: moviepy decodes and blends, our own encoder writes.

moviepy's writers are not used: their files start late in a browser, have no colour tags and lose the recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import media, recipe_file, video
from engine.errors import InputError, UsageError
from engine.types import Request

if TYPE_CHECKING:
    from PIL import Image

CRF = 18  # what was encoded once already shall look the same
GIF_FPS, GIF_WIDTH = 12, 480
MOST_GIF_FPS, MOST_GIF_WIDTH = 50, 1920  # browsers slow down what is faster
MOST_CLIPS = 20
EDITED = "edited"  # in a recipe: what was done to the clip that it makes
Frame = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Clip:
    """What an MP4 file holds."""

    width: int
    height: int
    frames: int
    fps: float

    @property
    def duration_s(self) -> float:
        return self.frames / self.fps


def probe(path: Path) -> Clip:
    """Return what a clip holds. Raises InputError for a file that is none."""
    with _opened(path) as (_, clip):
        return clip


def trim(path: Path, target: Path, start_s: float = 0.0, end_s: float | None = None) -> Clip:
    """Write the part of a clip from one second to another, to the next frame. Raises UsageError, OutputError."""
    with _opened(path) as (reader, clip):
        end_s = clip.duration_s if end_s is None else end_s
        length = f"the clip has {clip.duration_s:g} s"
        if not 0 <= start_s < clip.duration_s:
            raise UsageError(f"start: must be from 0 to less than the end; {length}, got {start_s:g}", param="start")
        if not start_s < end_s:
            raise UsageError(f"end: must be after the start at {start_s:g} s, got {end_s:g}; {length}", param="end")
        first = min(round(start_s * clip.fps), clip.frames - 1)
        last = max(first + 1, min(round(end_s * clip.fps), clip.frames))
        frames = (reader.get_frame((i + 0.5) / clip.fps) for i in range(first, last))
        edit = {"trim": {"start_s": round(first / clip.fps, 6), "end_s": round(last / clip.fps, 6)}}
        return _write(frames, target, clip, last - first, _recipe(path, edit))


def join(paths: Sequence[Path], target: Path, crossfade_s: float = 0.0) -> Clip:
    """Write clips one after another, each blended into the next for so many seconds.

    Size and frame rate are the first clip's; another shape gets black borders. Raises UsageError, OutputError.
    """
    if not 2 <= len(paths) <= MOST_CLIPS:
        raise UsageError(f"join: needs 2 to {MOST_CLIPS} clips, got {len(paths)}")
    from moviepy import CompositeVideoClip, vfx  # slow to import, and rarely needed

    with ExitStack() as stack:
        opened = [stack.enter_context(_opened(path)) for path in paths]
        first, shortest = opened[0][1], min(clip.duration_s for _, clip in opened)
        if not 0 <= crossfade_s <= shortest / 2:
            bound = f"{shortest / 2:g}, half of the shortest clip"
            raise UsageError(f"crossfade: must be from 0 to {bound}, got {crossfade_s:g}", param="crossfade")
        parts, start = list[Any](), 0.0
        for reader, clip in opened:
            scale = min(first.width / clip.width, first.height / clip.height)
            part = reader if scale == 1 else reader.resized((round(clip.width * scale), round(clip.height * scale)))
            part = part.with_start(start).with_position("center")
            parts.append(part.with_effects([vfx.CrossFadeIn(crossfade_s)]) if parts and crossfade_s else part)
            start += clip.duration_s - crossfade_s
        count = round((start + crossfade_s) * first.fps)
        whole = CompositeVideoClip(parts, size=(first.width, first.height))
        frames = (whole.get_frame((i + 0.5) / first.fps) for i in range(count))
        edit = {"join": {"clips": len(paths), "crossfade_s": crossfade_s}}
        return _write(frames, target, first, count, _recipe(paths[0], edit))


def to_gif(path: Path, target: Path, fps: int = GIF_FPS, width: int = GIF_WIDTH) -> Clip:
    """Write a clip as a GIF file, not faster and not larger than it is. Raises UsageError, OutputError."""
    for name, value, least, most in (("fps", fps, 1, MOST_GIF_FPS), ("width", width, 16, MOST_GIF_WIDTH)):
        if not least <= value <= most:
            raise UsageError(f"{name}: must be from {least} to {most}, got {value}", param=name)
    with _opened(path) as (_, clip):
        fps, width = min(fps, max(1, round(clip.fps))), min(width, clip.width)
        height = max(1, round(clip.height * width / clip.width))
        count = max(1, round(clip.duration_s * fps))
        wanted = [min(int((i + 0.5) / fps * clip.fps), clip.frames - 1) for i in range(count)]
        frames = video.read_frames(path, wanted, (height, width))
        edit = {"gif": {"fps": fps, "width": width}}
        media.encode(frames, target, "gif", Request(fps=fps), _recipe(path, edit))
        return Clip(width, height, len(frames), fps)


def frames(path: Path, count: int = 8, height: int = 96) -> list[Image.Image]:
    """Return pictures evenly spread over a clip, for a strip. Raises InputError, OutputError."""
    from PIL import Image

    clip = probe(path)
    wanted = sorted({round(number) for number in np.linspace(0, clip.frames - 1, max(1, count))})
    width = max(1, round(clip.width * height / clip.height))
    return [Image.fromarray(frame) for frame in video.read_frames(path, wanted, (height, width))]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Clip]]:
    """Give moviepy's reader of a clip, and what it holds. Raises InputError.

    What is no MP4 file is not given to ffmpeg: a playlist could name other files.
    """
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read: {error.strerror or error}", code="invalid_video") from error
    if head[4:8] != b"ftyp":
        raise InputError(f"{path.name}: is no MP4 file", code="invalid_video")
    import imageio_ffmpeg
    from moviepy import VideoFileClip

    try:
        reader = VideoFileClip(str(path), audio=False)
        count, _ = imageio_ffmpeg.count_frames_and_secs(str(path))
    except (OSError, RuntimeError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"{path.name}: is a damaged video", code="invalid_video") from error
    try:
        yield reader.with_duration(count / reader.fps), Clip(reader.w, reader.h, count, reader.fps)
    finally:
        process = reader.reader.proc
        if process is not None:  # of one that has ended already moviepy leaves these open
            process.stdout.close()
            process.stderr.close()
        reader.close()


def _write(frames: Iterator[Frame], target: Path, like: Clip, count: int, recipe: Mapping[str, Any] | None) -> Clip:
    tags = recipe_file.video_tags(recipe) if recipe is not None else {}
    size = like.height, like.width
    video.write_stream(frames, size, target, fps=like.fps, crf=CRF, preset="fast", tags=tags)
    return Clip(like.width, like.height, count, like.fps)


def _recipe(path: Path, edit: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the recipe of a clip, which makes it as it was, with what was done to it since."""
    text = video.read_tags(path.resolve()).get(recipe_file.KEY)
    if text is None:
        return None
    try:
        found = recipe_file.parsed(text, path.name)
    except InputError:
        return None
    before = found.get(EDITED)
    return {**found, EDITED: [*(before if isinstance(before, list) else ()), dict(edit)]}
