"""Small pictures of finished outputs, as pages show many of them at once: made once, kept in a folder of their own."""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from contextlib import suppress
from pathlib import Path

from engine import clips, log, storage
from engine.errors import OutputError
from engine.jobs.delivery import Delivery
from engine.jobs.job import Job

logger = log.get(__name__)

SIDE = 384  # pixels of the longer one
MOST = 4000  # files, of some 20 KB each
KEPT = 3000  # of them when there are more
QUALITY = 80


class Thumbnails:
    """Thumbnails of a server's outputs. Safe in several threads; they go with the files of their job."""

    def __init__(self, delivery: Delivery, folder: Path, most: int = MOST, kept: int = KEPT) -> None:
        self.delivery, self.folder, self.most, self.kept = delivery, folder, most, kept
        self.lock = threading.Lock()  # one is made at a time: pages ask for dozens, and there is drawing to be done
        self.count: int | None = None  # of files; None until somebody has looked
        delivery.forgetting.append(self.forget)

    def find(self, job: Job, index: int) -> Path | None:
        """Return the thumbnail of an output if it is there already."""
        path = self._path(job.id, index)
        return path if not job.expired and path.is_file() else None

    def get(self, job: Job, index: int) -> Path | None:
        """Return the thumbnail of an output, made if need be; None when the output is gone or damaged.

        Raises OutputError when it cannot be written.
        """
        with self.lock:
            found = self.find(job, index)
            if found is not None or job.expired or not 0 <= index < len(job.artifacts):
                return found
            content = self._made(job, index)
            if content is None:
                return None
            path = self._path(job.id, index)
            with storage.atomic(path) as part:
                part.write_bytes(content)
            self._bound()
            made = job.artifacts[index]
            if made.location and not Path(made.location).exists():  # deleted meanwhile
                path.unlink(missing_ok=True)
                return None
        return path

    def of_picture(self, source: Path) -> Path | None:
        """Return a small copy of any picture, made if need be; None when there cannot be one."""
        try:
            told = source.stat()
            name = hashlib.sha256(f"{source} {told.st_mtime_ns} {told.st_size}".encode()).hexdigest()[:32]
            path = self.folder / f"{name}.webp"
            with self.lock:
                if not path.is_file():
                    content = _small(source)
                    with storage.atomic(path) as part:
                        part.write_bytes(content)
                    self._bound()
        except (OSError, OutputError) as error:
            logger.info("no thumbnail: %s", error)
            return None
        return path

    def forget(self, job_id: str) -> None:
        """Delete the thumbnails of a job."""
        for path in self.folder.glob(f"{job_id}_*.webp"):
            with suppress(OSError):  # the job goes all the same
                path.unlink()

    def _path(self, job_id: str, index: int) -> Path:
        return self.folder / f"{job_id}_{index}.webp"

    def _made(self, job: Job, index: int) -> bytes | None:
        made = job.artifacts[index]
        try:
            with self.delivery.local(made) as path:
                if made.media_type == "video/mp4":
                    return clips.thumbnail(path, made.width, made.height, made.frames, SIDE)
                return _small(path)
        except OutputError as error:
            logger.info("no thumbnail: %s", error.message)
            return None

    def _bound(self) -> None:
        """Delete the oldest when there are too many."""
        self.count = len(list(self.folder.glob("*.webp"))) if self.count is None else self.count + 1
        if self.count > self.most:
            dated = []
            for path in self.folder.glob("*.webp"):
                try:
                    dated.append((path.stat().st_mtime, path))
                except FileNotFoundError:
                    continue  # its job was deleted meanwhile
            for _, path in sorted(dated)[: -self.kept]:
                path.unlink(missing_ok=True)
            self.count = min(len(dated), self.kept)


def _small(path: Path) -> bytes:
    """Return a picture as a small WebP file, of an animation the first frame. Raises OutputError."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("PNG", "JPEG", "WEBP", "GIF")) as image:
                image.draft("RGB", (SIDE, SIDE))
                small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise OutputError(f"{path.name}: is gone or damaged") from error
    small.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=QUALITY)
    return stream.getvalue()
