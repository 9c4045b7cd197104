"""A stand-in for a repository of the hub: its files lie in a hub cache as if they had been downloaded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import filter_repo_objects

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Repository:
    """One repository; any other is not found. `asked` notes the files of each download."""

    def __init__(self, repo: str, cache: Path, patch: pytest.MonkeyPatch) -> None:
        self.repo, self.asked = repo, list[list[str]]()
        self.folder = cache / f"models--{repo.replace('/', '--')}"
        self.snapshot = self.folder / "snapshots" / COMMIT
        (self.folder / "refs").mkdir(parents=True)
        (self.folder / "refs" / "main").write_text(COMMIT)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(huggingface_hub, "snapshot_download", self.download)

    def add(self, name: str, file: Path) -> Path:
        """Take a file in under a name; return where it lies."""
        blob, place = self.folder / "blobs" / name.replace("/", "-"), self.snapshot / name
        for path in (blob, place):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(file.read_bytes())
        place.symlink_to(blob)
        return place

    def download(self, repo: str, *, dry_run: bool = False, **given: Any) -> Any:
        """Stand for the hub client's function of this kind."""
        if repo != self.repo:
            raise huggingface_hub.errors.LocalEntryNotFoundError(f"{repo} is not here")
        names = [path.relative_to(self.snapshot).as_posix() for path in self.snapshot.rglob("*") if path.is_file()]
        asked = given["allow_patterns"], given["ignore_patterns"]
        wanted = sorted(filter_repo_objects(names, allow_patterns=asked[0] or None, ignore_patterns=asked[1] or None))
        if dry_run:
            return [SimpleNamespace(filename=name) for name in wanted]
        self.asked.append(wanted)
        return str(self.snapshot)
