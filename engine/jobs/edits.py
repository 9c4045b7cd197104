"""Edited clips of finished jobs: kept beside the outputs, listed with their job, deleted with it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engine import editing
from engine.errors import NotFound, UsageError, shown
from engine.jobs.job import Job

if TYPE_CHECKING:
    from engine.jobs.queue import JobQueue

NAME = re.compile(r".*_edit(\d+)\.(?:mp4|gif)")
Which = int | str  # the number of an output, or the name of an edited file


def edited(job: Job) -> tuple[Path, ...]:
    """Return the edited clips of a job, the oldest first."""
    return tuple(Path(path) for path in job.files if NAME.fullmatch(Path(path).name))


def trim(queue: JobQueue, job_id: str, start_s: float, end_s: float | None = None, which: Which = 0) -> Path:
    """Keep the part of a clip from one second to another. Raises NotFound, UsageError, OutputError."""
    return _edited(queue, [(job_id, which)], "mp4", lambda paths, to: editing.trim(paths[0], to, start_s, end_s))


def join(queue: JobQueue, clips: Sequence[tuple[str, Which]], crossfade_s: float = 0.0) -> Path:
    """Keep clips of several jobs, one after another, with the first job. Raises NotFound, UsageError, OutputError."""
    return _edited(queue, clips, "mp4", lambda paths, to: editing.join(paths, to, crossfade_s))


def to_gif(
    queue: JobQueue,
    job_id: str,
    fps: int = editing.GIF_FPS,
    width: int = editing.GIF_WIDTH,
    which: Which = 0,
) -> Path:
    """Keep a clip as a GIF file too. Raises NotFound, UsageError, OutputError."""
    return _edited(queue, [(job_id, which)], "gif", lambda paths, to: editing.to_gif(paths[0], to, fps, width))


@contextmanager
def source(queue: JobQueue, job_id: str, which: Which = 0) -> Iterator[Path]:
    """Give the file of a clip, fetched for a while if it lies in cloud storage alone. Raises NotFound, OutputError."""
    job = queue.get(job_id)
    if isinstance(which, str):
        path = next((path for path in edited(job) if path.name == which), None)
        if path is None or not path.is_file():
            raise NotFound(f"job {job_id} has no edited clip '{shown(which)}'")
        yield path
        return
    if job.expired or not 0 <= which < len(job.artifacts):
        raise NotFound(f"job {job_id} has no output {which}")
    if job.artifacts[which].media_type != "video/mp4":
        raise UsageError(f"job {job_id}: is no video in an MP4 file, but {job.artifacts[which].media_type}")
    with queue.delivery.local(job.artifacts[which]) as path:
        yield path


def _edited(
    queue: JobQueue,
    clips: Sequence[tuple[str, Which]],
    suffix: str,
    edit: Callable[[list[Path], Path], object],
) -> Path:
    """Make a file and keep it with the first job."""
    if not clips:
        raise UsageError("choose a clip")
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        paths = [stack.enter_context(source(queue, *clip)) for clip in clips]
        target = Path(place) / f"edited.{suffix}"
        edit(paths, target)
        content = target.read_bytes()
    with queue.lock:  # the job may have been deleted meanwhile, or may have got another file
        job = queue.get(clips[0][0])
        numbers = [int(found[1]) for path in job.files if (found := NAME.fullmatch(Path(path).name))]
        path = queue.delivery.add(job, f"{job.id}_edit{max(numbers, default=0) + 1}.{suffix}", content)
        queue.keep(job)
    return path
