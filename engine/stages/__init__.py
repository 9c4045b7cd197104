"""The stages of a run, shared by all families: encode, schedule, latents, denoise, decode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.types import State


@dataclass(frozen=True, slots=True)
class Stage:
    """One thing done to a State, and the components that it needs on the device."""

    name: str
    uses: tuple[str, ...]
    run: Callable[[State], None]

    def __call__(self, state: State) -> None:
        self.run(state)
