"""model_index.json to components: classes, precisions, overrides; safetensors only."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine import dummy, log
from engine.catalog import ModelSpec
from engine.config import EngineConfig
from engine.errors import ModelError
from engine.hub import Source, component_keys
from engine.passes import precision

logger = log.get(__name__)

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def load(
    source: Source,
    spec: ModelSpec,
    config: EngineConfig,
    device: torch.device | None = None,
    at_home: Collection[str] = (),
) -> dict[str, Any]:
    """Return every component of a model folder, in the precision that the plan gives it, on `device` (else the CPU).

    Those named in `at_home` stay on the CPU. Raises ModelError for a component that cannot be loaded.
    """
    log.quiet_libraries()
    parts = _parts(source, spec, config, device or torch.device("cpu"), at_home)
    logger.info("loading %s%s", spec.id, " with random weights" if config.load_format == "dummy" else "")
    stand_ins = _stand_ins(parts) if config.load_format == "dummy" else {}
    components = dict(stand_ins)
    for part in parts:
        if part.name not in stand_ins:
            logger.debug("loading %s (%s)", part.name, part.cls.__name__)
            components[part.name] = _load(part, config, stand_ins)
    return {part.name: components[part.name] for part in parts}


def sizes(source: Source) -> dict[str, int]:
    """Return the bytes of the weights of each component, as its files say: 0 for one without."""
    folders = {name: source.overrides.get(name, source.folder / name) for name in component_keys(source.index)}
    return {name: sum(file.stat().st_size for file in folder.glob("*.safetensors")) for name, folder in folders.items()}


@dataclass(frozen=True, slots=True)
class Part:
    """A component that is to be loaded: what it is, from where, and to where."""

    name: str
    cls: Any
    folder: Path
    dtype: torch.dtype | None  # None: as it is
    device: torch.device  # the one that computes
    place: torch.device  # where the weights go

    @property
    def is_module(self) -> bool:
        return issubclass(self.cls, torch.nn.Module)


def _parts(
    source: Source, spec: ModelSpec, config: EngineConfig, device: torch.device, at_home: Collection[str]
) -> list[Part]:
    names = component_keys(source.index)
    dtypes = precision.plan(names, config, spec)
    parts = []
    for name in names:
        library, class_name = source.index[name]
        # What is put in its place may be of another class.
        own = source.configs[name].get("_class_name") if name in source.overrides else spec.classes.get(name)
        cls = _class(name, library, class_name, own)
        if name.startswith(precision.DENOISERS):
            _leave_out(cls, spec.unread)
        folder = source.overrides.get(name, source.folder / name)
        place = torch.device("cpu") if name in at_home else device
        parts.append(Part(name, cls, folder, DTYPES.get(dtypes.get(name, "")), device, place))
    return parts


def _leave_out(cls: Any, patterns: Sequence[str]) -> None:
    """Let a diffusers class drop weights that it has no place for without a warning."""
    known = getattr(cls, "_keys_to_ignore_on_load_unexpected", None) or []
    if set(patterns) - set(known):
        cls._keys_to_ignore_on_load_unexpected = [*known, *patterns]


def _stand_ins(parts: Sequence[Part]) -> dict[str, Any]:
    """Return a tokenizer for each component of a folder of configs that is none itself."""
    stand_ins = {}
    for part in parts:
        if not part.is_module and not part.folder.is_dir():
            stand_ins[part.name] = dummy.stand_in(part.cls.__name__)
            if stand_ins[part.name] is None:
                message = (
                    f"{part.name}: there is no stand-in for {part.cls.__name__}; the folder {part.folder} is missing"
                )
                raise ModelError(message, code="model_load_failed")
    return stand_ins


def _load(part: Part, config: EngineConfig, stand_ins: Mapping[str, Any]) -> Any:
    try:
        if part.is_module and config.load_format == "dummy":
            component = _random(part, stand_ins)
        else:
            component = part.cls.from_pretrained(part.folder, **_arguments(part, config))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        message = f"{part.name}: {part.cls.__name__} cannot be loaded: {reason}"
        raise ModelError(message, code="model_load_failed") from error
    if isinstance(component, torch.nn.Module):
        component.requires_grad_(False).eval()
        if part.name == "vae" and config.vae_config.load_encoder is False:
            component.encoder = None  # type: ignore[assignment]
    return component


def _arguments(part: Part, config: EngineConfig) -> dict[str, Any]:
    arguments: dict[str, Any] = {"local_files_only": True}
    if part.is_module:
        arguments |= {"dtype": part.dtype, "use_safetensors": None if config.trust_remote_code else True}
    return arguments


def _random(part: Part, stand_ins: Mapping[str, Any]) -> torch.nn.Module:
    settings = dummy.config_of(part.cls, part.folder)
    tokenizer = stand_ins.get(dummy.tokenizer_of(part.name))
    if tokenizer is not None:
        dummy.match(settings, tokenizer)
    assert part.dtype is not None
    module = dummy.skeleton(part.cls, settings, part.dtype)
    dummy.fill(module, part.dtype, part.place, part.device)
    return module


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
