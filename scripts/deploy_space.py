"""Prepares the folder of a Space from assets/space and a wheel of this checkout, checks it, and uploads it.

The wheel is unpacked beside app.py: when a Space installs its requirements, no other file of it is there yet.
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from email.parser import Parser
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
SPACE = ROOT / "assets/space"
OWN = ("app.py", "README.md", "requirements.txt")
SOURCES = ("engine", "sgdiff_app", "ui", "assets", "pyproject.toml", "README.md", "LICENSE")
KEYS = ("title", "emoji", "sdk", "sdk_version", "python_version", "app_file", "suggested_hardware", "license")
ZERO_PYTHON = "3.12.12"  # of those that ZeroGPU has, the one that the program runs on
MB = 10**6
MOST_MB, LARGEST_MB = 900, 500  # of a Space without paid storage, and of one file
# Imports of these lead to CUDA, which must not be looked at before `spaces` stands in for it.
HEAVY = ("torch", "diffusers", "transformers", "accelerate", "gradio", "engine", "sgdiff_app", "ui")
# How keys begin that somebody could use: of the hub, GitHub, GitLab, OpenAI and others, Amazon, Google, Slack, npm,
# PyPI, Replicate, SendGrid, Stripe; then lines that set one, addresses with a password, and private keys.
SECRETS = re.compile(
    rb"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{30,}|api_org_[A-Za-z0-9]{30,}"
    rb"|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,}|glpat-[A-Za-z0-9_-]{20,}|sk-[A-Za-z0-9_-]{20,}"
    rb"|A[KS]IA[0-9A-Z]{16}(?![0-9A-Z])|AIza[A-Za-z0-9_-]{35}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,}"
    rb"|xox[abeprs]-[A-Za-z0-9-]{20,}|xapp-[A-Za-z0-9-]{20,}|hooks\.slack\.com/services/\w+/\w+/\w{20,}"
    rb"|r8_[A-Za-z0-9]{30,}|SG\.[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}|[sr]k_live_[A-Za-z0-9]{20,})"
    rb"|_authToken\s*=\s*\S|(?m:^\s*_password\s*=\s*[^\s=])"
    rb"|(?i:secret_?access_?key)[\"']?\s*[=:]\s*[\"']?[A-Za-z0-9/+]{40}"
    rb"|_(?:API_KEY|TOKEN|SECRET)[\"']?\s*[=:]\s*[\"']?[A-Za-z0-9_./+-]{16,}"
    rb"|[a-z][a-z0-9+.-]*://[A-Za-z0-9_.-]+:[A-Za-z0-9_.%!-]{6,}@[a-z0-9]"
    rb"|-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----"
)
SECRET_FILES = (
    ".env", ".env.*", "*.env", ".netrc", "_netrc", ".npmrc", ".pypirc", ".git-credentials", "*.pem", "*.key", "*.p12",
    "*.pfx", "*.sqlite3", "*.sqlite3-*", "token", "credentials", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*",
)  # fmt: skip
WIDE = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # what text begins with whose characters take two bytes


def build_wheel(folder: Path) -> Path:
    """Return a wheel of this checkout, built away from it."""
    source = folder / "source"
    for name in SOURCES:
        place = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__", "space", "docker")
        shutil.copytree(place, source / name, ignore=ignore) if place.is_dir() else shutil.copy(place, source)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def prepare(folder: Path, wheel: Path) -> None:
    """Fill a folder with what the Space is made of."""
    folder.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    (metadata,) = folder.glob("*.dist-info/METADATA")
    asked = Parser().parsestr(metadata.read_text(encoding="utf-8")).get_all("Requires-Dist") or []
    shutil.rmtree(metadata.parent)
    for name in OWN:
        shutil.copy(SPACE / name, folder)
    pins = folder / "requirements.txt"
    text = pins.read_text(encoding="utf-8")
    known = {canonicalize_name(own.name) for own in requirements(text)}
    rest = [line for line in asked if "extra ==" not in line and canonicalize_name(Requirement(line).name) not in known]
    pins.write_text("\n".join([text.rstrip(), *sorted(rest)]) + "\n", encoding="utf-8")


def requirements(text: str) -> list[Requirement]:
    """Return what a requirements file asks for."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def front_matter(text: str) -> dict[str, Any]:
    """Return what stands between the dashes at the top of a README; nothing when there is none."""
    _, _, rest = text.partition("---\n")
    block, dashes, _ = rest.partition("\n---\n")
    found = yaml.safe_load(block) if text.startswith("---\n") and dashes else None
    return found if isinstance(found, dict) else {}


def locked(name: str, constraints: Path = ROOT / "scripts/constraints.txt") -> str:
    """Return the version of a package that the tests run with."""
    lines = constraints.read_text(encoding="utf-8").splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{name}=="))


def problems(folder: Path) -> list[str]:
    """Return what is wrong with a prepared folder, in words; nothing when it can be uploaded."""
    missing = [f"{name}: missing" for name in (*OWN, "engine/__init__.py", "ui/__init__.py") if not _has(folder, name)]
    if missing:
        return missing
    return [*_of_readme(folder), *_of_pins(folder), *_of_code(folder), *_of_sizes(folder), *_of_secrets(folder)]


def _has(folder: Path, name: str) -> bool:
    return (folder / name).is_file()


def _of_readme(folder: Path) -> Iterator[str]:
    matter = front_matter((folder / "README.md").read_text(encoding="utf-8"))
    yield from (f"README.md: {key} is missing in the front matter" for key in KEYS if not matter.get(key))
    if matter.get("sdk") != "gradio":
        yield "README.md: sdk must be gradio"
    if str(matter.get("sdk_version")) != locked("gradio"):
        yield f"README.md: sdk_version must be {locked('gradio')}, which the tests run with"
    if str(matter.get("python_version")) != ZERO_PYTHON:
        yield f"README.md: python_version must be {ZERO_PYTHON}"
    if matter.get("app_file") and not _has(folder, str(matter["app_file"])):
        yield f"README.md: app_file {matter['app_file']} is not there"
    if len(str(matter.get("short_description", ""))) > 60:
        yield "README.md: short_description must have at most 60 characters"


def _of_pins(folder: Path) -> Iterator[str]:
    pins = {canonicalize_name(own.name): own for own in requirements((folder / "requirements.txt").read_text())}
    matter = front_matter((folder / "README.md").read_text(encoding="utf-8"))
    if "gradio" not in pins or str(pins["gradio"].specifier) != f"=={matter.get('sdk_version')}":
        yield "requirements.txt: gradio must be pinned to sdk_version"
    yield from (f"requirements.txt: {name} is missing" for name in ("spaces", "torch", "diffusers") if name not in pins)


def _of_code(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*.py")):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except SyntaxError as error:
            yield f"{path.relative_to(folder)}:{error.lineno}: {error.msg}"
            continue
        if path == folder / "app.py":
            yield from _of_order(tree)


def _of_order(tree: ast.Module) -> Iterator[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name.partition(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, (node.module or "").partition(".")[0]))
    lines = [line for line, name in found if name == "spaces"]
    if not lines:
        yield "app.py: spaces is not imported"
        return
    yield from (f"app.py:{line}: {name} before spaces" for line, name in found if name in HEAVY and line < min(lines))


def files(folder: Path) -> list[tuple[str, int]]:
    """Return the files of a folder with their sizes, the largest first."""
    found = [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in folder.rglob("*") if path.is_file()]
    return sorted(found, key=lambda entry: (-entry[1], entry[0]))


def _of_sizes(folder: Path) -> Iterator[str]:
    found = files(folder)
    yield from (f"{name}: larger than {LARGEST_MB} MB" for name, size in found if size > LARGEST_MB * MB)
    if sum(size for _, size in found) > MOST_MB * MB:
        yield f"the folder is larger than {MOST_MB} MB"


def _of_secrets(folder: Path) -> Iterator[str]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if any(path.match(pattern) for pattern in SECRET_FILES):
            yield f"{name}: may hold a secret"
        yield from (f"{name}:{line}: holds what looks like a secret" for line in secret_lines(path))


def secret_lines(path: Path) -> list[int]:
    """Return the lines of a file, of whatever kind, that hold what looks like a secret."""
    with path.open("rb") as file:
        wide = WIDE.get(file.read(2))
        file.seek(0)
        lines = path.read_text(wide, "replace").encode().split(b"\n") if wide else file
        return [number for number, line in enumerate(lines, 1) if SECRETS.search(line)]


def plan(folder: Path, repo: str | None, hardware: str | None) -> str:
    """Return what would be uploaded."""
    found = files(folder)
    total = sum(size for _, size in found)
    lines = [f"{len(found)} files, {total / MB:.1f} MB, for {repo or 'no Space yet: --repo ORG/NAME'}"]
    lines += [f"  {size / MB:7.2f} MB  {name}" for name, size in found[:8]]
    lines += [f"hardware: {hardware}"] if hardware else []
    return "\n".join(lines)


def upload(api: Any, folder: Path, repo: str, hardware: str | None, private: bool) -> str:
    """Upload a checked folder in one commit, which removes what is no longer there; return the address."""
    url = api.create_repo(repo, repo_type="space", space_sdk="gradio", private=private or None, exist_ok=True)
    api.upload_folder(
        repo_id=repo,
        repo_type="space",
        folder_path=folder,
        commit_message="Update the program",
        delete_patterns=["**"],
    )
    if hardware:
        api.request_space_hardware(repo, hardware)
    return str(url)


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return what was asked for on the command line."""
    parser = argparse.ArgumentParser(prog="scripts/deploy_space", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repo", metavar="ORG/NAME", help="the Space; made when it is not there")
    parser.add_argument("--dry-run", action="store_true", help="prepare and check, upload nothing")
    parser.add_argument("--hardware", help="hardware to ask for, such as zero-a10g or cpu-basic")
    parser.add_argument("--private", action="store_true", help="make the Space a private one, if it is made")
    parser.add_argument("--folder", type=Path, help="leave the prepared folder here; it must not be there yet")
    found = parser.parse_args(argv)
    if not found.dry_run and not found.repo:
        parser.error("--repo ORG/NAME says where to; --dry-run needs none")
    if found.repo and not re.fullmatch(r"[\w.-]+/[\w.-]+", found.repo):
        parser.error(f"--repo: must be ORG/NAME, got '{found.repo}'")
    if found.folder and found.folder.exists():
        parser.error(f"--folder: {found.folder} is there already")
    return found


def main(argv: Sequence[str] | None = None, api: Any = None) -> int:
    """Run the command; return the exit status."""
    wanted = options(argv)
    with tempfile.TemporaryDirectory(prefix="sgdiff-deploy-") as place:
        folder = wanted.folder or Path(place) / "space"
        prepare(folder, build_wheel(Path(place)))
        wrong = problems(folder)
        print(plan(folder, wanted.repo, wanted.hardware))
        if wrong:
            print("\n".join(["not uploaded:", *wrong]), file=sys.stderr)
            return 1
        if wanted.dry_run:
            print("dry run: nothing was uploaded")
            return 0
        if api is None:
            from huggingface_hub import HfApi

            api = HfApi()  # with the login of `hf auth login`, or HF_TOKEN
        print(upload(api, folder, wanted.repo, wanted.hardware, wanted.private))
    return 0


if __name__ == "__main__":
    sys.exit(main())
