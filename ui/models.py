"""The models of the System tab: which are here, which is served, which are on their way."""

from __future__ import annotations

import html
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace

from engine import hub, remote
from engine.catalog import MODELS
from engine.downloads import Download, Downloads, Place, place, room, size
from engine.errors import NotFound, SgdiffError
from ui.desk import Desk
from ui.panel import seconds

HERE = ("bundled", "cached", "local")
PRESS_JS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-do]');
  if (button) { button.disabled = true; trigger('click', {do: button.dataset.do, of: button.dataset.of}); }
});
"""


@dataclass(slots=True)
class Row:
    """A model that the list shows."""

    name: str
    place: Place
    served: bool = False
    download: Download | None = None


class Models:
    """One per page: what is here is looked up by `look`, everything else is as it is now."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.downloads = Downloads(desk.environment)
        self.places: dict[str, Place] = {}
        self.over = 0  # downloads that had ended when the places were looked up
        self.failed: tuple[str, str] | None = None  # the model that could not be served, and why

    def look(self) -> None:
        """See which models are on this machine; asks no network."""
        queue, environment = self.desk.queue, self.desk.environment
        self.over = self._ended()
        sizes = remote.cached_bytes()
        names = {queue.served.model_path, queue.supervisor.first.model_path, *hub.bundled_names(), *sizes}
        known = {spec.id for spec in MODELS}
        config = replace(queue.served, component_paths={}, component_weights_paths={}, revision=None)
        found = {name: place(name, config, environment, sizes) for name in sorted(names)}
        self.places = {
            name: where
            for name, where in found.items()
            if where.state in HERE or name == queue.served.model_path or (name in known and where.state == "partial")
        }

    def _ended(self) -> int:
        return sum(entry.state == "done" for entry in self.downloads.all())

    def rows(self) -> list[Row]:
        """Return the models of the list, the served one first."""
        if self.over != self._ended():
            self.look()
        served = self.desk.queue.served.model_path
        coming = {entry.model: entry for entry in self.downloads.all() if entry.state != "done"}
        names = [name for name in self.places if name not in coming and name != served]
        absent = Place("absent")
        return [
            Row(name, self.places.get(name, absent), name == served, coming.get(name))
            for name in [served, *(name for name in coming if name != served), *names]
        ]

    def absent(self) -> list[str]:
        """Return the known models that are not here."""
        return [spec.id for spec in MODELS if spec.id not in self.places]

    # What can be done

    def use(self, name: str) -> None:
        """Serve another model of the list. Raises UsageError, ModelError, NotFound."""
        if name not in self.places:
            raise NotFound(f"no model '{name}' on this machine", param="model")
        self.failed = None

        def tell(future: Future[None]) -> None:
            error = future.exception()
            if isinstance(error, SgdiffError):
                self.failed = name, error.message

        self.desk.switch(name).add_done_callback(tell)

    def start(self, name: str) -> Download:
        """Download what is missing of a model. Raises UsageError, ModelError."""
        return self.downloads.start(name.strip(), self.desk.queue.served)

    def takes(self, name: str) -> str:
        """Say what a download brings. Raises UsageError, ModelError."""
        found = self.downloads.plan(name.strip(), self.desk.queue.served)
        if found.cached:
            return f"{found.name} is here already."
        cache, free = room()
        return f"{found.name}: {size(found.download_bytes)} to download. {size(free)} are free in {cache}."

    # What it looks like

    def view(self) -> str:
        """Return the list."""
        parts = [f'<ul class="queue models">{"".join(map(self._row, self.rows()))}</ul>']
        if self.failed is not None:
            name, why = self.failed
            words = html.escape(f"{name} could not be loaded: {why}")
            parts.insert(0, f'<div class="line bad" role="alert">{words}</div>')
        if not self.desk.options.model_switch:
            parts.append('<div class="line muted">This server keeps its model.</div>')
        return "".join(parts)

    def _row(self, row: Row) -> str:
        name = html.escape(row.name, quote=True)
        words = "".join(f'<span class="muted">{html.escape(entry)}</span>' for entry in self._words(row))
        bar = ""
        if row.download is not None and row.download.state == "running":
            bar = f'<div class="bar"><div style="width:{row.download.percent}%"></div></div>'
        wrong = ""
        if row.download is not None and row.download.error:
            wrong = f'<div class="wrong">{html.escape(row.download.error)}</div>'
        current = ' aria-current="true"' if row.served else ""
        return (
            f'<li{current}><span class="what" title="{name}">{name}</span>{words}{_button(row, self)}{bar}{wrong}</li>'
        )

    def _words(self, row: Row) -> Iterator[str]:
        if row.served:
            health = self.desk.queue.health
            yield {"ready": "in use", "unhealthy": "not working", "draining": "in use"}.get(health, health)
        if row.download is not None and row.download.state == "running":
            left = f", {seconds(row.download.eta_s)} left" if row.download.eta_s is not None else ""
            yield f"{row.download.percent} % of {size(row.download.total)}{left}"
        elif row.place.disk_bytes:
            part = "in part, " if row.place.state == "partial" else ""
            yield part + size(row.place.disk_bytes)


def _button(row: Row, models: Models) -> str:
    """Return what a row offers."""
    if row.download is not None:
        return "" if row.download.state == "running" else press("get", row.name, "Try again")
    if row.place.state == "partial":
        return press("get", row.name, "Go on")
    usable = row.place.state in HERE and models.desk.options.model_switch
    return press("use", row.name, "Use") if usable and not row.served else ""


def press(do: str, of: str, label: str, told: str = "") -> str:
    """Return a button of a list, see PRESS_JS."""
    name = html.escape(told or f"{label} {of}", quote=True)
    return (
        f'<button type="button" class="x" data-do="{do}" data-of="{html.escape(of, quote=True)}" '
        f'aria-label="{name}">{label}</button>'
    )
