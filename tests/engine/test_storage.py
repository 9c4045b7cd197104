"""A file appears complete or not at all, and a folder that cannot be written to is explained."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import media, storage
from engine.errors import OutputError, SgdiffError, UsageError
from engine.types import Artifact, Output, Request, Timings

TIMINGS = Timings(1.0, (), (), {}, 0.0)
FRAMES = np.random.default_rng(0).integers(0, 256, (1, 33, 47, 3), dtype=np.uint8)
OUTPUT = Output(FRAMES, Request(prompt="a cat", seed=7), {"request": {"prompt": "a cat", "seed": 7}}, TIMINGS)
CLIP = dataclasses.replace(OUTPUT, frames=np.repeat(FRAMES, 5, axis=0))


def message(kind: type[SgdiffError], action: Any, *args: Any) -> str:
    with pytest.raises(SgdiffError) as caught:
        action(*args)
    assert type(caught.value) is kind
    return caught.value.message


@pytest.mark.parametrize(
    ("name", "media_type", "output"),
    [
        ("a.png", "image/png", OUTPUT),
        ("a.jpg", "image/jpeg", OUTPUT),
        ("a.JPEG", "image/jpeg", OUTPUT),
        ("a b.webp", "image/webp", OUTPUT),
        ("a.mp4", "video/mp4", CLIP),
        ("a.gif", "image/gif", CLIP),
    ],
)
def test_the_suffix_names_the_format(name: str, media_type: str, output: Output, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / name
    artifact = storage.save(output, path)
    assert artifact == Artifact(str(path), media_type, 47, 33, len(output.frames), 7)
    assert [entry.name for entry in path.parent.iterdir()] == [name]
    assert media.read_recipe(path) == OUTPUT.recipe


def test_an_output_saves_itself(tmp_path: Path) -> None:
    artifact = OUTPUT.save(str(tmp_path / "a.png"))
    with Image.open(artifact.location) as image:
        assert np.array_equal(np.asarray(image), FRAMES[0])


def test_a_file_of_that_name_is_replaced_and_has_ordinary_rights(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("x")
    (tmp_path / "a.png").write_text("old")
    storage.save(OUTPUT, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.png").stat().st_mode == other.stat().st_mode


@pytest.mark.parametrize(("name", "shown"), [("a.tiff", "a.tiff"), ("a", "a"), (".png", ".png")])
def test_an_unknown_suffix_is_answered_with_the_known_ones(name: str, shown: str, tmp_path: Path) -> None:
    expected = f"{shown}: the suffix must be one of .png, .jpg, .jpeg, .webp, .mp4, .gif"
    assert message(UsageError, storage.save, OUTPUT, tmp_path / "new" / name) == expected
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), ValueError()])
@pytest.mark.parametrize("name", ["new.png", "old.png"])
def test_a_failure_while_encoding_leaves_nothing(
    error: BaseException, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old.png").write_text("old")

    def fail(frames: Any, path: Path, *_: Any) -> None:
        path.write_text("half")
        raise error

    monkeypatch.setattr(media, "encode", fail)
    expected = OutputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected) as caught:
        storage.save(OUTPUT, tmp_path / name)
    if isinstance(caught.value, OutputError):
        assert caught.value.message == f"{tmp_path / name}: cannot be written: no space left on the disk"
        assert (caught.value.code, caught.value.exit_status) == ("output_not_writable", 1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["old.png"]
    assert (tmp_path / "old.png").read_text() == "old"


def test_a_file_is_written_once_under_another_name_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    monkeypatch.setattr(media, "encode", lambda frames, path, *_: written.append(path) or path.write_text("new"))
    storage.save(OUTPUT, tmp_path / "a.png")
    assert [path.parent for path in written] == [tmp_path]
    assert written[0].name.endswith(".part")
    assert (tmp_path / "a.png").read_text() == "new"


def test_a_video_encoder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    broken = dataclasses.replace(CLIP, request=CLIP.request.replace(x264_preset="hurried"))  # type: ignore[arg-type]
    with pytest.raises(OutputError, match="ffmpeg failed: "):
        storage.save(broken, tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_under_that_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    expected = f"{tmp_path}/a.png: cannot be written: is a folder"
    assert message(OutputError, storage.save, OUTPUT, tmp_path / "a.png") == expected
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 300 + ".png")
    assert message(OutputError, storage.save, OUTPUT, path) == f"{path}: cannot be written: the name is too long"
    assert list(tmp_path.iterdir()) == []


def test_a_writable_folder_is_created_and_left_empty(tmp_path: Path) -> None:
    storage.writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    place = tmp_path / "file"
    for folder in (place, place / "inner"):
        expected = f"{folder}: cannot be written: {place} is a file, not a folder"
        assert message(OutputError, storage.writable, folder) == expected


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "the file system is read-only"),
        (errno.ENOSPC, "no space left on the disk"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_folder_that_refuses_is_explained(
    number: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, data: bytes) -> int:
        raise OSError(number, {errno.EIO: "Input/output error"}.get(number, "words of the system"))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    expected = f"{tmp_path}: cannot be written: {reason}"
    assert message(OutputError, storage.writable, tmp_path) == expected
    assert message(OutputError, storage.save, OUTPUT, tmp_path / "a.png") == expected


def test_anything_written_in_one_piece_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"

    def write(text: str) -> None:
        with storage.atomic(path) as part:
            part.write_text(text)
            assert part.parent == path.parent
            assert not path.exists()

    write("{}")
    assert path.read_text() == "{}"
    with pytest.raises(AssertionError):
        write("half")
    assert path.read_text() == "{}"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_is_written_in_one_piece_too(tmp_path: Path) -> None:
    def write() -> None:
        with storage.atomic(tmp_path / "model") as part:
            part.mkdir()
            (part / "file").write_text("x")

    write()
    assert (tmp_path / "model" / "file").read_text() == "x"
    assert message(OutputError, write) == f"{tmp_path}/model: cannot be written: is a folder that is not empty"
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def test_what_the_system_says_about_a_file_in_one_piece_is_put_into_words(tmp_path: Path) -> None:
    def write() -> None:
        with storage.atomic(tmp_path / "a.json"):
            raise OSError(errno.EDQUOT, "words of the system")

    assert message(OutputError, write) == f"{tmp_path}/a.json: cannot be written: the disk quota is used up"


def test_a_folder_that_may_not_be_looked_into_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bool:
        raise PermissionError(errno.EACCES, "words of the system")

    monkeypatch.setattr(Path, "exists", refuse)
    assert message(OutputError, storage.writable, tmp_path) == f"{tmp_path}: cannot be written: permission denied"
