"""model_index.json to components: classes, precisions, overrides; safetensors only."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from engine import dummy, hub, log, weights
from engine.catalog import ModelSpec
from engine.config import EngineConfig
from engine.errors import ModelError, UsageError, listed
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
    if device is not None and device.type == "cuda" and config.load_format == "auto":
        there = [part for part in parts if part.is_module and part.place == device]
        weights.reserve(sum(_told(part, _size, part, config) for part in there), device)
    with ThreadPoolExecutor(weights.READERS) as pool:
        # Both libraries set the default dtype of the process while they build a module, so that only one thread builds;
        # meanwhile the others read.
        begun = {part.name: _begin(part, config, pool) for part in parts if _is_direct(part, config)}
        for part in parts:
            if part.name not in {**stand_ins, **begun}:
                components[part.name] = _told(part, _whole, part, config, stand_ins)
        for part in parts:
            if part.name in begun:
                components[part.name] = _told(part, begun[part.name])
    return {part.name: _ready(components[part.name], part.name, config) for part in parts}


def sizes(source: Source, spec: ModelSpec, config: EngineConfig) -> dict[str, int]:
    """Return the bytes that each component with weights will take, from its files (or its config) alone."""
    parts = _parts(source, spec, config, torch.device("cpu"), ())
    return {part.name: _told(part, _size, part, config) for part in parts if part.is_module}


def empty(source: Source, spec: ModelSpec, config: EngineConfig, name: str) -> torch.nn.Module:
    """Return a component without weights. Raises ModelError for one that has no config."""
    (part,) = (part for part in _parts(source, spec, config, torch.device("cpu"), ()) if part.name == name)
    settings = _told(part, weights.config_of, part.cls, part.folder)
    return weights.skeleton(part.cls, settings, part.dtype or torch.float32)


def _size(part: Part, config: EngineConfig) -> int:
    assert part.dtype is not None
    if config.load_format == "dummy" or part.weights is not None:
        module = weights.skeleton(part.cls, weights.config_of(part.cls, part.folder), part.dtype)
        return sum(parameter.numel() for parameter in module.parameters()) * part.dtype.itemsize
    tensors = weights.stored(part.folder) if part.folder.is_dir() else None
    if tensors is None:
        files = part.folder.iterdir() if part.folder.is_dir() else (part.folder,)
        return sum(path.stat().st_size for path in files)
    return sum(math.prod(tensor.shape) for tensor in tensors.values()) * part.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Part:
    """A component that is to be loaded: what it is, from where, and to where."""

    name: str
    cls: Any
    folder: Path
    dtype: torch.dtype | None  # None: as it is
    device: torch.device  # the one that computes
    place: torch.device  # where the weights go
    weights: Path | None = None  # where they come from, if not from the folder
    unread: tuple[str, ...] = ()  # patterns of weights that it has no place for

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
        cls = _class_of(name, source, spec)
        unread = spec.unread if name.startswith(precision.DENOISERS) else ()
        folder, alone = source.overrides.get(name, source.folder / name), source.weights.get(name)
        if folder.is_file():  # in its place are weights alone
            folder, alone = source.folder / name, alone or folder
        place = torch.device("cpu") if name in at_home else device
        if name == "vae" and precision.halves(config, spec):
            dtypes["vae"] = "fp32"  # each half is cast down from it
        parts.append(Part(name, cls, folder, DTYPES.get(dtypes.get(name, "")), device, place, alone, unread))
    bare = [part for part in parts if part.weights is not None and not part.is_module]
    if bare:
        name, having = bare[0].name, listed(part.name for part in parts if part.is_module)
        if name not in source.weights:
            message = f"{hub.flag(name, 'component_paths')}: {bare[0].weights}: must be a folder"
            raise UsageError(message, param="component_paths")
        message = (
            f"{hub.flag(name, 'component_weights_paths')}: '{name}' has no weights; components that have: {having}"
        )
        raise UsageError(message, param="component_weights_paths")
    return parts


def _class_of(name: str, source: Source, spec: ModelSpec) -> Any:
    """Return the class of a component. Raises UsageError for one in its place that the model cannot use."""
    library, class_name = source.index[name]
    own, settings = _class(name, library, class_name, spec.classes.get(name)), source.configs[name]
    given = name in source.overrides and source.overrides[name].is_dir()
    foreign = _foreign(own, settings)
    if foreign is None and given and "_class_name" in settings:
        cls = _class(name, library, str(settings["_class_name"]), None)
        if _fits(own, cls, settings, spec):
            return cls
        foreign = cls.__name__
    if foreign is None:
        return own
    if given:
        flag = hub.flag(name, "component_paths")
        message = f"{flag}: {source.overrides[name]} holds {foreign}, but {spec.id} uses {own.__name__}"
        raise UsageError(message, param="component_paths")
    message = f"{name}: its config is that of {foreign}, but the model uses {own.__name__}"
    raise ModelError(message, code="model_load_failed")


def _foreign(cls: Any, settings: Mapping[str, Any]) -> str | None:
    """Return whose a config is that cannot be of `cls`, by the name that transformers gives to kinds of models."""
    kind, named = settings.get("model_type"), settings.get("architectures")
    if kind is None or not issubclass(cls, torch.nn.Module):
        return None
    names = named if isinstance(named, list) else []
    if not weights.is_diffusers(cls):
        from transformers import CONFIG_MAPPING

        own = cls.config_class
        # `cls` may be a part of the whole that the config describes, as of CLIP.
        parts = getattr(CONFIG_MAPPING[kind], "sub_configs", {}) if kind in list(CONFIG_MAPPING) else {}
        if kind == own.model_type or cls.__name__ in names or own in parts.values():
            return None
    return str(names[0] if names else kind)


def _fits(own: Any, cls: Any, settings: Mapping[str, Any], spec: ModelSpec) -> bool:
    """Say whether a model that comes with a component of class `own` works with one of class `cls`."""
    if issubclass(cls, own):
        return True
    if not issubclass(own, torch.nn.Module) and hasattr(own, "set_timesteps"):
        flows: list[bool] = [each.__name__.startswith("FlowMatch") for each in (own, cls)]
        if not hasattr(cls, "set_timesteps"):
            return False
        if spec.own_sigmas and "sigmas" not in inspect.signature(cls.set_timesteps).parameters:
            return False
        if spec.family == "passthrough" or flows[0]:
            return flows[0] == flows[1]
        shifted = "flow_shift" in inspect.signature(cls).parameters
        return shifted or (flows[1] and not settings.get("use_dynamic_shifting"))
    return (own.__name__, cls.__name__) == ("AutoencoderKL", "AutoencoderTiny")


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


def _is_direct(part: Part, config: EngineConfig) -> bool:
    """Say whether our own readers bring a component to its device.

    Those of transformers do it by themselves, with threads; and weights that stay on the CPU are best left in the file.
    """
    if part.weights is not None:
        return True
    files = part.is_module and part.folder.is_dir() and config.load_format == "auto"
    return files and weights.is_diffusers(part.cls) and part.place.type == "cuda"


def _begin(part: Part, config: EngineConfig, pool: Executor) -> Callable[[], Any]:
    """Begin to read a component, and return what waits for it."""
    assert part.dtype is not None
    tensors = _told(part, weights.stored, part.weights or part.folder)
    settings = _told(part, weights.config_of, part.cls, part.folder)
    quantized = weights.is_diffusers(part.cls) and "quantization_config" in settings
    module = weights.skeleton(part.cls, settings, part.dtype)
    missing, unexpected = weights.differences(module, tensors or {}, part.unread)
    if not missing and not unexpected and not quantized:
        return weights.read(module, tensors or {}, part.dtype, part.place, pool)
    if part.weights is None:  # of an older layout, which the library knows to convert
        return lambda: _whole(part, config, {})
    if not weights.is_diffusers(part.cls):
        return lambda: _renamed(part, settings)
    original = len(missing) > len(module.state_dict()) // 2 and hasattr(part.cls, "from_single_file")
    if not original or part.weights.is_dir():
        _refuse_weights(part, missing, unexpected)
    return lambda: _converted(part, missing, unexpected)


def _renamed(part: Part, settings: Any) -> Any:
    """Read weights whose names transformers converts when it loads them, as those that it publishes itself."""
    from safetensors.torch import load_file

    assert part.weights is not None
    state = {name: tensor for path in weights.files(part.weights) or () for name, tensor in load_file(path).items()}
    place = {"device_map": {"": part.place}} if part.place.type == "cuda" else {}
    module, info = part.cls.from_pretrained(
        None,
        config=settings,
        state_dict=state,
        dtype=part.dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **place,
    )
    missing, unexpected = sorted(_missing(info)), sorted(info["unexpected_keys"])
    if missing or unexpected:
        _refuse_weights(part, missing, unexpected)
    return module


def _converted(part: Part, missing: Sequence[str], unexpected: Sequence[str]) -> Any:
    """Read a file with the names of the model's authors, which diffusers knows for some classes."""
    from diffusers.loaders.single_file_utils import SingleFileComponentError

    assert part.dtype is not None
    foreign = (SingleFileComponentError, AttributeError, IndexError, KeyError, RuntimeError, ValueError)
    try:
        module = part.cls.from_single_file(str(part.weights), config=str(part.folder), local_files_only=True)
    except foreign:
        _refuse_weights(part, missing, unexpected)
    left = [name for name, parameter in module.named_parameters() if parameter.is_meta]
    if left:
        _refuse_weights(part, left, [])
    of = weights.dtypes(module, part.dtype)
    weights.fill(module, part.place, lambda name, parameter: parameter.to(part.place, of(name)))
    return module


def _refuse_weights(part: Part, missing: Sequence[str], unexpected: Sequence[str]) -> NoReturn:
    """Raise ModelError for a file that is not of this component."""

    flag, problems = hub.flag(part.name, "component_weights_paths"), _problems(missing, unexpected)
    message = f"{flag}: {part.weights} does not fit {part.cls.__name__}: {problems}"
    raise ModelError(message, code="model_load_failed", param="component_weights_paths")


def _problems(missing: Sequence[str], unexpected: Sequence[str] = ()) -> str:
    def some(names: Sequence[str]) -> str:
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    kinds = {"missing or of another shape": missing, "unknown": unexpected}
    return "; ".join(f"{kind}: {some(names)}" for kind, names in kinds.items() if names)


def _told(part: Part, load: Callable[..., Any], *arguments: Any) -> Any:
    """Call `load`; what it raises becomes an error that names the component."""
    try:
        return load(*arguments)
    except (ImportError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        message = f"{part.name}: {part.cls.__name__} cannot be loaded: {reason}"
        raise ModelError(message, code="model_load_failed") from error


def _whole(part: Part, config: EngineConfig, stand_ins: Mapping[str, Any]) -> Any:
    logger.debug("loading %s (%s)", part.name, part.cls.__name__)
    if part.is_module and config.load_format == "dummy":
        return _random(part, stand_ins)
    if not part.is_module:
        return part.cls.from_pretrained(part.folder, local_files_only=True)
    weights.check(part.folder)
    arguments: dict[str, Any] = {"dtype": part.dtype, "use_safetensors": None if config.trust_remote_code else True}
    if part.place.type == "cuda":
        arguments["device_map"] = {"": part.place}
    with log.quiet_diffusers():  # its advice to train what is missing
        try:
            found = part.cls.from_pretrained(part.folder, local_files_only=True, output_loading_info=True, **arguments)
        except NotImplementedError as error:  # on their way to the device, weights that no file holds
            raise ValueError(str(error)) from error
        except (RuntimeError, ValueError):
            _refuse_shapes(part)
            raise
    module, info = found
    _check_whole(part, info)
    return module


def _missing(info: Mapping[str, Any]) -> set[str]:
    """Return the weights that a library missed, or found in another shape."""
    mismatched = (entry if isinstance(entry, str) else entry[0] for entry in info["mismatched_keys"])
    return {*info["missing_keys"], *mismatched}


def _check_whole(part: Part, info: Mapping[str, Any]) -> None:
    """Raise ModelError for a module that a library has filled up with new random weights."""
    missing = sorted(_missing(info))
    if missing:
        raise _lacks(part, missing)


def _refuse_shapes(part: Part) -> None:
    """Raise ModelError for weights of other shapes, which one library tells at length and the other not by name."""
    settings = weights.config_of(part.cls, part.folder)
    names = weights.reshaped(weights.skeleton(part.cls, settings, part.dtype or torch.float32), part.folder)
    if names:
        raise _lacks(part, names)


def _lacks(part: Part, names: Sequence[str]) -> ModelError:
    message = f"{part.name}: {part.folder} does not hold all weights of {part.cls.__name__}: {_problems(names)}"
    return ModelError(message, code="model_load_failed")


def _ready(component: Any, name: str, config: EngineConfig) -> Any:
    if isinstance(component, torch.nn.Module):
        component.requires_grad_(False).eval()
        if name == "vae" and config.vae_config.load_encoder is False:
            component.encoder = None  # type: ignore[assignment]
    return component


def _random(part: Part, stand_ins: Mapping[str, Any]) -> torch.nn.Module:
    settings = weights.config_of(part.cls, part.folder)
    tokenizer = stand_ins.get(dummy.tokenizer_of(part.name))
    if tokenizer is not None:
        dummy.match(settings, tokenizer)
    assert part.dtype is not None
    return dummy.module(part.name, part.cls, settings, part.dtype, part.place, part.device)


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
