"""model_index.json to components: classes, precisions, overrides; safetensors only."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

from engine import log
from engine.catalog import ModelSpec
from engine.config import EngineConfig
from engine.errors import ModelError
from engine.hub import Source, component_keys
from engine.passes import precision

logger = log.get(__name__)


def load(source: Source, spec: ModelSpec, config: EngineConfig) -> dict[str, Any]:
    """Return every component of a model folder, on the CPU, in the precision that the plan gives it.

    Raises ModelError for a component that cannot be loaded.
    """
    log.quiet_libraries()
    names = component_keys(source.index)
    dtypes = precision.plan(names, config, spec)
    logger.info("loading %s", spec.id)
    components: dict[str, Any] = {}
    for name in names:
        library, class_name = source.index[name]
        folder = source.overrides.get(name, source.folder / name)
        # What is put in its place may be of another class.
        own = source.configs[name].get("_class_name") if name in source.overrides else spec.classes.get(name)
        cls = _class(name, library, class_name, own)
        components[name] = _load(name, folder, cls, dtypes.get(name), config)
    return components


def _load(name: str, folder: Path, cls: Any, dtype: str | None, config: EngineConfig) -> Any:
    import torch

    arguments: dict[str, Any] = {"local_files_only": True}
    if dtype is not None and issubclass(cls, torch.nn.Module):
        types = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
        arguments |= {"dtype": types[dtype], "use_safetensors": None if config.trust_remote_code else True}
    logger.debug("loading %s (%s)", name, cls.__name__)
    try:
        component = cls.from_pretrained(folder, **arguments)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{name}: {cls.__name__} cannot be loaded: {reason}", code="model_load_failed") from error
    if isinstance(component, torch.nn.Module):
        component.requires_grad_(False).eval()
        if name == "vae" and config.vae_config.load_encoder is False:
            component.encoder = None  # type: ignore[assignment]
    return component


def _class(name: str, library: str, class_name: str, own: str | None) -> Any:
    """Return the class of a component: `own`, which its config or the catalog names, before that of the model index."""
    import diffusers

    for candidate in filter(None, (own, class_name)):
        for module in (library, "diffusers", "transformers", f"diffusers.pipelines.{library}"):
            if module.split(".")[0] not in ("diffusers", "transformers"):
                continue
            try:
                found = getattr(importlib.import_module(module), candidate, None)
            except ModuleNotFoundError:
                continue
            if inspect.isclass(found):
                return found
    raise ModelError(
        f"{name}: class {class_name} of '{library}' is in neither diffusers {diffusers.__version__} nor transformers",
        code="model_not_supported",
    )
