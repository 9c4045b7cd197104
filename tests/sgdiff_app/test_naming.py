"""Names of result files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.errors import OutputError, UsageError
from sgdiff_app import naming
from sgdiff_app.options import OutputOptions


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A lighthouse in a storm", "A_lighthouse_in_a_storm"),
        ("a/b\\c: d__e!", "a_b_c_d_e"),
        ("Füchse", "F_chse"),
        ("日本", "output"),
        ("", "output"),
        ("../../etc", "etc"),
        ("--flag", "flag"),
        ("v1.5-beta", "v1.5-beta"),
        ("x" * 300, "x" * 100),
    ],
)
def test_prompts_become_safe_names(prompt: str, name: str) -> None:
    assert naming.clean(prompt) == name


def test_a_generated_name() -> None:
    names = naming.plan(OutputOptions())
    path = names.path("A fox!", "0123456789abcdef", "jpeg", 0, 1)
    assert re.fullmatch(r"outputs/A_fox_\d{8}-\d{6}_01234567\.jpg", path.as_posix())
    assert names.path("A fox!", "0123456789abcdef", "png", 1, 2).name.endswith("_01234567_1.png")
    assert len(names.path("x" * 300, "0123456789abcdef", "png", 0, 1).stem) <= 150


@pytest.mark.parametrize(
    ("options", "formats", "paths"),
    [
        ({"output_file_name": "A curious raccoon.mp4"}, "mp4", ["A curious raccoon_0.mp4", "A curious raccoon_1.mp4"]),
        ({"output_file_name": "fox.JPG"}, "jpeg", ["fox_0.JPG", "fox_1.JPG"]),
        ({"output_file_name": "v1.5"}, None, ["v1.5_0.webp", "v1.5_1.webp"]),
    ],
)
def test_an_explicit_name_is_kept(options: dict[str, str], formats: str | None, paths: list[str]) -> None:
    names = naming.plan(OutputOptions(**options))  # type: ignore[arg-type]
    assert names.format == formats
    assert [names.path("p", "id", "webp", index, 2).name for index in (0, 1)] == paths
    assert names.path("p", "id", "webp", 0, 1).name == paths[0].replace("_0", "")


def test_folder_and_name_in_one() -> None:
    assert naming.plan(OutputOptions(output_file_path="a/b c.png")).path("p", "id", "png", 0, 1) == Path("a/b c.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_file_name": "a/b.png"},
         "--output-file-name: must not contain a path, got 'a/b.png'; use --output-file-path or --output-path"),
        ({"output_file_name": "a.bmp"},
         "--output-file-name: must end in one of .png, .jpg, .jpeg, .webp, .mp4, .gif, got 'a.bmp'"),
        ({"output_file_path": "."}, "--output-file-path: must name a file, got '.'"),
        ({"output_file_path": "d/new/"}, "--output-file-path: must name a file, got 'd/new/'"),
        ({"output_file_path": "~nobody-of-that-name/x.png"},
         "--output-file-path: ~nobody-of-that-name/x.png: no such home folder"),
        ({"perf_dump_path": "."}, "--perf-dump-path: must name a file, got '.'"),
        ({"perf_dump_path": "new/"}, "--perf-dump-path: must name a file, got 'new/'"),
        ({"perf_dump_path": "p" * 256}, "--perf-dump-path: a file name has at most 255 bytes"),
    ],
)  # fmt: skip
def test_names_that_cannot_be(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        naming.plan(OutputOptions(**options))  # type: ignore[arg-type]
    assert str(caught.value) == message


@pytest.mark.parametrize(("name", "count", "length"), [("x" * 260, 1, 264), ("ü" * 125 + ".webp", 2, 257)])
def test_a_name_fits_into_a_folder(name: str, count: int, length: int) -> None:
    names = naming.plan(OutputOptions(output_file_name=name))
    with pytest.raises(UsageError) as caught:
        names.check_length("png", count)
    expected = f"--output-file-name: a file name has at most 255 bytes, with its number and suffix, got {length}"
    assert str(caught.value) == expected
    if count > 1:
        names.check_length("png", 1)


def test_home_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    names = naming.plan(OutputOptions(output_path="~/out", perf_dump_path="~/p.json"))
    assert (names.folder, names.timings) == (tmp_path / "out", tmp_path / "p.json")
    assert naming.plan(OutputOptions(output_file_path="~/a.png")).path("", "", "png", 0, 1) == tmp_path / "a.png"


def test_asking_whether_a_place_can_be_written_leaves_nothing() -> None:
    Path("there").mkdir()
    options = OutputOptions(output_path="there/a/b", perf_dump_path="c/p.json")
    naming.require_writable(options, naming.plan(options))
    assert list(Path().rglob("*")) == [Path("there")]


def test_places_that_cannot_be_written() -> None:
    Path("file").write_text("")
    for options in (OutputOptions(output_path="file"), OutputOptions(perf_dump_path="file/perf.json")):
        with pytest.raises(OutputError, match=r"^file: cannot be written: file is a file, not a folder$"):
            naming.require_writable(options, naming.plan(options))
    unsaved = OutputOptions(output_path="file", save_output=False)
    naming.require_writable(unsaved, naming.plan(unsaved))
