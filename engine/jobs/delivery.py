"""From raw frames to what a client fetches: encoded, stored, uploaded, and removed again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import log, media, storage
from engine.errors import OutputError, SgdiffError
from engine.jobs.job import Job
from engine.jobs.store import REMEMBERED_S
from engine.profiler import monotonic
from engine.types import Artifact

if TYPE_CHECKING:
    import numpy as np

    from engine.cloud import Cloud

logger = log.get(__name__)


class Delivery:
    """Where outputs go: a folder, cloud storage, both, or only a scratch folder until they are sent."""

    def __init__(self, folder: Path | None, scratch: Path, cloud: Cloud | None = None) -> None:
        self.folder, self.scratch, self.cloud = folder, scratch, cloud
        self.probed = False
        self.brief: dict[str, float] = {}  # outputs that nothing but a repeated request can fetch, and since when
        self.forgetting: list[Callable[[str], None]] = []  # what else knows outputs, told the ids of removed jobs

    @property
    def keeps(self) -> bool:
        """Whether an output can be fetched later."""
        return self.folder is not None or self.cloud is not None

    def deliver(self, job: Job, index: int, frames: np.ndarray[Any, Any], recipe: dict[str, Any]) -> Artifact:
        """Encode one output and put it where outputs go. Raises OutputError.

        A failed upload leaves the file in the folder; without a folder it is an error, `upload_failed`.
        """
        fmt = job.resolved.output_format or "png"
        path = self._place(_name(job, index, fmt))
        with storage.atomic(path, probed=True) as part:
            media.encode(frames, part, fmt, job.resolved, recipe)
        count, height, width = frames.shape[:3]
        seed = int(recipe["request"]["seed"])
        fps = job.resolved.fps if fmt in ("mp4", "gif") else None
        artifact = Artifact(str(path), storage.MEDIA_TYPES[fmt], width, height, count, seed, fps)
        if self.cloud is not None:
            return self._upload(artifact)
        if self.folder is None:
            self.brief[artifact.location] = monotonic()
        return artifact

    def tidy(self) -> None:
        """Delete what was kept for repeated requests, once a repeated one is a new one."""
        end = monotonic() - REMEMBERED_S
        old = [path for path, since in list(self.brief.items()) if since < end]
        _unlink(old)
        for path in old:
            self.brief.pop(path, None)

    def read(self, artifact: Artifact) -> bytes:
        """Return the bytes of an output, wherever it is. Raises OutputError when it is gone."""
        if artifact.location:
            try:
                return Path(artifact.location).read_bytes()
            except OSError as error:
                raise OutputError(f"{artifact.location}: cannot be read: {error.strerror}") from error
        assert artifact.key is not None and self.cloud is not None
        return self.cloud.read(artifact.key)

    @contextmanager
    def local(self, artifact: Artifact) -> Iterator[Path]:
        """Give the file of an output; what lies in cloud storage alone is fetched for a while. Raises OutputError."""
        if artifact.location:
            yield Path(artifact.location)
            return
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / f"output{Path(artifact.key or '').suffix}"
            path.write_bytes(self.read(artifact))
            yield path

    def add(self, job: Job, name: str, content: bytes) -> Path:
        """Keep something made from an output (a thumbnail) beside it. Raises OutputError."""
        path = self._place(name)
        with storage.atomic(path, probed=True) as part:
            part.write_bytes(content)
        job.files = (*job.files, str(path))
        return path

    def remove(self, job: Job) -> bool:
        """Delete every file of a job, wherever it is; also one that was written and never told of.

        Return False when cloud storage has some still.
        """
        gone = self.discard(job.artifacts)
        fmt = job.resolved.output_format or "png"
        names = [_name(job, index, fmt) for index in range(job.outputs)]
        _unlink(str(folder / name) for folder in (self.folder, self.scratch) if folder is not None for name in names)
        _unlink(job.files)
        _unlink(job.inputs)
        self._forget(job.id)
        return gone

    def remove_named(self, job_id: str) -> None:
        """Delete the files here of a job of which the id alone is known."""
        for folder in (self.folder, self.scratch):
            if folder is not None and folder.is_dir():
                _unlink(str(path) for path in folder.iterdir() if path.name.startswith((f"{job_id}.", f"{job_id}_")))
        self._forget(job_id)

    def _forget(self, job_id: str) -> None:
        for forget in self.forgetting:
            forget(job_id)

    def discard(self, artifacts: Iterable[Artifact]) -> bool:
        """Delete outputs, here and in the cloud; return False when cloud storage has some still."""
        gone = True
        for artifact in artifacts:
            if artifact.location:
                _unlink((artifact.location,))
                self.brief.pop(artifact.location, None)
            if artifact.key is not None and self.cloud is not None:
                try:
                    self.cloud.delete(artifact.key)
                except OutputError as error:
                    logger.error("%s", error.message)
                    gone = False
        return gone

    def _place(self, name: str) -> Path:
        """Return the path of a new file; the first one proves that there can be any. Raises OutputError."""
        folder = self.folder or self.scratch
        if not (self.probed and folder.is_dir()):
            storage.writable(folder)
            self.probed = True
        return folder / name

    def _upload(self, artifact: Artifact) -> Artifact:
        assert self.cloud is not None
        path = Path(artifact.location)
        try:
            key = self.cloud.upload(path, artifact.media_type)
        except SgdiffError as error:
            if self.folder is None:
                path.unlink(missing_ok=True)
                raise
            logger.error("%s; the file stays here: %s", error.message, path)
            return artifact
        if self.folder is not None:
            return replace(artifact, key=key)
        path.unlink(missing_ok=True)
        return replace(artifact, location="", key=key)


def _name(job: Job, index: int, fmt: str) -> str:
    """Return the file name of an output."""
    stem = job.id if index == 0 else f"{job.id}_{index}"
    return f"{stem}.{'jpg' if fmt == 'jpeg' else fmt}"


def _unlink(paths: Iterable[str]) -> None:
    for path in paths:
        try:
            Path(path).unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s: cannot be removed: %s", path, error.strerror)
