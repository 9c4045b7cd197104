"""Which folder a model is: hub id, local path, bundled name or component overrides to checked local files."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from engine import catalog, remote
from engine.catalog import ModelSpec
from engine.config import EngineConfig
from engine.env import Environment
from engine.errors import ModelError, UsageError, listed, suggest
from engine.remote import COMMIT, INDEX, Access, read_json

BUNDLED = ("tiny-scenes", "tiny-motion")
# Of a component's configs the first that is there; `config.json` alone means that the component has weights.
COMPONENT_CONFIGS = ("config.json", "scheduler_config.json", "preprocessor_config.json", "tokenizer_config.json")
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
LONGEST_NAME = 255
HASHED_WHOLE = 64 * 2**20
EDGE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model that lies on the disk, complete as far as names tell, with nothing of it loaded."""

    name: str  # as typed
    folder: Path
    revision: str | None  # the commit, when it comes from the hub
    index: Mapping[str, Any]
    configs: Mapping[str, Mapping[str, Any]]  # component -> its config
    spec: ModelSpec | None  # None: not in the catalog
    overrides: Mapping[str, Path] = field(default_factory=dict)  # component -> folder or file
    weights: Mapping[str, Path] = field(default_factory=dict)  # component -> folder or file with its weights alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `locate` would do. `download_bytes` is None where the hub does not tell before."""

    name: str
    folder: Path | None
    cached: bool
    download_bytes: int | None
    spec: ModelSpec | None


def locate(config: EngineConfig, environment: Environment) -> Source:
    """Return where the model of `config` lies, downloading what is missing.

    Raises ModelError or, for a wrong component name, UsageError; the messages say what to do.
    """
    access = access_of(config, environment)
    given, weights = _given(config.component_paths), _given(config.component_weights_paths)
    folder = _local_folder(config)
    repo = config.model_path
    root = folder if folder is not None else remote.fetch(repo, config.revision, (INDEX,), access)
    index = _index(repo, root)
    _check_overrides(config, index)
    needed = [key for key in component_keys(index) if key not in given]
    if folder is None:
        heavy = set(needed) - set(weights) if config.load_format != "dummy" else ()
        kinds = {key: access.kinds if key in heavy else remote.CONFIGS for key in component_keys(index)}
        patterns = [INDEX, *(f"{key}/{kind}" for key in kinds for kind in kinds[key])]
        root = remote.fetch(repo, remote.commit_of(root) or config.revision, patterns, access)
    overrides, weights_at = (_fetched(places, access) for places in (given, weights))
    _check_complete(config, root, needed)
    configs = _configs(root, index, overrides)
    return Source(
        name=config.model_path,
        folder=root,
        revision=remote.commit_of(root),
        index=index,
        configs=configs,
        spec=_spec(config, index, configs),
        overrides=overrides,
        weights=weights_at,
    )


def _fetched(places: Mapping[str, Path | str], access: Access) -> dict[str, Path]:
    return {
        key: value if isinstance(value, Path) else remote.fetch_component(value, key, access)
        for key, value in places.items()
    }


def plan(config: EngineConfig, environment: Environment) -> Plan:
    """Say what `locate` would do; nothing is downloaded. Raises as `locate` does."""
    access = access_of(config, environment)
    name, folder = config.model_path, _local_folder(config)
    given, weights = _given(config.component_paths), _given(config.component_weights_paths)
    remote_parts = [(key, value) for places in (given, weights) for key, value in places.items()]
    remote_parts = [(key, value) for key, value in remote_parts if isinstance(value, str)]
    if access.offline or (folder is not None and not remote_parts):
        source = locate(config, environment)
        return Plan(name=name, folder=source.folder, cached=True, download_bytes=0, spec=source.spec)
    if access.modelscope:
        return Plan(name=name, folder=folder, cached=False, download_bytes=None, spec=_spec(config, {}, {}))
    index: Mapping[str, Any]
    if folder is not None:
        index, place, size = _index(name, folder), folder, 0
    else:
        try:
            found = remote.listing(name, config.revision, access)
        except remote.UnreachableError as error:
            try:
                return plan(dataclasses.replace(config, offline=True), environment)
            except remote.UnreachableError:
                raise error from None
        index, place = found.index, found.folder
        size = found.bytes_of([key for key in component_keys(index) if key not in {**given, **weights}])
        folder = found.folder if size == 0 else None
    _check_overrides(config, index)
    local_parts = {key: value for key, value in given.items() if isinstance(value, Path)}
    size += sum(remote.component_bytes(str(repo), key, access) for key, repo in remote_parts)
    return Plan(
        name=name,
        folder=folder,
        cached=size == 0,
        download_bytes=size,
        spec=_spec(config, index, _configs(place, index, local_parts)),
    )


def bundled(name: str) -> Path | None:
    """Return the folder of a model that travels with the program, in the installed package or in the checkout."""
    if Path(name).name != name:
        return None
    return next((place / name for place in _shelves() if (place / name / INDEX).is_file()), None)


def bundled_loras() -> dict[str, Path]:
    """Return the LoRA files that travel with this installation, each by its own name or that of its folder."""
    shelves = [shelf.parent / "loras" for shelf in reversed(_shelves())]
    files = [(shelf, path) for shelf in shelves for path in sorted(shelf.rglob("*.safetensors"))]
    return {path.stem if path.parent == shelf else path.parent.name: path for shelf, path in files}


def access_of(config: EngineConfig, environment: Environment) -> Access:
    """Return how repositories may be reached."""
    offline = config.offline or environment.hub_offline
    return Access(offline=offline, modelscope=environment.use_modelscope, trust=config.trust_remote_code)


def is_portable(name: str) -> bool:
    """Say whether `name` means a model on any machine: a bundled name or a plain one of a folder, or a hub id.

    What names a place below the working folder is none, even when it has the form of a hub id.
    """
    if not name or len(name) > LONGEST_NAME or _typed_as_path(name):
        return False
    if PureWindowsPath(name).name == name:  # without a separator or drive of any system
        return True
    return remote.is_repo_id(name) and not Path(name).exists()


def is_commit(revision: str) -> bool:
    """Say whether `revision` is the hash of a commit, which stays what it is."""
    return isinstance(revision, str) and COMMIT.fullmatch(revision) is not None


def bundled_names() -> tuple[str, ...]:
    """Return the names of the models that travel with this installation."""
    return tuple(sorted({path.parent.name for place in _shelves() for path in place.glob(f"*/{INDEX}")}))


def component_keys(index: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the components that a model index lists; those that it leaves empty do not count."""
    return tuple(key for key in _slots(index) if index[key][1])


def _slots(index: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys that may hold a component. A key names a folder, so nothing but a plain name counts."""
    return tuple(
        key for key, value in index.items() if isinstance(value, list) and len(value) == 2 and key.isidentifier()
    )


_hashes: dict[tuple[Any, ...], str] = {}


def folder_hash(folder: Path) -> str:
    """Return the sha256 of a model: index and components, by relative path, size and content.

    Of files above 64 MiB the first and last MiB stand for the content. A component's folder or file may be given too.
    Kept in memory until a file changes.
    """
    if folder.is_file():
        return _hash(folder, [("", folder)])
    keys = component_keys(read_json(folder / INDEX)) if (folder / INDEX).is_file() else ("",)
    found = [folder / INDEX, *(path for key in keys for path in (folder / key).rglob("*"))]
    files = sorted({(path.relative_to(folder).as_posix(), path) for path in found if path.is_file()})
    return _hash(folder, files)


def _hash(place: Path, files: list[tuple[str, Path]]) -> str:
    stats = [(name, path, path.stat()) for name, path in files]
    identity = (str(place.resolve()), *((name, stat.st_size, stat.st_mtime_ns) for name, _, stat in stats))
    if identity not in _hashes:
        digest = hashlib.sha256()
        for name, path, stat in stats:
            digest.update(f"{name}\0{stat.st_size}\0".encode())
            _digest_content(digest, path, stat.st_size)
        _hashes[identity] = digest.hexdigest()
    return _hashes[identity]


def _digest_content(digest: Any, path: Path, size: int) -> None:
    with path.open("rb") as file:
        if size <= HASHED_WHOLE:
            digest.update(file.read())
        else:
            digest.update(file.read(EDGE))
            file.seek(size - EDGE)
            digest.update(file.read(EDGE))


def _shelves() -> tuple[Path, ...]:
    package = Path(__file__).resolve().parent
    return package / "assets" / "models", package.parent / "assets" / "models"


def _typed_as_path(text: str) -> bool:
    return text.startswith((".", "/", "~"))


def _local_folder(config: EngineConfig) -> Path | None:
    """Return the folder that `model_path` names on this machine; None when it is a hub id."""
    name = config.model_path
    try:
        path = Path(name).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError) as error:  # a name that is too long, a home that nobody has
        raise ModelError(f"{name}: no such folder ({getattr(error, 'strerror', None) or error})") from error
    if is_folder:
        return path
    if is_file:
        raise ModelError(f"{name}: is a file; a model is a folder with {INDEX}")
    found = bundled(name) or (_public_configs(config) if config.load_format == "dummy" else None)
    if found is not None:
        return found
    if name in BUNDLED:
        raise ModelError(f"{name}: this bundled model is missing from the installation")
    if _typed_as_path(name):
        raise ModelError(f"{name}: no such folder")
    if not remote.is_repo_id(name):
        close = suggest(name, [*BUNDLED, *(spec.id for spec in catalog.MODELS)])
        message = f"{name}: no such folder, and neither a bundled model nor a hub id (owner/name){close}"
        raise ModelError(f"{message}; bundled: {listed(bundled_names() or ('none',))}")
    return None


def _public_configs(config: EngineConfig) -> Path | None:
    """Return the folder of configs that is kept of a model of the catalog: all that random weights need."""
    spec = catalog.by_name(config.model_path) or (catalog.by_name(config.model_id) if config.model_id else None)
    names = [config.model_path, *((spec.id,) if spec else ())]
    places = [shelf.parent / "configs" / name.rstrip("/").rsplit("/", 1)[-1] for name in names for shelf in _shelves()]
    return next((place for place in places if (place / INDEX).is_file()), None)


def _given(paths: Mapping[str, str]) -> dict[str, Path | str]:
    """Return the local path or the hub id given for each component, whether or not it is there."""
    named = {key.replace("-", "_"): typed for key, typed in paths.items()}
    return {component: _place(component, typed) for component, typed in named.items()}


def _place(component: str, typed: str) -> Path | str:
    path = Path(typed).expanduser()
    if not path.exists() and not _typed_as_path(typed) and remote.is_repo_id(typed):
        return typed
    whole_model = (path / INDEX).is_file() and (path / component).is_dir()
    return path / component if whole_model else path


def flag(component: str, field: str) -> str:
    """Return the flag that sets a component in `component_paths` or `component_weights_paths`."""
    return f"--{component.replace('_', '-')}-{'weights-' if 'weights' in field else ''}path"


def _index(name: str, folder: Path) -> dict[str, Any]:
    if not (folder / INDEX).is_file():
        raise ModelError(remote.no_model(name))
    index = read_json(folder / INDEX)
    if not component_keys(index):
        raise ModelError(f"{name}: {INDEX} lists no components")
    return index


def _check_overrides(config: EngineConfig, index: Mapping[str, Any]) -> None:
    """Refuse an override of a component that the model does not have, then one that is not there.

    A component that the model leaves empty may be given.
    """
    known = _slots(index)
    for field_name in ("component_paths", "component_weights_paths"):
        for key, typed in getattr(config, field_name).items():
            component = key.replace("-", "_")
            typed_as = flag(component, field_name)
            if component not in known:
                names = listed(component_keys(index))
                message = f"{typed_as}: the model has no component '{component}'; its components: {names}"
                raise UsageError(message + suggest(component, known), param=field_name)
            place = _place(component, typed)
            if isinstance(place, Path) and not place.exists():
                raise ModelError(f"{typed_as}: {typed}: no such file or folder", param=field_name)
            if field_name == "component_weights_paths" and isinstance(place, Path):
                _check_weights(typed_as, place)


def _check_weights(typed_as: str, place: Path) -> None:
    files = [place] if place.is_file() else list(place.glob("*.safetensors"))
    if not files or any(file.suffix != ".safetensors" for file in files):
        message = f"{typed_as}: {place}: must be a .safetensors file, a folder of such, or a hub id"
        raise ModelError(message, param="component_weights_paths")


def _check_complete(config: EngineConfig, root: Path, keys: list[str]) -> None:
    """Raise ModelError for a component without folder, and for weights that are absent or may not be read.

    Random weights need configs alone: the loader says what it has no stand-in for.
    """
    for key in () if config.load_format == "dummy" else keys:
        folder = root / key
        if not folder.is_dir():
            raise ModelError(f"{config.model_path}: is incomplete: the folder of its component '{key}' is missing")
        if not any(folder.iterdir()):
            raise ModelError(f"{config.model_path}: is incomplete: the folder of its component '{key}' is empty")
        if not (folder / "config.json").is_file() or key in _given(config.component_weights_paths):
            continue
        names = {path.name for path in folder.iterdir() if path.exists()}  # a broken link is no file
        needed = _shards(folder, names)
        if needed - names:
            message = f"{config.model_path}: is incomplete: {key}/{min(needed - names)} is missing"
            raise ModelError(message)
        pickled = sorted(name for name in names if name.endswith(PICKLED))
        if any(name.endswith(".safetensors") for name in names) or (pickled and config.trust_remote_code):
            continue
        message = f"{config.model_path}: its component '{key}' has no safetensors weights"
        if not pickled:
            message += ", nor any others"
        elif not config.trust_remote_code:
            message += f" (found {pickled[0]}); weights of other formats need --trust-remote-code"
        raise ModelError(message)


def _shards(folder: Path, names: set[str]) -> set[str]:
    indexes = [name for name in names if name.endswith(".safetensors.index.json")]
    maps = [read_json(folder / name).get("weight_map", {}) for name in indexes]
    return {shard for weight_map in maps for shard in weight_map.values()}


def _configs(root: Path, index: Mapping[str, Any], overrides: Mapping[str, Path]) -> dict[str, Mapping[str, Any]]:
    """Read the config of each component; an override that is a bare file keeps the model's own."""
    configs: dict[str, Mapping[str, Any]] = {}
    for key in dict.fromkeys([*component_keys(index), *overrides]):
        place = overrides.get(key, root)
        folder = place if key in overrides and place.is_dir() else root / key
        path = next((folder / name for name in COMPONENT_CONFIGS if (folder / name).is_file()), None)
        configs[key] = read_json(path) if path is not None else {}
    return configs


def _spec(config: EngineConfig, index: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]]) -> ModelSpec | None:
    named = index.get("_class_name")
    own = named[-1] if isinstance(named, list) else named
    pipeline = config.pipeline_class_name or own
    spec = catalog.match(config.model_path, config.model_id, pipeline, {**configs, "model_index": index})
    foreign = spec is not None and own != spec.pipeline and any(own == other.pipeline for other in catalog.MODELS)
    if config.model_id is not None and spec is not None and pipeline == own and foreign:
        message = f"--model-id: {spec.id} is a {spec.pipeline}, but {config.model_path} a {own}"
        raise UsageError(message, param="model_id")
    return spec
