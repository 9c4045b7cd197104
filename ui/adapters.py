"""Adapters: what the page asks about LoRA: which are known, adding one, and those that the server draws with."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from engine import hub
from engine.catalog import ModelSpec
from engine.env import Environment
from engine.errors import InputError, ModelError, SgdiffError, UsageError, shown
from engine.jobs import JobQueue
from engine.lora import files, refs, shelf
from engine.lora.shelf import Card, Entry
from engine.types import LoraRef, Request

PATIENCE_S = 60  # a call waits for the step that is being drawn
KIND = "LoRA"  # of the files that can be used


class Adapters:
    """One per desk. Safe in several threads."""

    def __init__(
        self, queue: JobQueue, environment: Environment, folder: Path, allowed: tuple[Path, ...] | None
    ) -> None:
        self.queue, self.environment, self.folder, self.allowed = queue, environment, folder, allowed
        self.fixed = False  # nothing can be added, and those of the server stay as they are
        self.offered: tuple[str, ...] | None = None  # all that there is to choose from; None: any
        self.lock = threading.Lock()
        self.known: list[Card] | None = None  # what was found when somebody looked last

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where adapters of this machine are looked for."""
        return (self.folder, *(self.allowed or ()))

    def cards(self, fresh: bool = False) -> list[Card]:
        """Return what is known of every adapter here; `fresh` looks again, which takes a moment."""
        with self.lock:
            if fresh or self.known is None:
                cards = shelf.cards([] if self.fixed else self.folders)
                cards += self._started({card.entry.path for card in cards})
                self.known = [card for card in cards if self.offered is None or card.entry.reference in self.offered]
            return list(self.known)

    def _started(self, known: set[Path]) -> list[Card]:
        """Return the cards of files that the server was started with, and that are nowhere else."""
        paths = [Path(ref.path).expanduser() for ref in self.queue.loras if ref.path]
        own = [path for path in paths if path.is_file() and path not in known and path.resolve() not in known]
        return [shelf.card(Entry(str(path), None, "folder", path)) for path in own if files.is_lora(path)]

    def find(self, path: str | None, weight_name: str | None = None) -> Card | None:
        """Return the card of an adapter that a request names: by its path, else by the name of its file."""
        if not path:
            return None
        path, weight_name = files.parted(path, weight_name)
        cards = [card for card in self.cards() if weight_name in (None, card.entry.weight_name)]
        same = (card for card in cards if card.entry.reference == path.removesuffix(files.SUFFIX))
        exact = (card for card in cards if path in (card.entry.reference, str(card.entry.path)))
        named = (card for card in cards if "/" not in path and card.entry.path.name == path)
        return next(exact, None) or next(same, None) or next(named, None)

    def here(self, loras: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
        """Return plain references of a recipe: one that names a file alone means the one here that is called so."""
        if loras is None:
            return None
        return [{**entry, **self._here(entry)} for entry in loras]

    def _here(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        path = str(entry.get("path") or "")
        if not path.endswith(files.SUFFIX) or Path(path).name != path:
            return {}
        card = self.find(path, entry.get("weight_name"))
        return {} if card is None else card.entry.named

    def check(self, request: Request) -> None:
        """Raise UsageError for an adapter from a folder that no client may load from."""
        for ref in request.loras or ():
            if ref.path is not None:
                self._check(ref.path, ref.weight_name)

    def _check(self, path: str, weight_name: str | None) -> None:
        if self.allowed is not None and not files.is_allowed(path, weight_name, self.folders):
            message = f"lora_path: '{shown(path)}' is not in a folder from which adapters may be loaded"
            raise UsageError(f"{message} (--lora-allowed-dirs)", code="invalid_lora_path", param="lora_path")

    # Adding

    def add(self, reference: str, weight_name: str | None) -> Card:
        """Look an adapter up by path, name or hub id, fetch it if need be, and know it from now on.

        Raises ModelError or UsageError for what is no adapter, or none that may be used.
        """
        reference, weight_name = files.parted(reference.strip(), weight_name)
        if not reference:
            raise UsageError("lora_path: say which LoRA, as a path or a hub id such as owner/name", param="lora_path")
        self._require_open()
        self._check(reference, weight_name)
        is_remote = files.is_remote(reference)
        path = files.locate(reference, weight_name, hub.access_of(self.queue.served, self.environment))
        if not is_remote and Path(reference).expanduser().exists():
            return self._added(path.resolve())
        return self._known(reference, path)

    def upload(self, path: Path) -> Card:
        """Keep a file that a browser sent, once it is clear that it is an adapter. Raises as `add` does."""
        self._require_open()
        try:
            self._usable(shelf.card(Entry(path.name, None, "folder", path)))
            kept = shelf.keep(path, self.folder)
        except (ModelError, UsageError) as error:  # people know the name of their file, not where it lies meanwhile
            message = error.message.replace(str(path), path.name)
            raise InputError(message, code=error.code, param=error.param) from error
        return self._added(kept.resolve())

    def _added(self, path: Path) -> Card:
        card = self._usable(shelf.card(Entry(str(path), None, "folder", path)))
        if not any(path.is_relative_to(folder.resolve()) for folder in self.folders):
            shelf.note(path, self.folder)
        return self._known(str(path), path) or card

    def _known(self, reference: str, path: Path) -> Card:
        cards = self.cards(fresh=True)
        named = [card for card in cards if card.entry.reference == reference]
        found = next((card for card in named if card.entry.path == path), named[0] if named else None)
        return found or self._usable(shelf.card(Entry(reference, None, "cached", path)))

    def _usable(self, card: Card) -> Card:
        if card.kind != KIND:
            message = f"{card.entry.path.name}: is a {card.kind} adapter; only LoRA can be used"
            raise UsageError(message, code="lora_incompatible", param="lora_path")
        return card

    def _require_open(self) -> None:
        if self.fixed:
            raise UsageError("the adapters of this server are fixed", param="lora_path")

    # The server's

    @property
    def server(self) -> list[dict[str, Any]]:
        """Return the adapters of requests that name none."""
        named = ({"weight_name": ref.weight_name} if ref.weight_name else {} for ref in self.queue.loras)
        plain = ({"path": ref.path, "name": ref.name, "scale": ref.scale} for ref in self.queue.loras)
        return [{**entry, **more} for entry, more in zip(plain, named, strict=True)]

    def listing(self) -> dict[str, Any]:
        """Return what the worker holds, and what is in effect on which component. Raises SgdiffError."""
        found: dict[str, Any] = _answer(self.queue.call("list_loras"))
        return found

    def apply(self, wanted: Sequence[LoraRef]) -> list[str]:
        """Have all requests that name no adapters drawn with these; return warnings. Raises SgdiffError."""
        self._require_open()
        if not wanted:
            raise UsageError("loras: choose at least one first", param="loras")
        for ref in wanted:
            if ref.path is not None:
                self._check(ref.path, ref.weight_name)
        columns: Mapping[str, list[Any]] = {
            "lora_nickname": [nickname(ref.name, ref.path) for ref in wanted],
            "lora_path": [ref.path for ref in wanted],
            "target": [ref.target for ref in wanted],
            "strength": [ref.scale for ref in wanted],
            "weight_name": [ref.weight_name for ref in wanted],
            "lora_alpha": [ref.alpha for ref in wanted],
        }
        return list(_answer(self.queue.call("set_lora", **columns)) or ())

    def unmerge(self) -> None:
        """Have requests that name no adapters drawn without any. Raises SgdiffError."""
        self._require_open()
        _answer(self.queue.call("unmerge_lora", target=refs.ALL))


def nickname(name: str | None, path: str | None) -> str:
    """Return a short name of an adapter: its own, else that of its file."""
    return name or Path(path or "").name.removesuffix(files.SUFFIX)[-refs.LONGEST :]


def lacking(card: Card, spec: ModelSpec | None) -> str:
    """Say why an adapter cannot be used with a model; empty when it can, or nobody knows without trying."""
    if card.kind != KIND:
        return f"{card.kind} adapters are not supported."
    if spec is None or card.fits(spec) is not False:
        return ""
    made, here = card.base_model or card.looks_like, spec.id.rpartition("/")[2]
    return f"Made for {made}, not for {here}." if made else f"Not made for {here}."


def _answer(call: Future[dict[str, Any]]) -> Any:
    try:
        return call.result(PATIENCE_S)["result"]
    except TimeoutError as error:
        raise SgdiffError("the server is busy; it does this as soon as it can") from error
