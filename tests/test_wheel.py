"""The built wheel: complete, and able to draw where there is no checkout."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
CODE = ("engine", "sgdiff_app", "ui")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is in the checkout without what earlier builds left there, plus one bundled file of each kind."""
    folder = tmp_path_factory.mktemp("source")
    for name in (*CODE, "assets"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, folder)
    for name in ("models/some-model/vae/config.json", "configs/some-model.json", "examples/left-out.json"):
        (folder / "assets" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "assets" / name).write_text("{}")
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    """The wheel as it is built from the sdist, which is built from the source."""
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", source], check=True, capture_output=True)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def target(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([*PIP, "install", "--no-deps", "--no-index", "--target", folder, wheel], check=True)
    return folder


def alone(target: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with the installed wheel and its dependencies.

    -S keeps out the .pth files of site-packages, and with them an editable install of the checkout, which would
    supply whatever the wheel lacks.
    """
    dependencies = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    theirs = ("SGDIFF_", "SGLANG_", "HF_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(target), *dependencies]),
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "HF_ENDPOINT": "http://127.0.0.1:9",  # nobody answers there
    }
    command = [sys.executable, "-S", "-P", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_every_package_is_named_in_pyproject() -> None:
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for name in CODE
        for path in (ROOT / name).rglob("*.py")
        if "__pycache__" not in path.parts
    }
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(there | {"engine.assets"}) == named


def test_the_wheel_holds_code_and_bundled_files_only(source: Path, wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {str(path.relative_to(source)) for name in CODE for path in (source / name).rglob("*.py")}
    bundled = {
        f"engine/{path.relative_to(source)}"
        for folder in ("models", "configs", "loras")
        for path in (source / "assets" / folder).rglob("*")
        if path.is_file()
    }
    bundled |= {
        f"engine/{path.relative_to(source)}" for path in (source / "assets/examples").glob("tiny-scenes-*.webp")
    }
    bundled |= {str(path.relative_to(source)) for path in (source / "ui/static").iterdir()}
    assert bundled >= {
        "engine/assets/examples/tiny-scenes-a-lighthouse-by-the-sea.webp",
        "ui/static/page.css",
        "engine/assets/models/some-model/vae/config.json",
        "engine/assets/configs/some-model.json",
    }
    rest = {name for name in names - code - bundled if ".dist-info/" not in name and not name.endswith("py.typed")}
    assert not code - names
    assert not bundled - names
    assert not rest


def test_the_sdist_builds_and_carries_the_licence(source: Path, wheel: Path) -> None:
    (sdist,) = (source / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"LICENSE", "pyproject.toml", "assets/configs/some-model.json"} <= names
    assert any(re.fullmatch(r".*\.dist-info/licenses/LICENSE", name) for name in zipfile.ZipFile(wheel).namelist())


def test_it_imports_from_where_it_is_installed(target: Path, tmp_path: Path) -> None:
    done = alone(
        target,
        tmp_path,
        "-c",
        "import engine, sgdiff_app, ui; print(engine.__file__, sgdiff_app.__file__, ui.__file__)",
    )
    assert done.returncode == 0, done.stderr
    assert all(Path(file).is_relative_to(target) for file in done.stdout.split())


def test_it_has_the_command(target: Path) -> None:
    (entry_points,) = target.glob("sgdiff_app-*.dist-info/entry_points.txt")
    assert "sgdiff-app = sgdiff_app.cli:main" in entry_points.read_text()


def test_it_draws(target: Path, tmp_path: Path) -> None:
    """On a machine that has never drawn and reaches no network."""
    size = ["--height", "64", "--width", "64", "--steps", "2"]
    command = ["-m", "sgdiff_app", "generate", "--prompt", "a hill", *size, "--output-path", "out"]
    done = alone(target, tmp_path, *command)
    assert done.returncode == 0, done.stderr
    (picture,) = (tmp_path / "out").rglob("*.png")
    assert done.stdout == f"{picture.relative_to(tmp_path)}\n"
    with Image.open(picture) as image:
        assert image.size == (64, 64)
