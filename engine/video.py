"""MP4 files through the ffmpeg of imageio-ffmpeg: raw frames in by a pipe, tags in and out by its text format."""

from __future__ import annotations

import re
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from engine.errors import OutputError

FILTERS = (
    "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p,"
    "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
)
TAGS_HEADER = ";FFMETADATA1\n"
# A backslash keeps the character after it, a line end too; only bare line ends separate entries.
TAG = re.compile(r"((?:\\.|[^\\=\n])*)=((?:\\.|[^\\\n])*)(?:\n|$)", re.DOTALL)


def executable() -> str:
    """Return the path of ffmpeg. Raises OutputError when there is none."""
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise OutputError("ffmpeg is missing; install the package imageio-ffmpeg") from error


def write_mp4(
    frames: np.ndarray[Any, Any], path: Path, *, fps: int, crf: int, preset: str, tags: Mapping[str, str]
) -> None:
    """Write uint8 frames (F, H, W, 3) as H.264 that browsers play; odd sizes grow by one pixel.

    Raises OutputError with the words of ffmpeg.
    """
    write_stream(frames, (frames.shape[1], frames.shape[2]), path, fps=fps, crf=crf, preset=preset, tags=tags)


def write_stream(
    frames: Iterable[np.ndarray[Any, Any]],
    size: tuple[int, int],
    path: Path,
    *,
    fps: float,
    crf: int,
    preset: str,
    tags: Mapping[str, str],
) -> None:
    """Write frames of `size` (H, W) as `write_mp4` does, each when it is there."""
    height, width = (side + side % 2 for side in size)
    with tempfile.TemporaryDirectory() as place:
        tags_file = Path(place) / "tags.txt"  # a file, because a prompt may be longer than an argument can be
        tags_file.write_text(TAGS_HEADER + "".join(f"{_escape(k)}={_escape(v)}\n" for k, v in tags.items()), "utf-8")
        command = [
            executable(), "-hide_banner", "-loglevel", "error", "-nostats", "-y",
            "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-framerate", str(fps), "-i", "pipe:0",
            "-f", "ffmetadata", "-i", str(tags_file), "-map", "0:v", "-map_metadata", "1",
            "-vf", FILTERS, "-c:v", "libx264", "-preset", preset, "-crf", str(crf),
            "-fflags", "+bitexact", "-movflags", "+faststart+use_metadata_tags", "-f", "mp4", f"file:{path}",
        ]  # fmt: skip
        _pipe(command, (_even(frame, height, width) for frame in frames), path)


def _even(frame: np.ndarray[Any, Any], height: int, width: int) -> memoryview:
    """Return the bytes of a frame, grown by repeating its edge where its size is odd, and else not copied."""
    if frame.shape[:2] != (height, width):
        frame = np.pad(frame, ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)), mode="edge")
    return np.ascontiguousarray(frame).data


def _pipe(command: list[str], chunks: Iterable[bytes | memoryview], path: Path) -> None:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stderr is not None
    said: list[str] = []
    reader = threading.Thread(target=_drain, args=(process.stderr, said), daemon=True)  # a full pipe would stall it
    reader.start()
    try:
        with suppress(BrokenPipeError):  # it gave up; its exit code and words say why
            for chunk in chunks:
                process.stdin.write(chunk)
        with suppress(BrokenPipeError):
            process.stdin.close()
        status = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        reader.join()
        process.stderr.close()
        with suppress(BrokenPipeError):
            process.stdin.close()
    if status != 0:
        text = said[-1] if said else f"exit status {status}"
        raise OutputError(f"{path.name}: ffmpeg failed: {text}")


def _drain(stream: IO[bytes], lines: list[str]) -> None:
    lines.extend(text for line in stream if (text := line.decode(errors="replace").strip()))


def read_frames(path: Path, wanted: Sequence[int], size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Return some frames of an MP4 file, by their numbers in growing order, as uint8 (F, H, W, 3) of `size` (H, W).

    Frames that the file lacks are left out. Raises OutputError with the words of ffmpeg.
    """
    height, width = size
    chosen = "+".join(f"eq(n\\,{number})" for number in wanted)
    command = [
        executable(), "-hide_banner", "-loglevel", "error", "-nostdin", "-protocol_whitelist", "file,pipe",
        "-f", "mov", "-i", f"file:{path}", "-map", "0:v:0", "-fps_mode", "passthrough", "-frames:v", str(len(wanted)),
        "-vf", f"select={chosen},scale={width}:{height}:flags=area:in_color_matrix=bt709:in_range=tv",
        "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=False)
    size_of_frame = height * width * 3
    count = len(done.stdout) // size_of_frame
    if done.returncode != 0 or count == 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise OutputError(f"{path.name}: ffmpeg failed: {said[-1] if said else 'the file has no such frames'}")
    return np.frombuffer(done.stdout[: count * size_of_frame], np.uint8).reshape(count, height, width, 3)


def read_tags(path: Path) -> dict[str, str]:
    """Return the tags of an MP4 file; empty when it cannot be read as one."""
    command = [
        executable(), "-hide_banner", "-loglevel", "error", "-nostdin", "-protocol_whitelist", "file,pipe",
        "-f", "mov", "-i", f"file:{path}", "-map_metadata", "0", "-f", "ffmetadata", "pipe:1",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=False)
    text = done.stdout.decode("utf-8", errors="replace").removeprefix(TAGS_HEADER)
    tags, place = {}, 0
    while entry := TAG.match(text, place):  # ends at the first line that is no entry: a section of a stream
        tags[_unescape(entry[1])] = _unescape(entry[2])
        place = entry.end()
    return tags


def _escape(text: str) -> str:
    # ffmpeg takes a backslash at the very end, escaped or not, for a line that goes on
    return re.sub(r"([\\=;#\n])", r"\\\1", text.rstrip("\\"))


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
