"""The files of several jobs in one ZIP file."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from engine import storage, strip
from engine.errors import NotFound, OutputError
from engine.jobs.delivery import Delivery
from engine.jobs.edits import edited
from engine.jobs.job import Job
from engine.types import Artifact

PROMPT = 40  # characters of a prompt in a name


def write(jobs: Iterable[Job], delivery: Delivery, path: Path, *, plain: bool = False) -> int:
    """Write the outputs of jobs to a ZIP file; return how many. `plain` leaves recipes and other texts out of them.

    What is gone meanwhile is passed over. Raises NotFound when nothing is left, and OutputError.
    """
    count = 0
    with storage.atomic(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:  # files are packed
        for job in jobs:
            for name, artifact in _files(job):
                if not job.expired and _add(archive, name, artifact, delivery, plain):
                    count += 1
        if not count:
            raise NotFound("none of these jobs has files any more")
    return count


def _add(archive: zipfile.ZipFile, name: str, artifact: Artifact, delivery: Delivery, plain: bool) -> bool:
    """Add an output; return False when it is gone. A clip may be long: it is not read as a whole if need not be."""
    if artifact.location and not plain:
        try:
            with Path(artifact.location).open("rb") as file, archive.open(name, "w") as packed:
                shutil.copyfileobj(file, packed)
        except FileNotFoundError:
            return False
        return True
    try:
        data = delivery.read(artifact)
    except OutputError:
        return False
    archive.writestr(name, strip.stripped(data, name) if plain else data)
    return True


def _files(job: Job) -> Iterator[tuple[str, Artifact]]:
    """Yield outputs and edited clips: words of the prompt and the id, by which no two are the same, and the file."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", (job.request.prompt or "")[:PROMPT]).strip("-").lower()
    start = f"{words}-" if words else ""
    for index, artifact in enumerate(job.artifacts):
        number, suffix = f"_{index}" if index else "", Path(artifact.location or artifact.key or "").suffix
        yield f"{start}{job.id}{number}{suffix}", artifact
    for path in edited(job):
        yield f"{start}{path.name}", replace(job.artifacts[0], location=str(path), key=None)
