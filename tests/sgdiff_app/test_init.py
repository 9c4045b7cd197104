"""`python -m sgdiff_app` is the command, and the package's version is the distribution's."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import sgdiff_app

ROOT = Path(__file__).parents[2]


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "sgdiff_app"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: sgdiff-app COMMAND" in done.stderr


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == sgdiff_app.__version__
