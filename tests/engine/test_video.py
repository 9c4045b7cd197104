"""The pipe to ffmpeg: its failures in words, no process left behind, tags of any text."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest

from engine import video
from engine.errors import OutputError

FRAMES = np.zeros((4, 32, 32, 3), np.uint8)


def write(path: Path, frames: Any = FRAMES, **changes: Any) -> None:
    video.write_mp4(frames, path, **{"fps": 8, "crf": 25, "preset": "fast", "tags": {}, **changes})


@pytest.mark.parametrize(
    "value", ["plain", "a=b;c#d\\e\nf\n\n;g=1\n[CHAPTER]\nTITLE=x", "猫 🎈 ü", "a\\\nb\\\\c", "x" * 200_000]
)
def test_tags_of_any_text_come_back(value: str, tmp_path: Path) -> None:
    write(tmp_path / "a", tags={"sgdiff": value, "comment": "second"})
    tags = video.read_tags(tmp_path / "a")
    assert tags["sgdiff"] == value
    assert tags["comment"] == "second"


def test_a_backslash_at_the_end_does_not_swallow_the_next_tag(tmp_path: Path) -> None:
    write(tmp_path / "a", tags={"sgdiff": "one\\", "comment": "second"})
    tags = video.read_tags(tmp_path / "a")
    assert (tags["sgdiff"], tags["comment"]) == ("one", "second")


def test_frames_are_read_in_any_order_of_memory_and_copied_only_to_grow(tmp_path: Path) -> None:
    frames = np.zeros((2, 33, 48, 3), np.uint8)
    frames[:, :, :24] = 200
    write(tmp_path / "a", frames[:, ::-1, ::-1], crf=1)
    command = [video.executable(), "-v", "error", "-i", tmp_path / "a", "-f", "rawvideo", "-pix_fmt", "gray", "pipe:1"]
    read = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8)
    assert read.reshape(2, 34, 48)[:, [0, 33]][..., [4, 44]] == pytest.approx(np.array([[[0, 200]] * 2] * 2), abs=8)
    assert np.shares_memory(np.asarray(video._even(frames[0, :32], 32, 48)), frames)


def test_what_is_no_video_has_no_tags(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("hello")
    assert video.read_tags(tmp_path / "a") == {}
    assert video.read_tags(tmp_path / "gone") == {}


def test_a_name_is_a_file_and_never_an_option_or_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-y", "http:x"):
        write(Path(name), tags={"sgdiff": "1"})
        assert video.read_tags(Path(name))["sgdiff"] == "1"


def test_a_failure_repeats_the_words_of_ffmpeg(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        write(tmp_path / "a", preset="hurried")
    assert caught.value.message.startswith("a: ffmpeg failed: ")
    with pytest.raises(OutputError) as caught:
        write(tmp_path / "missing" / "a")
    assert caught.value.message == "a: ffmpeg failed: Error opening output files: No such file or directory"


def test_an_encoder_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "executable", lambda: "/bin/false")
    with pytest.raises(OutputError) as caught:
        write(tmp_path / "a", np.zeros((40, 512, 512, 3), np.uint8))
    assert caught.value.message == "a: ffmpeg failed: exit status 1"


def test_an_error_between_two_frames_stops_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    popen = video.subprocess.Popen
    monkeypatch.setattr(video.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])

    def frames() -> Any:
        yield b"\0" * (32 * 32 * 3)
        raise KeyboardInterrupt

    monkeypatch.setattr(video, "_even", lambda *_: next(chunks))
    chunks = frames()
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a")
    assert started[0].poll() is not None


def test_a_missing_ffmpeg_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)
    with pytest.raises(OutputError) as caught:
        video.executable()
    assert caught.value.message == "ffmpeg is missing; install the package imageio-ffmpeg"
