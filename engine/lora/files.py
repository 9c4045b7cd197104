"""Which file a LoRA reference means: a path, a folder, a hub id or the name of one that ships with the program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from engine import hub, remote
from engine.errors import ModelError, UsageError, listed, suggest
from engine.lora import header, keys
from engine.remote import Access

SUFFIX = ".safetensors"
USUAL = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")  # what diffusers and PEFT call theirs
LISTED = 12  # names in a message


def locate(reference: str, weight_name: str | None = None, access: Access | None = None) -> Path:
    """Return the file of a LoRA, downloading it if need be; its header has been read.

    Raises ModelError `lora_file_not_found`, or UsageError for one that cannot be read or chosen.
    """
    path = _locate(reference, weight_name, access or Access())
    head = header.read(path)
    if not any(keys.parse(key) or keys.other_kind([key]) for key in head.tensors):
        message = f"{reference}: {path.name} holds weights of a model, not of a LoRA"
        raise UsageError(message, code="lora_incompatible", param="lora_path")
    return path


def is_here(reference: str) -> bool:
    """Say whether a reference means something that is on this machine, or that came with the program."""
    try:
        return Path(reference).expanduser().exists() or reference.removesuffix(SUFFIX) in hub.bundled_loras()
    except (OSError, RuntimeError, ValueError):  # a name that no file can have, a home that nobody has
        return False


def is_remote(reference: str) -> bool:
    """Say whether a reference means a repository of the hub or a file of one, and nothing that is on this machine."""
    return remote.is_repo_id(parted(reference)[0]) and not is_here(reference)


def parted(reference: str, weight_name: str | None = None) -> tuple[str, str | None]:
    """Return repository and file of a reference such as owner/name/folder/file.safetensors, any other as it is."""
    owner, _, rest = reference.partition("/")
    name, _, file = rest.partition("/")
    if (
        weight_name is None
        and file.endswith(SUFFIX)
        and remote.is_repo_id(f"{owner}/{name}")
        and not is_here(reference)
    ):
        return f"{owner}/{name}", file
    return reference, weight_name


def is_allowed(reference: str, weight_name: str | None, folders: Iterable[Path]) -> bool:
    """Say whether a reference means a file in or below folders, links followed, or none that is already here.

    What comes from the hub or with the program is allowed always.
    """
    try:
        if is_remote(reference):
            return True
        place = Path(reference).expanduser()
        if not place.exists() and reference.removesuffix(SUFFIX) in hub.bundled_loras():
            return True
        places = [place]
        if place.is_dir():
            named = (weight_name, f"{weight_name}{SUFFIX}") if weight_name else ()
            places += [place / name for name in named] or place.glob(f"*{SUFFIX}")
        roots = [folder.expanduser().resolve() for folder in folders]
        return all(any(found.resolve().is_relative_to(root) for root in roots) for found in places)
    except (OSError, RuntimeError, ValueError):
        return False


def _locate(reference: str, weight_name: str | None, access: Access) -> Path:
    try:
        path = Path(reference).expanduser()
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, RuntimeError) as error:  # a name that is too long, a home that nobody has
        raise _missing(f"{reference}: no such file ({getattr(error, 'strerror', None) or error})") from error
    if is_folder and reference:  # nothing is no name of the working folder
        pattern = "*" if weight_name is None else "**/*"
        names = sorted(found.relative_to(path).as_posix() for found in path.glob(pattern) if found.is_file())
        return path / _chosen(reference, names, weight_name)
    if exists and reference:
        return path
    bundled = hub.bundled_loras()
    if reference.removesuffix(SUFFIX) in bundled:
        return bundled[reference.removesuffix(SUFFIX)]
    repo, name = parted(reference, weight_name)
    if reference.startswith((".", "/", "~")) or not remote.is_repo_id(repo):
        ours = f"; bundled: {listed(bundled)}" if bundled else ""
        close = suggest(reference.removesuffix(SUFFIX), bundled)
        kinds = "file or folder, and neither a bundled LoRA nor a hub id (owner/name)"
        raise _missing(f"{reference}: no such {kinds}{close}{ours}")
    try:
        return _downloaded(repo, name, access)
    except ModelError as error:
        if repo == reference:
            raise
        message = f"{reference}: no such file here; of the hub: {error.message}"  # most names of this form are paths
        raise ModelError(message, code=error.code, param="lora_path") from error


def _downloaded(repo: str, weight_name: str | None, access: Access) -> Path:
    try:
        names = remote.file_names(repo, [f"*{SUFFIX}", *(f"*{kind}" for kind in header.PICKLED)], access)
        chosen = _chosen(repo, names, _in_folder(names, weight_name))
        beside = str(PurePosixPath(chosen).with_name(header.PEFT))
        return remote.fetch(repo, None, [chosen, beside], access, ignored=()) / chosen
    except ModelError as error:
        code = "lora_file_not_found" if error.code == ModelError.code else error.code
        raise ModelError(error.message, code=code, param="lora_path") from error


def _in_folder(names: Sequence[str], weight_name: str | None) -> str | None:
    """Return the whole name of a file that is called by its last part, if one alone is called so."""
    if weight_name is None or "/" in weight_name or {weight_name, weight_name + SUFFIX} & {*names}:
        return weight_name
    called = (weight_name, weight_name + SUFFIX)
    found = [name for name in names if name.endswith(SUFFIX) and PurePosixPath(name).name in called]
    return found[0] if len(found) == 1 else weight_name


def _chosen(place: str, names: Sequence[str], weight_name: str | None) -> str:
    """Return the file that is meant among those of a folder or repository. Raises ModelError or UsageError."""
    safe = [name for name in names if name.endswith(SUFFIX)]
    if weight_name is not None:
        match = next((name for name in (weight_name, weight_name + SUFFIX) if name in safe), None)
        if match is not None:
            return match
        if weight_name in names:  # of a kind that is refused
            return weight_name
        found = f"; it has {_few(safe)}" if safe else ""
        message = f"{place}: has no file '{weight_name}'{suggest(weight_name, safe)}{found}"
        raise _missing(message, param="lora_weight_name")
    at_top = [name for name in safe if "/" not in name] or safe
    usual = [name for name in at_top if name in USUAL]
    if len(at_top) == 1 or usual:
        return (usual or at_top)[0]
    if at_top:
        message = f"{place}: has {len(at_top)} LoRA files; choose one with --lora-weight-name: {_few(at_top)}"
        raise UsageError(message, code="missing_parameter", param="lora_weight_name")
    pickled = [name for name in names if name.endswith(header.PICKLED)]
    if pickled:
        message = f"{place}: holds {pickled[0]}, whose reading could run code, and no safetensors file"
        raise UsageError(message, code="lora_incompatible", param="lora_path")
    raise _missing(f"{place}: holds no safetensors file")


def cached() -> Iterator[tuple[str, str, Path]]:
    """Yield the LoRA files in the hub cache: the repository, the name that each has there, where it is."""
    for repo in sorted(remote.cached_bytes()):
        try:
            names = remote.file_names(repo, [f"*{SUFFIX}"], Access(offline=True))
            folder = remote.fetch(repo, None, [], Access(offline=True))
        except ModelError:
            continue
        yield from ((repo, name, folder / name) for name in names if is_lora(folder / name))


def is_lora(path: Path) -> bool:
    """Say whether a safetensors file holds a LoRA: most of its keys have the form of one."""
    try:
        names = list(header.read(path).tensors)
    except (ModelError, UsageError):
        return False
    return 2 * sum(keys.parse(name) is not None or keys.other_kind([name]) is not None for name in names) > len(names)


def _few(names: Sequence[str]) -> str:
    return listed(names[:LISTED]) + (", ..." if len(names) > LISTED else "")


def _missing(message: str, param: str = "lora_path") -> ModelError:
    return ModelError(message, code="lora_file_not_found", param=param)
