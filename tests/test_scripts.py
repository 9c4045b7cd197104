"""The scripts: their shell, the pins, and how the environment is made."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
NAMES = ("scripts/sgdiff", "scripts/test", "scripts/check", "scripts/screenshots", ".ci/run")
COMMANDS = [ROOT / name for name in NAMES]
PINS = ROOT / "scripts/constraints.txt"


@pytest.fixture(scope="module")
def make_env() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_env", ROOT / "scripts/make_env.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose environment is complete as far as the scripts can tell, with a Python that only echoes."""
    (tmp_path / "scripts").mkdir()
    for name in (
        "pyproject.toml",
        "scripts/constraints.txt",
        "scripts/env.sh",
        "scripts/make_env.py",
        "scripts/sgdiff",
    ):
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$PWD|$*"\n')
    python.chmod(0o755)
    stamp = subprocess.check_output(["bash", "-c", f"source '{tmp_path}/scripts/env.sh' && env_stamp"])
    (tmp_path / ".venv/.complete").write_bytes(stamp)
    return tmp_path


def pins(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(each.name): str(each.specifier).removeprefix("==") for each in requirements}


def closure(name: str, extras: frozenset[str]) -> Iterator[str]:
    """The names that `name[extras]` requires in this environment, however deep, without CUDA packages."""
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [(name, extras)]
    while todo:
        current, wanted = todo.pop()
        if (current, wanted) in seen or current.startswith(("nvidia-", "cuda-", "triton")):
            continue
        seen.add((current, wanted))
        yield current
        for line in distribution(current).requires or []:
            each = Requirement(line)
            if any(each.marker is None or each.marker.evaluate({"extra": extra}) for extra in (*wanted, "")):
                todo.append((canonicalize_name(each.name), frozenset(each.extras)))


@pytest.mark.parametrize("script", [*COMMANDS, ROOT / "scripts/env.sh"], ids=lambda path: path.name)
def test_shell_is_valid(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "--external-sources", "--source-path", ROOT / "scripts", script], check=True)


@pytest.mark.parametrize("script", COMMANDS, ids=lambda path: path.name)
def test_commands_are_executable_and_strict(script: Path) -> None:
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text


def test_no_registry_is_named() -> None:
    files = [*COMMANDS, PINS, ROOT / "pyproject.toml", ROOT / "scripts/env.sh", ROOT / "scripts/make_env.py"]
    for path in [*files, ROOT / ".pre-commit-config.yaml"]:
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links|pypi", path.read_text(), re.IGNORECASE), path


def test_pins_name_exact_versions_in_order() -> None:
    lines = [line for line in PINS.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)
    assert lines == sorted(lines, key=str.lower)


def test_every_dependency_is_pinned_and_installed_as_pinned() -> None:
    try:
        distribution("sgdiff-app")
    except PackageNotFoundError:
        pytest.skip("the project is not installed here")
    names = set(closure("sgdiff-app", frozenset({"dev"}))) - {"sgdiff-app"}
    ours = pins(PINS)
    assert not names - ours.keys()
    used = Path(sys.prefix) / "constraints.txt"  # ours, less what a kept torch or the user's own constraints decide
    expected = pins(used) if used.exists() else {}
    wrong = {
        name: installed
        for name in names & expected.keys()
        if (installed := distribution(name).version.split("+")[0]) != expected[name]
    }
    assert not wrong


def test_a_complete_environment_is_used_at_once(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "sgdiff").symlink_to(checkout / "scripts/sgdiff")
    done = subprocess.run(
        [elsewhere / "sgdiff", "generate", "--prompt", "a hill"],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{elsewhere}|-P -m sgdiff_app generate --prompt a hill\n"
    assert done.stderr == ""


def test_a_changed_pin_or_a_moved_checkout_is_noticed(checkout: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path / "bin") + os.pathsep + os.environ["PATH"]}
    (tmp_path / "bin").mkdir()
    for name in ("python3", "python"):
        fake = tmp_path / "bin" / name
        fake.write_text('#!/bin/sh\ncase $1 in -c) echo 3.11;; *) echo "made: $*"; exit 3;; esac\n')
        fake.chmod(0o755)

    def run(root: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([root / "scripts/sgdiff"], env=environment, capture_output=True, text=True, check=False)

    assert run(checkout).returncode == 0
    with (checkout / "scripts/constraints.txt").open("a") as file:
        file.write("zzz==1\n")
    done = run(checkout)
    assert done.returncode == 3
    assert done.stdout == ""
    assert "made:" in done.stderr
    assert "make_env.py" in done.stderr


def test_a_python_that_is_too_old_is_named(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".venv/.complete").unlink()
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "cat", "cksum", "dirname", "readlink"):
        (tools / name).symlink_to(shutil.which(name) or name)
    old = tools / "python3"
    old.write_text('#!/bin/sh\ncase "$2" in *venv*) exit 1;; *) echo 3.9;; esac\n')
    old.chmod(0o755)
    done = subprocess.run(
        ["bash", checkout / "scripts/sgdiff"], env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "sgdiff-app needs Python 3.11 or newer, with its venv module (python3 is 3.9)." in done.stderr


class Torch(Distribution):
    """An installed torch as far as its metadata goes."""

    @property
    def requires(self) -> list[str]:
        return ["setuptools<82", "typing-extensions>=4.10.0"]

    def read_text(self, filename: str) -> str | None:
        return None

    def locate_file(self, path: str | os.PathLike[str]) -> Path:
        return Path(path)


def test_constraints_follow_a_kept_torch_and_the_users_own(make_env: ModuleType) -> None:
    text = "# why\nnumpy==2.4.6\nsetuptools==84.2.1\ntorch==2.13.0\ntyping_extensions==4.16.0\n"
    assert make_env.effective_constraints(text, None, set()) == text
    assert make_env.effective_constraints(text, (Torch(), "2.13.0"), set()) == text
    assert make_env.effective_constraints(text, (Torch(), "2.12.1"), set()) == "# why\nnumpy==2.4.6\ntorch==2.12.1\n"
    assert "numpy" not in make_env.effective_constraints(text, None, {"numpy"})
    assert "torch" not in make_env.effective_constraints(text, (Torch(), "2.12.1"), {"torch"})


@pytest.mark.parametrize(("version", "kept"), [("2.10.1", False), ("2.11.0", True), ("2.13.0", True), ("3.0.0", False)])
def test_only_a_tested_torch_is_kept(make_env: ModuleType, version: str, kept: bool) -> None:
    assert make_env.in_range(version, ["numpy>=1.26", "torch>=2.11,<3"]) is kept


def test_half_installed_distributions_are_dropped(make_env: ModuleType, tmp_path: Path) -> None:
    for name, files in {"whole-1.dist-info": ["METADATA", "INSTALLER"], "half-1.dist-info": ["METADATA"]}.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
    make_env.drop_half_installed(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["whole-1.dist-info"]
