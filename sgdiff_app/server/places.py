"""Which models and adapters a client may name: nothing that leads to other files of the server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine import catalog, hub, remote
from engine.errors import shown
from engine.lora import files
from engine.urls import URL
from sgdiff_app.server.errors import ApiError, gone, invalid

MODELS = "models"  # the folder below the data folder in which clients may name models


def model_path(name: str, data: Path, param: str = "model") -> str:
    """Return the path that a client's name of a model stands for: a hub id, a bundled model, a folder below `data`.

    Raises ApiError `invalid_model_path`, or `model_not_found` for a plain name that means nothing.
    """
    own = below(name, data / MODELS)
    if own is not None and _exists(own):
        return str(own)
    if not name.isprintable() or URL.match(name) or not hub.is_portable(name):
        raise _refused(name, param)
    if hub.bundled(name) is not None or remote.is_repo_id(name):
        return name
    known = catalog.by_name(name)
    if known is not None:
        return known.id
    raise gone("model_not_found", f"{param}: there is no model '{shown(name)}'", param)


def file_path(name: str, data: Path, param: str) -> str:
    """Return where the weights lie that a client names: a hub id (with `:file`), or a file below `data`.

    Raises ApiError `invalid_model_path`.
    """
    own = below(name, data / MODELS)
    if own is not None and _exists(own):
        return str(own)
    if not remote.is_repo_id(name.partition(":")[0]) or URL.match(name) or _exists(Path(name)):
        raise _refused(name, param)
    return name


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:  # a name that is too long for a file
        return False


def below(name: str, folder: Path) -> Path | None:
    """Return the place inside a folder that a name means, links followed; None when it leads out of it."""
    if not name:
        return None
    try:
        root = folder.resolve()
        place = (root / name).resolve()
    except (OSError, ValueError):  # a loop of links, a name that no file can have
        return None
    return place if place.is_relative_to(root) and place != root else None


def check_lora(path: str, weight_name: str | None, allowed: Sequence[str] | None) -> None:
    """Raise ApiError `invalid_lora_path` for an adapter on this machine outside the allowed folders; None allows all.

    What comes from the hub or with the program is allowed always.
    """
    if allowed is not None and not files.is_allowed(path, weight_name, map(Path, allowed)):
        from_where = "in a folder from which adapters may be loaded (--lora-allowed-dirs)"
        message = f"lora_path: '{shown(path)}' is not {from_where}"
        raise invalid("invalid_lora_path", message, "lora_path")


def _refused(name: str, param: str) -> ApiError:
    wanted = f"a hub id, a bundled model or a name below '{MODELS}' in --data-dir"
    message = f"{param}: must be {wanted}, got '{shown(name)}'"
    return invalid("invalid_model_path", message, param)
