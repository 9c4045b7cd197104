"""What the outside may say to a run (cancel) and hear from it (progress, previews)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.errors import Cancelled
from engine.types import Progress

Listener = Callable[[Progress], None]


class Control:
    """The line to a request. `cancel` may be called from any thread or signal handler.

    `report` hears every Progress in the thread that runs the engine; with `preview` each one carries a small JPEG.
    """

    def __init__(self, report: Listener | None = None, preview: bool = False) -> None:
        self.listeners = [report] if report is not None else []
        self.preview = preview
        self.cancelled = False

    def cancel(self) -> None:
        """Ask the run to stop; it does so after the step, stage or VAE tile in hand."""
        self.cancelled = True

    def check(self) -> None:
        """Raise Cancelled when the run was cancelled."""
        if self.cancelled:
            raise Cancelled("cancelled")

    def tell(self, progress: Progress) -> None:
        """Hand a Progress to whoever listens."""
        for listener in tuple(self.listeners):  # another thread may come or go meanwhile
            listener(progress)

    @contextmanager
    def heard_by(self, listener: Listener) -> Iterator[None]:
        """Add a listener for a while."""
        self.listeners.append(listener)
        try:
            yield
        finally:
            self.listeners.remove(listener)
