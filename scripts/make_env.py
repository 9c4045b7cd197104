"""Makes or repairs the environment in .venv: called by scripts/env.sh, standard library only."""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

PROBE = "import sys; sys.exit(sys.version_info < (3, 11))"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required_name(requirement: str) -> str | None:
    """The project that a requirement or constraint line names, None for options, comments and blank lines."""
    match = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", requirement)
    return canonical(match[1]) if match else None


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Holds the checkout's folder, so that of two first runs one installs and the other waits."""
    handle = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another run is preparing the environment; waiting for it.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def runs(python: Path, *arguments: str) -> bool:
    try:
        return subprocess.run([python, *arguments], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def make_venv(venv: Path, python: Path) -> None:
    """An interpreter with pip in `venv`; what an interrupted run left there is completed, not made again."""
    if not runs(python, "-c", PROBE):
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
    if not runs(python, "-m", "pip", "--version"):
        subprocess.run([python, "-m", "ensurepip", "--upgrade"], check=True, stdout=sys.stderr)


def site_packages(venv: Path) -> Path:
    return next(venv.glob("lib/python3*/site-packages"))


def drop_half_installed(site: Path) -> None:
    """pip writes INSTALLER last: a distribution without it was interrupted, and pip would take it for complete."""
    for info in site.glob("*.dist-info"):
        if not (info / "INSTALLER").exists():
            shutil.rmtree(info)


def find_torch(folders: list[str]) -> tuple[Distribution, str] | None:
    """The torch that is installed in `folders` and its version without the build's suffix."""
    for torch in distributions(name="torch", path=folders):
        return torch, torch.version.split("+")[0]
    return None


def in_range(version: str, dependencies: list[str]) -> bool:
    """Whether pyproject's bounds admit this torch."""
    (bounds,) = (match for line in dependencies if (match := re.fullmatch(r"torch>=(\d+)\.(\d+),<(\d+)", line)))
    least, below = (int(bounds[1]), int(bounds[2])), (int(bounds[3]), 0)
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is not None and least <= (int(numbers[1]), int(numbers[2])) < below


def keep_torch(site: Path, dependencies: list[str]) -> tuple[Distribution, str] | None:
    """The installed torch to keep: the environment's own, or the one that the invoking Python has, linked by a .pth.

    Images for accelerators bring a torch built for their driver: installing another one would break them.
    """
    own = find_torch([str(site)])
    if own and in_range(own[1], dependencies):
        return own
    link = site / "_kept_torch.pth"
    folders = link.read_text().split("\n") if link.exists() else []
    if site.parent.name == f"python3.{sys.version_info[1]}":
        folders += sys.path  # a torch for another Python would not load here
    found = find_torch([folder for folder in folders if folder])
    if found is None or not in_range(found[1], dependencies):
        link.unlink(missing_ok=True)
        return None
    folder = Path(str(found[0].locate_file(""))).resolve()
    link.write_text(f"{folder}\n")
    say(f"Keeping torch {found[0].version} from {folder}.")
    return found


def user_constraints(python: Path) -> set[str]:
    """The names that the user's own pip settings constrain: those files are read by pip itself, and theirs win."""
    settings = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    names = set()
    for value in re.findall(r"^\S*\.constraint='(.*)'$", settings.stdout, re.MULTILINE):
        for path in map(Path, value.replace("\\n", "\n").split()):
            if path.is_file():
                names |= {name for line in path.read_text().splitlines() if (name := required_name(line))}
    return names


def effective_constraints(pins: str, kept: tuple[Distribution, str] | None, theirs: set[str]) -> str:
    """Our pins, less what the user constrains and, beside a torch of another version, less what that torch needs."""
    free = set(theirs)
    if kept and f"torch=={kept[1]}" not in pins.splitlines():
        free |= {name for line in kept[0].requires or [] if (name := required_name(line))}
        if "torch" not in free:
            pins = re.sub(r"^torch==.*$", f"torch=={kept[1]}", pins, flags=re.MULTILINE)
    return "".join(f"{line}\n" for line in pins.splitlines() if required_name(line) not in free)


def announce(extras: list[str], torch_there: bool) -> None:
    size = "about 150 MB" if torch_there else "about 350 MB, or several GB where pip picks a CUDA build of torch"
    say(
        f"Preparing the environment in .venv{' with the developer tools' if extras else ''}: pip downloads {size}.\n"
        "This happens once; when it is interrupted, the next run goes on from there."
    )


def install(root: Path, extras: list[str]) -> None:
    venv, python = root / ".venv", root / ".venv/bin/python"
    first = not list(venv.glob(".complete*"))
    dependencies = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    make_venv(venv, python)
    site = site_packages(venv)
    drop_half_installed(site)
    kept = keep_torch(site, dependencies)
    if first:
        announce(extras, kept is not None)
    else:
        say("pyproject.toml or the pins have changed: updating the environment.")
    constraints = venv / "constraints.txt"
    pins = (root / "scripts/constraints.txt").read_text()
    constraints.write_text(effective_constraints(pins, kept, user_constraints(python)))

    pip: list[str | Path] = [python, "-m", "pip", "install", "--disable-pip-version-check", "--constraint", constraints]
    if not sys.stderr.isatty():
        pip.append("--quiet")
    (torch,) = (line for line in dependencies if required_name(line) == "torch")
    # torch comes first, so that a build that is already there, or that pip's settings offer, satisfies all others;
    # setuptools builds the project without an isolated environment, which would ignore the pins.
    subprocess.run([*pip, torch, "setuptools>=77.0.3"], check=True, stdout=sys.stderr)
    wanted = f"{root}[{','.join(extras)}]" if extras else str(root)
    # "compat" is a plain path entry; the import hook that is the default costs each start of Python 30 ms.
    editable = ["--no-build-isolation", "--config-settings", "editable_mode=compat", "--editable", wanted]
    subprocess.run([*pip, *editable], check=True, stdout=sys.stderr)


def main(root: Path, stamp: str, extras: list[str]) -> int:
    with alone(root):
        markers = [root / ".venv" / f".complete{suffix}" for suffix in ("", *(f"-{extra}" for extra in extras))]
        if all(marker.is_file() and marker.read_text().strip() == stamp for marker in markers):
            return 0
        try:
            install(root, extras)
        except subprocess.CalledProcessError as error:
            say(f"The environment is not complete: {' '.join(map(str, error.cmd[1:4]))} failed. Run again to go on.")
            return 1
        except KeyboardInterrupt:
            say("\nInterrupted: the next run goes on from here.")
            return 130
        for marker in markers:
            marker.write_text(f"{stamp}\n")
        say("The environment is ready.")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
