"""sgdiff-app: image and video diffusion models behind a command line, an HTTP API, a web UI and these names."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.config import EngineConfig
    from engine.engine import Engine
    from engine.errors import SgdiffError
    from engine.types import Artifact, LoraRef, Output, Progress, Request

__version__ = "0.1.0"
__all__ = ["Artifact", "Engine", "EngineConfig", "LoraRef", "Output", "Progress", "Request", "SgdiffError"]

_HOMES = {"Engine": "engine.engine", "EngineConfig": "engine.config", "SgdiffError": "engine.errors"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, "engine.types")), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
