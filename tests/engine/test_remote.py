"""What repositories bring; every failure of the hub client in words, from its real exceptions."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from engine import remote
from engine.errors import ModelError
from engine.remote import Access

REPO = "flux-labs/FLUX.1-dev"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("name", ["owner/name", "a/FLUX.1-dev_x", "9/9"])
def test_hub_ids(name: str) -> None:
    assert remote.is_repo_id(name)


@pytest.mark.parametrize("name", ["name", "a/b/c", "./a", "../b", "~/a", "/a", "a/", "a b/c", "a/.b", "https://x/y"])
def test_what_is_no_hub_id(name: str) -> None:
    assert not remote.is_repo_id(name)


def test_the_commit_of_a_cached_folder() -> None:
    assert remote.commit_of(Path("hub/models--a--b/snapshots") / COMMIT) == COMMIT
    assert remote.commit_of(Path("models") / COMMIT) is None
    assert remote.commit_of(Path("snapshots/main")) is None


def test_only_trust_brings_files_that_could_run_code() -> None:
    assert not set(Access().kinds) & {"*.bin", "*.pt", "*.pth", "*.ckpt", "*.py"}
    assert {"*.bin", "*.pt", "*.pth", "*.ckpt", "*.py"} <= set(Access(trust=True).kinds)
    assert {"*.json", "*.safetensors"} <= set(Access().kinds)


def test_a_listing_counts_what_is_missing_for_some_components(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tmp_path / "model_index.json"
    index.write_text('{"vae": ["diffusers", "AutoencoderKL"]}')
    sizes = {"model_index.json": 1, "vae/config.json": 10, "vae/deep/x.safetensors": 100, "unet/x.safetensors": 1000}
    files = [
        SimpleNamespace(filename=name, file_size=size, is_cached=size == 1, will_download=size > 1, local_path=index)
        for name, size in sizes.items()
    ]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: files)
    found = remote.listing(REPO, None, Access())
    assert found.folder == tmp_path
    assert found.index == {"vae": ["diffusers", "AutoencoderKL"]}
    assert (found.bytes_of(["vae"]), found.bytes_of(["vae", "unet"]), found.bytes_of([])) == (110, 1110, 0)


def answered(kind: Any, status: int) -> Exception:
    http = importlib.import_module(errors.HfHubHTTPError.__mro__[1].__module__.partition(".")[0])
    error: Exception = kind("m", response=http.Response(status, request=http.Request("GET", "https://hub")))
    return error


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


FAILURES: list[tuple[Exception, bool, str, str]] = [
    (
        answered(errors.GatedRepoError, 403), False, "model_gated",
        "access is gated; accept its licence at https://huggingface.co/flux-labs/FLUX.1-dev, then `hf auth login`",
    ),
    (
        answered(errors.RepositoryNotFoundError, 404), False, "model_not_found",
        "is not on the hub, or is private (`hf auth login`); did you mean 'black-forest-labs/FLUX.1-dev'?",
    ),
    (answered(errors.RevisionNotFoundError, 404), False, "model_not_found", "has no revision 'v9'"),
    (
        errors.LocalEntryNotFoundError("m"), True, "model_not_found",
        "is not in the cache, and --offline (or HF_HUB_OFFLINE) forbids to download it",
    ),
    (
        errors.IncompleteSnapshotError("m", "x"), True, "model_not_found",
        "is only in part in the cache, and --offline (or HF_HUB_OFFLINE) forbids to download it",
    ),
    (
        caused(errors.LocalEntryNotFoundError("m"), errors.OfflineModeIsEnabled("m")), False, "model_not_found",
        "is not in the cache, and --offline (or HF_HUB_OFFLINE) forbids to download it",
    ),
    (
        errors.OfflineModeIsEnabled("m"), False, "model_not_found",
        "is not in the cache, and --offline (or HF_HUB_OFFLINE) forbids to download it",
    ),
    (
        caused(errors.LocalEntryNotFoundError("m"), ConnectionError(101, "Network is unreachable")), False,
        "model_not_found",
        "is not in the cache, and the hub cannot be reached; check the network (Network is unreachable)",
    ),
    (
        answered(errors.HfHubHTTPError, 401), False, "model_not_found",
        "the hub answered 401; the access token is refused; `hf auth login` again",
    ),
    (answered(errors.HfHubHTTPError, 503), False, "model_not_found", "the hub answered 503; try again later"),
    (errors.HFValidationError("m"), False, "model_not_found", "is no hub id (owner/name)"),
    (
        OSError(28, "No space left on device"), False, "model_not_found",
        "the download failed (No space left on device)",
    ),
    (
        PermissionError(13, "Permission denied", "/cache/hub"), False, "model_not_found",
        "the download failed (/cache/hub: Permission denied)",
    ),
    (vars(errors)["HTTPError"]("m"), False, "model_not_found", "the download failed (HTTPError)"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "offline", "code", "expected"), FAILURES)
def test_failures_of_the_hub_say_what_to_do(
    error: Exception, offline: bool, code: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    access = Access(offline=offline)
    actions: list[Callable[[], Any]] = [
        lambda: remote.fetch(REPO, "v9", ("*.json",), access),
        lambda: remote.listing(REPO, "v9", access),
    ]
    for action in actions:
        with pytest.raises(ModelError) as caught:
            action()
        assert caught.value.message == f"{REPO}: {expected}"
        assert (caught.value.code, caught.value.exit_status) == (code, 1)


def test_a_cache_that_is_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "file"
    place.write_text("x")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: (place / "hub").mkdir())
    expected = f"{REPO}: the download failed ({place / 'hub'}: Not a directory)"
    assert said(lambda: remote.fetch(REPO, None, (), Access())) == expected


def test_modelscope(monkeypatch: pytest.MonkeyPatch) -> None:
    class NotExistError(Exception):
        pass

    def absent(*_: Any, **__: Any) -> None:
        raise NotExistError

    package, exceptions = types.ModuleType("modelscope"), types.ModuleType("modelscope.hub.errors")
    vars(exceptions)["NotExistError"] = NotExistError
    monkeypatch.setitem(sys.modules, "modelscope", package)
    monkeypatch.setitem(sys.modules, "modelscope.hub.errors", exceptions)
    asked: list[Any] = []
    vars(package)["snapshot_download"] = lambda repo, **given: asked.append((repo, given)) or "/there"
    online, offline = Access(modelscope=True), Access(modelscope=True, offline=True)
    assert remote.fetch(REPO, "v1", ("*.json",), online) == Path("/there")
    given = {"revision": "v1", "allow_patterns": ["*.json"], "ignore_patterns": list(remote.VARIANTS)}
    assert asked == [(REPO, {**given, "local_files_only": False})]
    vars(package)["snapshot_download"] = absent
    assert said(lambda: remote.fetch(REPO, None, (), online)) == f"{REPO}: is not on ModelScope"
    vars(package)["snapshot_download"] = lambda *_, **__: Path("/proc/none").read_text()
    expected = f"{REPO}: cannot be fetched from ModelScope (/proc/none: No such file or directory)"
    assert said(lambda: remote.fetch(REPO, None, (), online)) == expected
    reason = "/proc/none: No such file or directory"
    expected = f"{REPO}: cannot be fetched from ModelScope and is not in the cache ({reason})"
    assert said(lambda: remote.fetch(REPO, None, (), offline)) == expected


def test_modelscope_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)
    assert said(lambda: remote.fetch(REPO, None, (), Access(modelscope=True))) == (
        f"{REPO}: SGLANG_USE_MODELSCOPE needs the package modelscope; install it or unset the variable"
    )


def said(action: Callable[[], Any]) -> str:
    with pytest.raises(ModelError) as caught:
        action()
    return caught.value.message


def test_files_of_a_repository_are_named_without_a_download_and_from_the_cache_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []

    def answer(repo: str, *, dry_run: bool = False, **given: Any) -> Any:
        calls.append({"dry_run": dry_run, **given})
        if dry_run:
            raise errors.DryRunError("offline")
        return str(tmp_path)

    (tmp_path / "sub").mkdir()
    for name in ("b.bf16.safetensors", "sub/a.safetensors", "note.txt"):
        (tmp_path / name).write_text("x")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    found = remote.file_names("someone/styles", ["*.safetensors"], Access())
    assert found == ("b.bf16.safetensors", "sub/a.safetensors")
    assert [(call["dry_run"], call["allow_patterns"], call["ignore_patterns"]) for call in calls] == [
        (True, ["*.safetensors"], []),
        (False, [], []),  # a part of the repository in the cache will do
    ]
    assert calls[1]["local_files_only"]
    entries = [SimpleNamespace(filename="c.safetensors")]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: entries)
    assert remote.file_names("someone/styles", ["*.safetensors"], Access()) == ("c.safetensors",)
