"""What result files are called, and whether they can be written: asked before any weight is loaded."""

from __future__ import annotations

import mimetypes
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine import storage
from engine.catalog import ModelSpec
from engine.errors import UsageError, listed
from engine.resolve import VIDEO_FORMATS
from sgdiff_app import files
from sgdiff_app.options import OutputOptions

VIDEOS = tuple(suffix for suffix, name in storage.SUFFIXES.items() if name in VIDEO_FORMATS)
IMAGES = tuple(suffix for suffix in storage.SUFFIXES if suffix not in VIDEOS)
PROMPT_LENGTH, NAME_LENGTH = 100, 150
FILE_NAME_BYTES = 255  # of every usual file system


@dataclass(frozen=True, slots=True)
class Naming:
    """Where the outputs of one run go. `name` is None when the prompt names them."""

    folder: Path
    name: str | None
    where: str  # the flag that gave the name
    stamp: str
    timings: Path | None = None  # the file of --perf-dump-path

    @property
    def suffix(self) -> str:
        """The known suffix of an explicit name, or an empty text."""
        suffix = Path(self.name or "").suffix
        return suffix if suffix.lower() in storage.SUFFIXES else ""

    @property
    def format(self) -> str | None:
        """The file format that an explicit name asks for."""
        return storage.SUFFIXES.get(self.suffix.lower())

    def check(self, spec: ModelSpec) -> None:
        """Raise UsageError when the name is one for the other kind of output."""
        known = VIDEOS if spec.is_video else IMAGES
        if self.suffix and self.suffix.lower() not in known:
            kind = "a video" if spec.is_video else "an image"
            message = f"{self.where}: {spec.id} draws {kind}, so the name must end in one of {listed(known)}"
            raise UsageError(f"{message}, got '{self.name}'", param=self.where)

    def check_length(self, file_format: str, count: int) -> None:
        """Raise UsageError when the name of one of `count` outputs is longer than a file's name may be."""
        name = self.path("", "", file_format, count - 1, count).name
        length = len(os.fsencode(name))
        if length > FILE_NAME_BYTES:
            message = f"a file name has at most {FILE_NAME_BYTES} bytes, with its number and suffix, got {length}"
            raise UsageError(f"{self.where}: {message}", param=self.where)

    def path(self, prompt: str, request_id: str, file_format: str, index: int, count: int) -> Path:
        """Return the path of output `index` of `count`, over prompts then outputs."""
        number = f"_{index}" if count > 1 else ""
        suffix = self.suffix or next(known for known, name in storage.SUFFIXES.items() if name == file_format)
        if self.name is not None:
            stem = self.name.removesuffix(self.suffix) if self.suffix else self.name
            return self.folder / f"{stem}{number}{suffix}"
        stem = f"{clean(prompt)}_{self.stamp}_{request_id[:8]}"[:NAME_LENGTH]
        return self.folder / f"{stem}{number}{suffix}"


def clean(prompt: str) -> str:
    """Reduce a prompt to what is safe in a file name everywhere."""
    text = re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9._-]", "_", prompt[:PROMPT_LENGTH]))
    return text.rstrip("_").lstrip("._-") or "output"


def plan(options: OutputOptions) -> Naming:
    """Read the output settings. Raises UsageError for a name that cannot be one."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    timings = _timings(options.perf_dump_path)
    if options.output_file_path is not None:
        where = "--output-file-path"
        path = files.place(options.output_file_path, where)
        folder, name = path.parent, "" if options.output_file_path.endswith(os.sep) else path.name
    else:
        folder, where = files.place(options.output_path, "--output-path"), "--output-file-name"
        name = options.output_file_name or ""
        if "/" in name or "\\" in name:
            raise UsageError(f"{where}: must not contain a path, got '{name}'; use --output-file-path or --output-path")
        if not name:
            return Naming(folder, None, where, stamp, timings)
    if not name or name in (".", "..") or os.path.isdir(folder / name):  # noqa: PTH112 - Path.is_dir raises for a long name
        raise UsageError(f"{where}: must name a file, got '{options.output_file_path or name}'")
    naming = Naming(folder, name, where, stamp, timings)
    guessed = mimetypes.guess_type(name)[0] or ""
    if not naming.suffix and guessed.startswith(("image/", "video/", "audio/")):
        raise UsageError(f"{where}: must end in one of {listed(storage.SUFFIXES)}, got '{name}'")
    return naming


def _timings(typed: str | None) -> Path | None:
    if typed is None:
        return None
    where = "--perf-dump-path"
    path = files.place(typed, where)
    if typed.endswith(os.sep) or not path.name or os.path.isdir(path):  # noqa: PTH112
        raise UsageError(f"{where}: must name a file, got '{typed}'", param="perf_dump_path")
    if len(os.fsencode(path.name)) > FILE_NAME_BYTES:
        raise UsageError(f"{where}: a file name has at most {FILE_NAME_BYTES} bytes", param="perf_dump_path")
    return path


def require_writable(options: OutputOptions, naming: Naming) -> None:
    """Raise OutputError when a place for results cannot be written; nothing is left there."""
    if options.save_output:
        _try(naming.folder)
    if naming.timings is not None:
        _try(naming.timings.parent)


def _try(folder: Path) -> None:
    made = [place for place in (folder, *folder.parents) if not os.path.exists(place)]  # noqa: PTH110
    try:
        storage.writable(folder)
    finally:
        for place in made:  # the deepest first
            with suppress(OSError):
                place.rmdir()
