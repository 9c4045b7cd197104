"""Config files that cannot be read, each with its whole message."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import schema
from engine.errors import UsageError
from engine.types import Request
from sgdiff_app import files


@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.yml", "A.YAML"])
def test_both_formats_are_read(name: str) -> None:
    Path(name).write_text('{"steps": 4, "prompt": "Füchse"}', encoding="utf-8")
    assert files.read(name) == {"steps": 4, "prompt": "Füchse"}


def test_an_empty_yaml_file_sets_nothing() -> None:
    Path("a.yaml").write_text("# nothing yet\n")
    assert files.read("a.yaml") == {}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.yaml", None, "--config: none.yaml: no such file"),
        ("a.toml", "x = 1", "--config: a.toml: the name must end in one of .json, .yaml, .yml"),
        ("a.json", '{\n  "a": 1,\n}', "a.json: line 3 column 1: Expecting property name enclosed in double quotes"),
        ("a.json", '{"a": 1, "a": 2}', "a.json: a: given twice"),
        ("a.json", "[" * 100_000, "a.json: nested too deeply"),
        ("a.json", '{{"a": {}1{}}}'.format("[" * 60, "]" * 60), "a.json: nested too deeply"),
        ("a.yaml", "[" * 5000, "a.yaml: nested too deeply"),
        ("a.yaml", "diffusers_kwargs: &x {a: *x}", "a.yaml: nested too deeply"),
        ("a.yaml", "a: &x [*x]", "a.yaml: nested too deeply"),
        ("a.yaml", "a: 1\nb: x\x07y", "a.yaml: line 2 column 5: a control character (0x07)"),
        ("a.json", '{"a": "x\x07y"}', "a.json: line 1 column 9: Invalid control character at"),
        ("a.yaml", "b: 1\na: 2026-13-45", "a.yaml: line 2 column 4: '2026-13-45' cannot be read as a date"),
        ("a.yaml", "a: !!map x", "a.yaml: line 1 column 4: expected a mapping node, but found scalar"),
        ("a.json", "[1]", "a.json: the top level must be a mapping, got a list"),
        ("a.yaml", "a: 1\nb: [1\nc: 2", "a.yaml: line 3 column 2: expected ',' or ']', but got ':'"),
        ("a.yaml", "a: 1\nb: 2\na: 3", "a.yaml: line 3 column 1: a: given twice"),
        ("a.yaml", "just text", "a.yaml: the top level must be a mapping, got a text"),
        ("a.yaml", "a: !!os.x {}",
         "a.yaml: line 1 column 4: could not determine a constructor for the tag 'tag:yaml.org,2002:os.x'"),
        ("a.yaml", b"a: \xff", "--config: a.yaml: cannot be read: not UTF-8"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file(name: str, text: str | bytes | None, message: str) -> None:
    if text is not None:
        Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as caught:
        files.read(name)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["a.json", "a.yaml"])
def test_a_number_of_too_many_digits_is_read_as_one_that_is_too_large(name: str) -> None:
    Path(name).write_text('{"steps": 1' + 5000 * "0" + "}")
    with pytest.raises(UsageError, match=r"^num_inference_steps: must be at most 1000, got 1000"):
        schema.check(Request, "num_inference_steps", files.read(name)["steps"])


def test_values_that_are_named_often_are_not_deep() -> None:
    Path("a.yaml").write_text(
        "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))])
    )
    assert len(files.read("a.yaml")) == 40


def test_home_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "a.yaml").write_text("steps: 4")
    assert files.read("~/a.yaml") == {"steps": 4}
    for text, message in (
        ("~nobody-of-that-name/x", "--x: ~nobody-of-that-name/x: no such home folder"),
        ("a\0b", "--x: must not contain a null character"),
    ):
        with pytest.raises(UsageError) as caught:
            files.place(text, "--x")
        assert str(caught.value) == message


def test_a_folder_is_no_config_file() -> None:
    Path("a.yaml").mkdir()
    with pytest.raises(UsageError, match=r"--config: a.yaml: cannot be read: Is a directory"):
        files.read("a.yaml")
