"""The LoRA files that this machine has, and what a page shows of each: title, trigger words, notes, a preview."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import catalog, hub, log
from engine.catalog import ModelSpec
from engine.errors import ModelError, UsageError
from engine.lora import files
from engine.lora.facts import facts
from engine.lora.header import printable

logger = log.get(__name__)

TITLES = ("modelspec.title", "name", "ss_output_name")
NOTES = ("notes", "modelspec.description", "ss_training_comment")
PREVIEWS = (".png", ".jpg", ".jpeg", ".webp", ".preview.png")  # beside a file, under its name
LONGEST = 500  # characters of trigger words or notes that are shown
MOST = 2000  # files of one folder
NOTED = "elsewhere.txt"  # in a folder: paths of LoRA files that lie elsewhere
# What a file looks like -> families whose networks have such modules.
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "FLUX.1": ("flux",),
    "FLUX.2": ("flux2",),
    "HunyuanVideo": ("hunyuan_video",),
    "Qwen-Image": ("qwen_image", "qwen_image_edit"),
    "Stable Diffusion 3": ("sd3",),
    "Stable Diffusion XL or 1.5": (),
    "Z-Image": ("z_image",),
    "GLM-Image": ("glm_image",),
    "Wan": ("wan",),
    "FLUX.1, Qwen-Image or Stable Diffusion 3": ("flux", "qwen_image", "qwen_image_edit", "sd3"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A LoRA file on this machine: what to give to --lora-path, and where it comes from."""

    reference: str
    weight_name: str | None  # of a repository
    origin: str  # bundled, cached (of the hub) or folder
    path: Path

    @property
    def named(self) -> dict[str, str]:
        """Return what a plain reference names the file by."""
        return {"path": self.reference, **({"weight_name": self.weight_name} if self.weight_name else {})}


@dataclass(frozen=True, slots=True)
class Card:
    """What is shown of a LoRA file. Its own words are printable and of bounded length."""

    entry: Entry
    title: str
    trigger_words: tuple[str, ...]
    notes: str
    preview: Path | None
    layout: str  # diffusers, kohya, ...
    kind: str  # LoRA, or another kind of adapter, which is not supported
    ranks: tuple[int, ...]
    size: int  # bytes
    base_model: str | None  # as the file says
    looks_like: str | None  # by the names of its tensors

    def fits(self, spec: ModelSpec) -> bool | None:
        """Say whether it was made for a model; None when that cannot be told without trying."""
        base = catalog.by_name(self.base_model) if self.base_model else None
        if base is not None and base.id == spec.id:
            return True
        own = hub.bundled_names()  # networks of sizes that no other model has
        if base is not None and (base.id in own or spec.id in own):
            return False
        families = FAMILIES.get(self.looks_like or "")
        if families is None or spec.family == "passthrough":
            return None
        return None if spec.id in own and spec.family in families else spec.family in families

    def found_by(self, search: str) -> bool:
        """Say whether all words of a search are in what is shown, in whatever case."""
        shown = (self.title, self.entry.reference, self.entry.path.name, *self.trigger_words, self.notes)
        text = "\n".join((*shown, self.base_model or "", self.looks_like or "")).casefold()
        return all(word in text for word in search.casefold().split())


def entries(folders: Iterable[Path] = ()) -> Iterator[Entry]:
    """Yield the LoRA files that ship with the program, those in the hub cache, and those in or below folders."""
    for name, path in sorted(hub.bundled_loras().items()):
        yield Entry(name, None, "bundled", path)
    for repo, name, path in files.cached():
        yield Entry(repo, name, "cached", path)
    for folder in folders:
        for path in sorted(folder.rglob(f"*{files.SUFFIX}"))[:MOST]:
            if path.is_file() and files.is_lora(path):
                yield Entry(str(path), None, "folder", path)
        for path in _noted(folder):
            if path.is_file() and files.is_lora(path):
                yield Entry(str(path), None, "folder", path)


def keep(source: Path, folder: Path) -> Path:
    """Copy a LoRA file into a folder, once it is clear that it is one; return where it is.

    One of the same name and size stays as it is; one of another size gets a number. Raises ModelError or UsageError
    for what is no LoRA, OutputError when it cannot be written.
    """
    from engine import storage  # it imports numpy, which listing and inspecting do not need

    files.locate(str(source))
    size, numbers = source.stat().st_size, itertools.count(2)
    place = folder / source.name
    while place.exists() and place.stat().st_size != size:
        place = folder / f"{source.stem}-{next(numbers)}{source.suffix}"
    if not place.exists():
        with storage.atomic(place) as part:
            shutil.copyfile(source, part)
    return place


def note(path: Path, folder: Path) -> None:
    """Have a LoRA file that is elsewhere among those of a folder. Raises OutputError."""
    from engine import storage  # it imports numpy, which listing and inspecting do not need

    noted = _noted(folder)
    if path not in noted:
        with storage.atomic(folder / NOTED) as part:
            part.write_text("".join(f"{entry}\n" for entry in (*noted, path)), encoding="utf-8")


def _noted(folder: Path) -> list[Path]:
    try:
        lines = (folder / NOTED).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):  # there is no such list
        return []
    return [Path(line) for line in lines[:MOST] if line]


def cards(folders: Iterable[Path] = ()) -> list[Card]:
    """Return what is shown of every LoRA file; one that cannot be read is left out, and the log says so."""
    found = list[Card]()
    for entry in entries(folders):
        try:
            found.append(card(entry))
        except (ModelError, UsageError) as error:
            logger.warning("%s", error.message)
    return found


def card(entry: Entry) -> Card:
    """Return what is shown of a LoRA file, of which the header is read. Raises ModelError or UsageError."""
    told = facts(entry.path, digest=False)
    metadata: Mapping[str, str] = told["metadata"]
    return Card(
        entry=entry,
        title=_said(metadata, TITLES) or entry.path.stem,
        trigger_words=tuple(printable(word, LONGEST) for word in told["trigger_words"]),
        notes=_said(metadata, NOTES),
        preview=preview(entry.path),
        layout=told["layout"],
        kind=told["kind"],
        ranks=tuple(told["ranks"]),
        size=told["bytes"],
        base_model=printable(told["base_model"]) if told["base_model"] else None,
        looks_like=told["looks_like"],
    )


def preview(path: Path) -> Path | None:
    """Return the picture beside a LoRA file that shows what it does."""
    return next((found for suffix in PREVIEWS if (found := path.with_suffix(suffix)).is_file()), None)


def _said(metadata: Mapping[str, Any], names: Sequence[str]) -> str:
    text = next((metadata[name] for name in names if metadata.get(name)), "")
    return printable(" ".join(text.split()), LONGEST)
