"""Finished outputs to files: complete under their name or not there at all."""

from __future__ import annotations

import errno
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine import media
from engine.errors import OutputError, UsageError, listed
from engine.types import Artifact, Output

SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".mp4": "mp4", ".gif": "gif"}
MEDIA_TYPES = {
    "png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif", "mp4": "video/mp4",
}  # fmt: skip
REASONS = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EISDIR: "is a folder",
    errno.ENOTEMPTY: "is a folder that is not empty",
    errno.ENAMETOOLONG: "the name is too long",
}


def save(output: Output, path: str | Path) -> Artifact:
    """Write `output` to `path`, whose suffix names the format, replacing a file of that name.

    The file appears complete or not at all. Raises UsageError for an unknown suffix, OutputError saying why not.
    """
    path = Path(path).expanduser()
    fmt = format_of(path)
    with atomic(path) as part:
        media.encode(output.frames, part, fmt, output.request, output.recipe)
    frames, height, width = output.frames.shape[:3]
    return Artifact(str(path), MEDIA_TYPES[fmt], width, height, frames, output.seed)


@contextmanager
def atomic(path: str | Path, probed: bool = False) -> Iterator[Path]:
    """Yield a free name beside `path`; the file or folder written there takes the place of `path` at the end.

    `path` appears complete or not at all, and its folder is created when missing, unless it is `probed` already. A file
    of that name is replaced, a folder only when it is empty. Raises OutputError saying why it cannot be written.
    """
    path = Path(path).expanduser()
    if not probed:
        writable(path.parent)
    part = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def format_of(path: Path) -> str:
    """Return the format that a file's suffix names. Raises UsageError with the known suffixes."""
    fmt = SUFFIXES.get(path.suffix.lower())
    if fmt is None:
        raise UsageError(f"{path.name}: the suffix must be one of {listed(SUFFIXES)}")
    return fmt


def writable(folder: str | Path) -> None:
    """Create `folder` when it is missing and try to write there. Raises OutputError saying why it cannot be."""
    folder = Path(folder).expanduser()
    try:
        blocking = next((place for place in (folder, *folder.parents) if place.exists()), None)
        if blocking is not None and not blocking.is_dir():
            raise OutputError(f"{folder}: cannot be written: {blocking} is a file, not a folder")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    probe(folder)


def probe(folder: Path) -> None:
    """Try to write to an existing folder. Raises OutputError saying why it cannot be."""
    trial = folder / f".{secrets.token_hex(8)}.part"
    try:
        trial.write_bytes(b"x")
        trial.unlink()
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(path: Path, error: OSError) -> OutputError:
    reason = REASONS.get(error.errno or 0) or error.strerror or str(error)
    return OutputError(f"{path}: cannot be written: {reason}")
