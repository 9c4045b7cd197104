"""The README keeps its word: its commands parse, its paths exist, its Python runs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sgdiff_app.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _commands() -> list[str]:
    fences = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    return [line for fence in fences for line in fence.splitlines() if line.startswith("scripts/sgdiff")]


def test_it_opens_with_a_picture_and_the_two_commands() -> None:
    assert README.splitlines()[2] == "![A beautiful sunset over the mountains](assets/examples/sunset.png)"
    command = 'scripts/sgdiff generate --prompt "A beautiful sunset over the mountains"'
    assert _commands()[:2] == [f"{command} --seed 11", command]
    assert "\nscripts/test\n" in README


@pytest.fixture
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the examples name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "run.yaml").write_text("prompt: a hill\n")
    for name in ("harbour.png", "mask.png", "pictures/a_lighthouse_in_fog.png"):
        shutil.copy(ROOT / "assets/examples/sunset.png", tmp_path / name)


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize("line", _commands())
def test_every_command_parses(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(line, comments=True)[1:]
    if words[0] in ("doctor", "models"):  # they have nothing to print but their answer
        assert main([words[0], "--help"]) == 0
        return
    assert main([*words, "--print-config"]) == 0, capsys.readouterr().err


def test_the_tree_is_the_tree() -> None:
    named = re.findall(r"^\| `([\w/]+)/` \|", README, re.MULTILINE)
    assert [name for name in named if not (ROOT / name).is_dir()] == []
    rooms = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "engine").glob("*/__init__.py")}
    tops = {"sgdiff_app", "engine", "assets", "scripts", "tests"}
    assert (rooms | tops) - set(named) == set(), "a folder that the README does not name"


def test_relative_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_its_tables_are_made_from_the_results() -> None:
    script = [sys.executable, str(ROOT / "scripts/bench/readme.py"), "--check"]
    assert subprocess.run(script, check=False).returncode == 0, "run scripts/bench/readme.py"


def test_the_lines_of_the_worked_example_are_counted() -> None:
    told = re.findall(r"^\| `([\w/]+\.py)` \| (\d+) \|", README, re.MULTILINE)
    assert len(told) == 3
    for name, lines in told:
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) == int(lines), f"{name}: see README.md"
