"""The Dockerfile: what a linter asks of one, and that what it names is there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from engine import env
from sgdiff_app import config
from sgdiff_app.options import OutputOptions, ServerOptions

ROOT = Path(__file__).parent.parent
PATH = ROOT / "assets/docker/Dockerfile"
TEXT = PATH.read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """The instructions with what follows them, lines joined."""
    lines = [line for line in TEXT.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.strip().partition(" ") for line in joined.splitlines())]


def of(kind: str) -> list[str]:
    return [rest for name, rest in instructions() if name == kind]


def settings() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in of("ENV") for pair in line.split())


def test_the_linter_is_content() -> None:
    """Where there is one; what matters most is checked below without it."""
    linter = shutil.which("hadolint")
    if linter:
        subprocess.run([linter, PATH], check=True)


def test_base_images_are_pinned() -> None:
    bases = [line.split()[0] for line in of("FROM")]
    assert bases and all(re.fullmatch(r"python:3\.1[12]\.\d+-slim-\w+", base) for base in bases)


def test_apt_leaves_nothing_behind_and_takes_nothing_more() -> None:
    for line in of("RUN"):
        if "apt-get" in line:
            assert "apt-get update" in line and "--no-install-recommends" in line
            assert "rm -rf /var/lib/apt/lists/*" in line
        if "pip " in line:
            assert "--no-cache-dir" in line


def test_the_server_runs_as_a_user_without_rights() -> None:
    assert of("USER") == ["1000:1000"]
    names = [name for name, _ in instructions()]
    assert "RUN" not in names[names.index("USER") :]
    assert any("useradd" in line and "--uid 1000" in line for line in of("RUN"))


def test_no_secret_is_in_the_image() -> None:
    assert not [name for name in settings() if re.search("KEY|TOKEN|SECRET|PASSWORD", name)]
    assert "ARG" not in {name for name, _ in instructions()}


def test_health_is_asked_at_the_port_that_is_served() -> None:
    port = settings()["SGDIFF_PORT"]
    assert of("EXPOSE") == [port] == ["30000"]
    (health,) = of("HEALTHCHECK")
    assert f"http://127.0.0.1:{port}/health" in health


def test_what_is_kept_lies_in_the_volume() -> None:
    (volume,) = of("VOLUME")
    places = [value for value in settings().values() if value.startswith("/")]
    assert len(places) == 5 and all(place.startswith(f"{volume}/") for place in places)


def test_the_variables_are_settings_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings().items():
        monkeypatch.setenv(name, value)
    found = config.load((), "serve")
    server, output = found.noun(ServerOptions), found.noun(OutputOptions)
    assert (server.host, server.port, server.strict_ports, server.data_dir) == ("0.0.0.0", 30000, True, "/data/jobs")
    assert (server.input_save_path, output.output_path) == ("/data/inputs", "/data/outputs")
    assert env.read().cache_root == Path("/data/cache")


# What is sent to the builder


def rules() -> list[tuple[bool, re.Pattern[str]]]:
    """The lines of .dockerignore: whether they take a path in, and what they match, with all that is below it."""
    found = []
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            parts = re.split(r"(\*\*/|\*\*|\*|\[[^]]*\])", line.removeprefix("!"))
            known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
            pattern = "".join(known.get(part, part if part[:1] == "[" else re.escape(part)) for part in parts)
            found.append((line.startswith("!"), re.compile(f"{pattern}(?:/.*)?")))
    return found


def is_sent(path: str) -> bool:
    """Say what the last line that matches says."""
    return next((taken for taken, pattern in reversed(rules()) if pattern.fullmatch(path)), True)


def copied() -> list[str]:
    return [source for line in of("COPY") if not line.startswith("--from") for source in line.split()[:-1]]


def test_what_is_copied_is_there_and_is_sent() -> None:
    assert len(copied()) == 8
    for source in copied():
        assert (ROOT / source).exists() and is_sent(source), source
    assert of("ENTRYPOINT") == ['["tini", "--", "sgdiff-app", "serve"]']


def test_all_that_belongs_into_the_wheel_is_sent() -> None:
    """The parts that are copied, without what pyproject.toml leaves out of the wheel."""
    known = subprocess.run(["git", "-C", ROOT, "ls-files", *copied()], capture_output=True, text=True, check=True)
    names = known.stdout.splitlines()
    assert len(names) > 300
    left = {"/".join(Path(name).parts[:2]) for name in names if not is_sent(name)}
    assert left == {"assets/docker", "assets/screenshots", "assets/space"}


@pytest.mark.parametrize(
    "path",
    [".git/config", ".venv/bin/python", ".gpu/bin/python", "venv/bin/python", "outputs/a.png", "inputs/uploads/a.png",
     "build/lib/engine/env.py", "dist/sgdiff_app.whl", "sgdiff_app.egg-info/PKG-INFO", ".whl/torch.whl", ".env",
     "engine/__pycache__/env.cpython-312.pyc", "ui/app.pyc", "ui/.env", "assets/.mypy_cache/x",
     "assets/models/.DS_Store", "assets/a.whl", "ui/jobs.sqlite3-wal", "tests/test_dockerfile.py", "scripts/check",
     "engine.log"],
)  # fmt: skip
def test_nothing_else_is_sent(path: str) -> None:
    assert not is_sent(path)
