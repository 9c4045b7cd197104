"""Model repositories: Hugging Face and ModelScope snapshots, and what went wrong in words a user can act on."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from engine.catalog import MODELS
from engine.errors import ModelError, suggest

T = TypeVar("T")
INDEX = "model_index.json"
REPO_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
COMMIT = re.compile(r"[0-9a-f]{40}")
CONFIGS = ("*.json", "*.txt", "*.model", "*.jinja")
SAFE_WEIGHTS = ("*.safetensors",)
OTHER_FILES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.py")  # unpickled or executed: only with trust
VARIANTS = ("*.fp16.*", "*.fp16-*", "*.bf16.*", "*.bf16-*", "*.non_ema.*", "*.non_ema-*")  # second copies


@dataclass(frozen=True, slots=True)
class Access:
    """How repositories may be reached."""

    offline: bool = False
    modelscope: bool = False
    trust: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """Patterns of the files that may be fetched."""
        return CONFIGS + SAFE_WEIGHTS + (OTHER_FILES if self.trust else ())


class UnreachableError(ModelError):
    """The hub does not answer, or may not be asked."""


def is_repo_id(name: str) -> bool:
    """Say whether `name` has the form owner/name."""
    return REPO_ID.fullmatch(name) is not None


def commit_of(folder: Path) -> str | None:
    """Return the commit that a folder of the hub cache holds."""
    return folder.name if COMMIT.fullmatch(folder.name) and folder.parent.name == "snapshots" else None


def fetch(
    repo: str, revision: str | None, patterns: Sequence[str], access: Access, ignored: Sequence[str] = VARIANTS
) -> Path:
    """Return the local folder of a repository with the files that match `patterns`, downloading those that lack.

    Raises ModelError saying what to do.
    """
    if access.modelscope:
        return _fetch_modelscope(repo, revision, patterns, access, ignored)
    import huggingface_hub

    def download() -> Path:
        folder = huggingface_hub.snapshot_download(
            repo,
            revision=revision,
            allow_patterns=list(patterns),
            ignore_patterns=list(ignored),
            local_files_only=access.offline,
        )
        return Path(str(folder))

    return _explained(repo, revision, access, download)


def fetch_component(repo: str, component: str, access: Access) -> Path:
    """Return the local folder of a repository that is one component, or that holds it as a subfolder."""
    root = fetch(repo, None, (INDEX, "config.json"), access)
    if (root / INDEX).is_file():
        return fetch(repo, commit_of(root), [f"{component}/{kind}" for kind in access.kinds], access) / component
    return fetch(repo, commit_of(root), access.kinds, access)


@dataclass(frozen=True, slots=True)
class Listing:
    """What a download would bring: the model index, and each file with the bytes that are not cached yet."""

    index: Mapping[str, Any]
    folder: Path
    missing: Mapping[str, int]

    def bytes_of(self, components: Sequence[str]) -> int:
        """Return the bytes still to be downloaded for some components."""
        return sum(size for name, size in self.missing.items() if _folder_of(name) in ("", *components))


def listing(repo: str, revision: str | None, access: Access) -> Listing:
    """Ask the hub what the download of a model would bring, and leave nothing behind. Raises ModelError."""
    import huggingface_hub

    def ask() -> Listing:
        files = _dry_run(repo, revision, [INDEX, *(f"*/{kind}" for kind in access.kinds)])
        found = next((entry for entry in files if entry.filename == INDEX), None)
        if found is None:
            raise ModelError(no_model(repo))
        missing = {entry.filename: entry.file_size or 0 for entry in files if entry.will_download}
        folder = Path(found.local_path).parent
        if found.is_cached:
            return Listing(read_json(Path(found.local_path)), folder, missing)
        with tempfile.TemporaryDirectory() as place:
            path = huggingface_hub.hf_hub_download(repo, INDEX, revision=found.commit_hash, cache_dir=place)
            return Listing(read_json(Path(path)), folder, missing)

    return _explained(repo, revision, access, ask)


def file_names(repo: str, patterns: Sequence[str], access: Access) -> tuple[str, ...]:
    """Return the files of a repository that match, second copies too; without network, those in the cache.

    Raises ModelError.
    """
    if not access.offline and not access.modelscope:
        try:
            found = _explained(repo, None, access, lambda: _dry_run(repo, None, patterns, ignored=()))
            return tuple(sorted(entry.filename for entry in found))
        except UnreachableError:
            access = dataclasses.replace(access, offline=True)
    wanted = patterns if access.modelscope else ()  # a part of a snapshot will do
    folder = fetch(repo, None, wanted, access, ignored=())
    matching = (path for pattern in patterns for path in folder.rglob(pattern))
    return tuple(sorted({path.relative_to(folder).as_posix() for path in matching}))


def component_bytes(repo: str, component: str, access: Access) -> int:
    """Return the bytes that `fetch_component` would download. Raises ModelError."""
    files = _explained(repo, None, access, lambda: _dry_run(repo, None, access.kinds))
    whole_model = any(entry.filename == INDEX for entry in files)
    needed = [entry for entry in files if _folder_of(entry.filename) == (component if whole_model else "")]
    return sum(entry.file_size or 0 for entry in needed if entry.will_download)


def cached_bytes() -> dict[str, int]:
    """Return what each model repository of the hub cache takes on the disk, whole or not; asks no network."""
    import huggingface_hub
    from huggingface_hub import constants

    try:
        found = huggingface_hub.scan_cache_dir(constants.HF_HUB_CACHE)
    except (huggingface_hub.CacheNotFound, OSError):
        return {}
    return {repo.repo_id: repo.size_on_disk for repo in found.repos if repo.repo_type == "model"}


def bytes_here(repo: str, whole_files: bool = False) -> int:
    """Return the bytes of a repository in the hub cache, with or without files that are still being downloaded."""
    from huggingface_hub import constants

    blobs = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "blobs"
    size = 0
    for path in blobs.glob("*"):
        with suppress(OSError):  # a finished file is renamed at any moment
            stat, partial = path.stat(), path.suffix == ".incomplete"
            written = getattr(stat, "st_blocks", stat.st_size) * 512 if partial else stat.st_size  # it may have holes
            size += 0 if whole_files and partial else min(stat.st_size, written)
    return size


def _dry_run(repo: str, revision: str | None, patterns: Sequence[str], ignored: Sequence[str] = VARIANTS) -> list[Any]:
    import huggingface_hub

    files: Any = huggingface_hub.snapshot_download(
        repo, revision=revision, allow_patterns=list(patterns), ignore_patterns=list(ignored), dry_run=True
    )
    return list(files)


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0].split("/")[0]


def no_model(name: str) -> str:
    """Say what a model folder has to hold."""
    return f"{name}: is no diffusers model; looked for {INDEX} and the component folders that it lists"


def read_json(path: Path) -> dict[str, Any]:
    """Read an object from a JSON file of a model. Raises ModelError naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: must hold a JSON object")
    return value


def _explained(repo: str, revision: str | None, access: Access, action: Callable[[], T]) -> T:
    """Run `action` and put the failures of the hub client into words."""
    from huggingface_hub import errors

    network_error: type[Exception] = vars(errors)["HTTPError"]  # of the httpx that the client uses
    try:
        return action()
    except errors.GatedRepoError as error:
        message = f"{repo}: access is gated; accept its licence at https://huggingface.co/{repo}, then `hf auth login`"
        raise ModelError(message, code="model_gated") from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"{repo}: has no revision '{revision}'", param="revision") from error
    except errors.RepositoryNotFoundError as error:
        close = suggest(repo, [spec.id for spec in MODELS if spec.id != repo])
        raise ModelError(f"{repo}: is not on the hub, or is private (`hf auth login`){close}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.DryRunError) as error:
        part = "only in part " if isinstance(error, errors.IncompleteSnapshotError) else "not "
        if access.offline or isinstance(error.__cause__ or error, errors.OfflineModeIsEnabled):
            message = f"{repo}: is {part}in the cache, and --offline (or HF_HUB_OFFLINE) forbids to download it"
        else:
            message = f"{repo}: is {part}in the cache, and the hub cannot be reached; check the network{_why(error)}"
        raise UnreachableError(message) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        hint = "the access token is refused; `hf auth login` again" if status == 401 else "try again later"
        raise ModelError(f"{repo}: the hub answered {status}; {hint}") from error
    except errors.HFValidationError as error:
        raise ModelError(f"{repo}: is no hub id (owner/name)") from error
    except (network_error, OSError) as error:
        raise ModelError(f"{repo}: the download failed{_why(error)}") from error


def _why(error: Exception) -> str:
    cause = error.__cause__ or error
    text = getattr(cause, "strerror", None) or type(cause).__name__
    place = getattr(cause, "filename", None)  # of a cache that cannot be written
    return f" ({place}: {text})" if place else f" ({text})"


def _fetch_modelscope(
    repo: str, revision: str | None, patterns: Sequence[str], access: Access, ignored: Sequence[str]
) -> Path:
    try:
        modelscope = importlib.import_module("modelscope")
        not_there = importlib.import_module("modelscope.hub.errors").NotExistError
    except ImportError as error:
        message = f"{repo}: SGLANG_USE_MODELSCOPE needs the package modelscope; install it or unset the variable"
        raise ModelError(message) from error
    try:
        return Path(
            modelscope.snapshot_download(
                repo,
                revision=revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(ignored),
                local_files_only=access.offline,
            )
        )
    except not_there as error:
        raise ModelError(f"{repo}: is not on ModelScope") from error
    except (OSError, ValueError) as error:
        hint = " and is not in the cache" if access.offline else ""
        raise ModelError(f"{repo}: cannot be fetched from ModelScope{hint}{_why(error)}") from error
