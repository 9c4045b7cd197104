"""scripts/deploy_space: what is put into the folder, what each check refuses, what is sent to the hub."""

from __future__ import annotations

import importlib.util
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
METADATA = """Metadata-Version: 2.4
Name: sgdiff-app
Version: 0.1.0
Requires-Dist: torch<3,>=2.11
Requires-Dist: gradio<7,>=6.31
Requires-Dist: diffusers<0.43,>=0.42
Requires-Dist: uvloop<1,>=0.22; sys_platform != "win32"
Requires-Dist: pytest<10,>=9; extra == "dev"

A description.
"""


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("deploy_space", ROOT / "scripts/deploy_space.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


deploy = load()


class FakeHub:
    """Notes what it is asked for, and what lies in the folder that it is given."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.uploaded: set[str] = set()

    def create_repo(self, *given: Any, **named: Any) -> str:
        self.calls.append(("create_repo", given, named))
        return f"hub/{given[0]}"

    def upload_folder(self, *given: Any, **named: Any) -> None:
        folder = Path(named.pop("folder_path"))
        self.uploaded = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        self.calls.append(("upload_folder", given, named))

    def request_space_hardware(self, *given: Any, **named: Any) -> None:
        self.calls.append(("request_space_hardware", given, named))


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel of few files."""
    path = tmp_path / "sgdiff_app-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as packed:
        for name in ("engine/__init__.py", "ui/__init__.py", "sgdiff_app/server/space.py"):
            packed.writestr(name, '"""A module."""\n')
        packed.writestr("engine/assets/models/small/model.safetensors", b"0" * 2000)
        packed.writestr("sgdiff_app-0.1.0.dist-info/METADATA", METADATA)
    return path


@pytest.fixture
def folder(tmp_path: Path, wheel: Path) -> Path:
    deploy.prepare(tmp_path / "space", wheel)
    return tmp_path / "space"


def test_the_wheel_lies_unpacked_beside_the_app(folder: Path) -> None:
    found = {name for name, _ in deploy.files(folder)}
    own = {"app.py", "README.md", "requirements.txt"}
    packed = {"engine/__init__.py", "ui/__init__.py", "sgdiff_app/server/space.py"}
    assert found == own | packed | {"engine/assets/models/small/model.safetensors"}


def test_requirements_are_those_of_the_wheel_with_the_pins_of_the_space(folder: Path) -> None:
    pins = {pin.name: str(pin.specifier) for pin in deploy.requirements((folder / "requirements.txt").read_text())}
    assert pins["gradio"] == f"=={deploy.locked('gradio')}"
    assert pins["torch"] == "<2.12,>=2.11"
    assert pins["diffusers"] == "<0.43,>=0.42" and "uvloop" in pins
    assert "pytest" not in pins


def test_the_pins_of_the_space_are_among_what_the_program_runs_with() -> None:
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ranges = {Requirement(line).name: Requirement(line).specifier for line in project["dependencies"]}
    pins = {pin.name: pin.specifier for pin in deploy.requirements((deploy.SPACE / "requirements.txt").read_text())}
    assert deploy.locked("gradio") in ranges["gradio"]
    assert "2.11.0" in pins["torch"] and "2.11.0" in ranges["torch"]


def test_a_prepared_folder_has_no_problems(folder: Path) -> None:
    assert deploy.problems(folder) == []


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def add(name: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_text(text)

    return change


TOKEN = "hf_" + "a1B2" * 9
BROKEN = {
    "title": (edit("README.md", "title: sgdiff-app\n", ""), "README.md: title is missing in the front matter"),
    "no front matter": (edit("README.md", "---\ntitle", "title"), "README.md: sdk_version is missing in the front"),
    "sdk": (edit("README.md", "sdk: gradio", "sdk: docker"), "README.md: sdk must be gradio"),
    "sdk_version": (edit("README.md", f"sdk_version: {deploy.locked('gradio')}", "sdk_version: 6.30.0"), "must be 6."),
    "python": (edit("README.md", "3.12.12", "3.10.13"), "README.md: python_version must be 3.12.12"),
    "app_file": (
        edit("README.md", "app_file: app.py", "app_file: main.py"),
        "README.md: app_file main.py is not there",
    ),
    "description": (edit("README.md", "Draw with", "Draw " * 12 + "with"), "at most 60 characters"),
    "pin": (edit("requirements.txt", "gradio==", "gradio>="), "requirements.txt: gradio must be pinned to sdk_version"),
    "no spaces": (edit("requirements.txt", "spaces==", "places=="), "requirements.txt: spaces is missing"),
    "order": (edit("app.py", "try:\n", "import torch\n\ntry:\n"), "app.py:3: torch before spaces"),
    "hidden order": (edit("app.py", "try:\n", "from engine import env\n\ntry:\n"), "app.py:3: engine before spaces"),
    "no import": (edit("app.py", "import spaces  #", "spaces = None  #"), "app.py: spaces is not imported"),
    "syntax": (add("ui/bad.py", "def f(:\n"), "ui/bad.py:1: invalid syntax"),
    "token": (add("ui/note.md", f"login with {TOKEN}\n"), "ui/note.md:1: holds what looks like a secret"),
    "key": (add("ui/note.py", "# -----BEGIN RSA PRIVATE KEY-----\n"), "ui/note.py:1: holds what looks like a secret"),
    "secret file": (add(".env", "A=1\n"), ".env: may hold a secret"),
    "database": (add("jobs.sqlite3", ""), "jobs.sqlite3: may hold a secret"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_check_refuses_what_is_broken(folder: Path, name: str) -> None:
    change, expected = BROKEN[name]
    change(folder)
    assert any(expected in problem for problem in deploy.problems(folder)), deploy.problems(folder)


# What nobody is to have, put together here so that no file of the project looks as if it held one.
KEYS = {
    "hub": "hf_" + "a1B2" * 9,
    "hub, organisation": "api_org_" + "a1B2" * 9,
    "GitHub": "ghp_" + "a1B2" * 9,
    "GitHub, fine-grained": "github_pat_" + "11AAAA" * 5 + "_" + "b2C3" * 9,
    "GitLab": "glpat-" + "a1B2_" * 4,
    "OpenAI": "sk-" + "proj-" + "a1B2" * 9,
    "Amazon": "AKIA" + "A1B2" * 4,
    "Google": "AIza" + "a1B2-" * 7,
    "Slack": "xoxb-" + "1234567890-" * 3,
    "npm": "npm_" + "a1B2" * 9,
    "npm, line": "//registry.example/:_auth" + "Token=x",
    "Amazon, line": "aws_secret_access_" + "key = " + "a1B/" * 10,
    "Amazon, variable": "AWS_SECRET_ACCESS_" + "KEY=" + "a1B/" * 10,
    "Amazon, JSON": '"SecretAccess' + 'Key": "' + "a1B/" * 10 + '"',
    "PyPI": "pypi-" + "AgEI" * 15,
    "Replicate": "r8_" + "a1B2" * 9,
    "SendGrid": "SG." + "a1B2" * 6 + "." + "a1B2" * 10,
    "Stripe": "sk_live_" + "a1B2" * 6,
    "Slack, application": "xapp-" + "1-A2B3-" * 4,
    "Slack, address": "https://hooks.slack.com/" + "services/T0/B0/" + "a1B2" * 6,
    "variable": "SGDIFF_API_" + "KEY=" + "a1B2" * 6,
    "variable, JSON": '"CIVITAI_' + 'TOKEN": "' + "a1B2" * 6 + '"',
    "address": "postgres://somebody:" + "hunter22@" + "db.example",
    "key": "-----BEGIN " + "PRIVATE KEY-----",
    "PGP": "-----BEGIN " + "PGP PRIVATE KEY BLOCK-----",
    "OpenSSH": "-----BEGIN " + "OPENSSH PRIVATE KEY-----",
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("name", ["ui/a.ini", "ui/a.sh", "ui/a.json", "Makefile", "ui/a.safetensors"])
def test_a_secret_is_found_in_whatever_file_and_never_told(folder: Path, kind: str, name: str) -> None:
    (folder / name).write_bytes(b"\0\xff first\n\nkey: '" + KEYS[kind].encode() + b"'\n")
    assert deploy.problems(folder) == [f"{name}:3: holds what looks like a secret"]


def test_a_secret_is_found_in_text_of_two_bytes_a_character(folder: Path) -> None:
    (folder / "ui/a.txt").write_text(f"one\nkey={TOKEN}", encoding="utf-16")
    assert deploy.problems(folder) == ["ui/a.txt:2: holds what looks like a secret"]


@pytest.mark.parametrize(
    "name",
    [".env", ".env.local", "prod.env", ".npmrc", ".netrc", ".pypirc", ".git-credentials", "id_ed25519", "id_rsa",
     "server.pem", "server.key", "jobs.sqlite3-wal", "token", "ui/.env.production"],
)  # fmt: skip
def test_files_that_are_made_for_secrets_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("nothing\n")
    assert deploy.problems(folder) == [f"{name}: may hold a secret"]


@pytest.mark.parametrize(
    "text", ["task-a1B2a1B2a1B2a1B2a1B2a1B2", "HAKIAA1B2A1B2A1B2A1B2", "hf_hub_download", "AKIA" + "A1B2" * 5, "sk-x"]
)
def test_what_only_reminds_of_a_key_is_none(folder: Path, text: str) -> None:
    (folder / "ui/a.md").write_text(text)
    assert deploy.problems(folder) == []


def test_nothing_of_ours_looks_like_a_secret() -> None:
    folders = [path for path in map(ROOT.joinpath, (*deploy.SOURCES, "assets/space")) if path.is_dir()]
    for folder in folders:
        assert list(deploy._of_secrets(folder)) == []
    for name in ("README.md", "pyproject.toml", *(f"assets/space/{own}" for own in deploy.OWN)):
        assert deploy.secret_lines(ROOT / name) == []


def test_sizes_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "LARGEST_MB", 0.001)
    monkeypatch.setattr(deploy, "MOST_MB", 0.002)
    assert "engine/assets/models/small/model.safetensors: larger than 0.001 MB" in deploy.problems(folder)
    assert "the folder is larger than 0.002 MB" in deploy.problems(folder)


@pytest.mark.parametrize("name", ["app.py", "README.md", "requirements.txt", "engine/__init__.py"])
def test_what_is_missing_is_told(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert deploy.problems(folder) == [f"{name}: missing"]


def test_a_checked_folder_is_uploaded_in_one_commit(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "build_wheel", lambda folder: wheel)
    hub = FakeHub()
    assert deploy.main(["--repo", "org/name", "--hardware", "zero-a10g", "--private"], hub) == 0
    assert [name for name, _, _ in hub.calls] == ["create_repo", "upload_folder", "request_space_hardware"]
    (_, made, how), (_, _, sent), (_, asked, _) = hub.calls
    assert made == ("org/name",)
    assert how == {"repo_type": "space", "space_sdk": "gradio", "private": True, "exist_ok": True}
    assert sent["repo_id"] == "org/name" and sent["repo_type"] == "space" and sent["delete_patterns"] == ["**"]
    assert asked == ("org/name", "zero-a10g")
    assert {"app.py", "README.md", "requirements.txt", "engine/__init__.py"} < hub.uploaded


def test_the_calls_are_those_of_the_hub_library() -> None:
    import inspect

    from huggingface_hub import HfApi

    inspect.signature(HfApi.create_repo).bind(
        None, "org/name", repo_type="space", space_sdk="gradio", private=None, exist_ok=True
    )
    inspect.signature(HfApi.upload_folder).bind(
        None, repo_id="o/n", repo_type="space", folder_path=".", commit_message="m", delete_patterns=["**"]
    )
    inspect.signature(HfApi.request_space_hardware).bind(None, "o/n", "zero-a10g")


def test_a_dry_run_sends_nothing_and_tells_the_plan(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(deploy, "build_wheel", lambda folder: wheel)
    hub = FakeHub()
    assert deploy.main(["--dry-run", "--folder", str(tmp_path / "kept")], hub) == 0
    assert hub.calls == []
    told = capsys.readouterr().out
    assert "7 files, 0.0 MB, for no Space yet: --repo ORG/NAME" in told and "dry run: nothing was uploaded" in told
    assert (tmp_path / "kept/app.py").is_file()


def test_what_has_problems_is_not_uploaded(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    shutil.copytree(deploy.SPACE, own)
    (own / "app.py").write_text("import torch\nimport spaces\n")
    monkeypatch.setattr(deploy, "SPACE", own)
    monkeypatch.setattr(deploy, "build_wheel", lambda folder: wheel)
    hub = FakeHub()
    assert deploy.main(["--repo", "org/name"], hub) == 1
    assert hub.calls == []
    assert capsys.readouterr().err == "not uploaded:\napp.py:1: torch before spaces\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--repo ORG/NAME says where to; --dry-run needs none"),
        (["--repo", "name"], "--repo: must be ORG/NAME, got 'name'"),
        (["--dry-run", "--folder", "."], "--folder: . is there already"),
    ],
)
def test_mistakes_on_the_command_line_are_told(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        deploy.main(argv)
    assert message in capsys.readouterr().err


def test_the_app_bounds_what_the_program_knows() -> None:
    """Caps and adapters in app.py are names of fields and of bundled files."""
    import ast

    from engine import hub, schema
    from engine.types import Request

    tree = ast.parse((deploy.SPACE / "app.py").read_text())
    call = next(node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "space.run")
    given = {word.arg: word.value for word in call.keywords}
    assert {"lend", "caps", "loras"} == given.keys()
    assert ast.literal_eval(given["caps"]).keys() <= schema.fields(Request).keys()
    assert set(ast.literal_eval(given["loras"])) <= hub.bundled_loras().keys()
