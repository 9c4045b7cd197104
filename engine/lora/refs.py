"""What users say about adapters, as flags or in a call: checked, and put into a tuple of LoraRef."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

from engine import schema
from engine.config import EngineConfig
from engine.errors import UsageError, listed, shown, suggest
from engine.types import LoraRef

ALL = "all"
TARGETS = (ALL, "transformer", "transformer_2", "unet", "critic", "text_encoder", "text_encoder_2")
STRONGEST = 1e6  # beyond which no picture is left, and sums overflow
CALLED = {"name": "lora_nickname", "path": "lora_path", "scale": "strength", "alpha": "lora_alpha"}  # by a call
DEFAULT = "default"  # nickname of a single adapter at start
LONGEST = 64  # characters of a nickname


def of_config(config: EngineConfig) -> tuple[LoraRef, ...]:
    """Return the adapters that an engine starts with. Raises UsageError."""
    paths = config.lora_path or ()
    if not paths:
        for name in ("nickname", "scale", "target", "target_modules", "weight_name", "alpha"):
            if getattr(config, f"lora_{name}") is not None:
                raise UsageError(f"lora_{name}: needs --lora-path", param=f"lora_{name}")
        return ()
    refs = tuple(
        LoraRef(name=name, path=path, scale=scale, target=target, weight_name=file, alpha=alpha)
        for name, path, scale, target, file, alpha in zip(
            _nicknames(config.lora_nickname or (), len(paths)),
            paths,
            _started("lora_scale", config.lora_scale or (1.0,), len(paths)),
            _started("lora_target", config.lora_target or (ALL,), len(paths)),
            _started("lora_weight_name", config.lora_weight_name or (None,), len(paths)),
            _started("lora_alpha", config.lora_alpha or (None,), len(paths)),
            strict=True,
        )
    )
    return check(tuple(replace(ref, modules=config.lora_target_modules) for ref in refs), "lora_target", "lora_scale")


def of_call(
    nickname: str | Sequence[str],
    path: str | Sequence[str | None] | None = None,
    target: str | Sequence[str] = ALL,
    strength: float | Sequence[float] = 1.0,
    weight_name: str | Sequence[str | None] | None = None,
    alpha: int | Sequence[int | None] | None = None,
) -> tuple[LoraRef, ...]:
    """Return the adapters that a call names: single values apply to all, lists must match. Raises UsageError."""
    names = list(nickname) if isinstance(nickname, list | tuple) else [nickname]
    if not names or None in names:
        raise UsageError("lora_nickname: required", code="missing_parameter", param="lora_nickname")
    if isinstance(path, str | PathLike) and len(names) > 1:
        message = f"lora_path: one path for {len(names)} nicknames; give a list of {len(names)}"
        raise UsageError(message, code="lora_length_mismatch", param="lora_path")
    values = {"path": path, "target": target, "scale": strength, "weight_name": weight_name, "alpha": alpha}
    columns = {name: _column(CALLED.get(name, name), value, len(names)) for name, value in values.items()}
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return check(tuple(_read({"name": name, **row}) for name, row in zip(names, rows, strict=True)), "target")


def _read(values: Mapping[str, Any]) -> LoraRef:
    """Return an adapter of a call, its values checked; None is the default. Raises UsageError."""
    checked = {name: _checked(name, value) for name, value in values.items() if value is not None}
    return LoraRef(**checked)


def _checked(name: str, value: Any) -> Any:
    """Return a field of a LoraRef, checked. Raises UsageError with the name that a call has for it."""
    called = CALLED.get(name, name)
    try:
        return schema.check(LoraRef, name, value, called)
    except UsageError as error:
        raise UsageError(error.message, code=error.code, param=called) from error


def check(refs: tuple[LoraRef, ...], target: str = "loras", strength: str = "strength") -> tuple[LoraRef, ...]:
    """Return adapters that are named, each once, with a strength and a target that can be.

    Raises UsageError, which calls target and strength as the one does who gives them.
    """
    seen = set[str]()
    for ref in refs:
        if ref.name is None and ref.path is None:
            message = "loras: an entry needs the path of an adapter, or the name of a loaded one"
            raise UsageError(message, code="missing_parameter", param="loras")
        if ref.path == "":
            raise UsageError("lora_path: must not be empty", param="lora_path")
        if ref.path is None and (ref.weight_name, ref.alpha, ref.modules) != (None, None, None):
            message = f"lora_path: '{shown(ref.name)}' needs its path too, to be loaded in another way"
            raise UsageError(message, code="missing_parameter", param="lora_path")
        if ref.name is not None and not 1 <= len(ref.name) <= LONGEST:
            message = f"lora_nickname: must have 1 to {LONGEST} characters, got '{shown(ref.name)}'"
            raise UsageError(message, param="lora_nickname")
        if nickname(ref) in seen:
            raise UsageError(f"lora_nickname: '{shown(nickname(ref))}' is there twice", param="lora_nickname")
        seen.add(nickname(ref))
        check_strength(ref.scale, strength)
        if ref.alpha is not None and not 0 < ref.alpha <= STRONGEST:
            message = f"lora_alpha: must be greater than 0 and at most {STRONGEST:.0f}, got {ref.alpha}"
            raise UsageError(message, param="lora_alpha")
        check_target(ref.target, target)
    return refs


def check_strength(strength: float, param: str = "strength") -> None:
    """Raise UsageError for a strength that no weight can take."""
    _checked("scale", strength)
    if abs(strength) > STRONGEST:
        message = f"{param}: must be from -{STRONGEST:.0f} to {STRONGEST:.0f}, got {strength:g}"
        raise UsageError(message, param=param)


def check_target(target: str, param: str = "target") -> None:
    """Raise UsageError for a target that no model has."""
    if target not in TARGETS:
        message = f"{param}: must be one of {listed(TARGETS)}, got '{shown(target)}'{suggest(shown(target), TARGETS)}"
        raise UsageError(message, code="invalid_lora_target", param=param)


def nickname(ref: LoraRef) -> str:
    """Return what an adapter is cached under."""
    name = ref.name or ref.path
    assert name
    return name


def _nicknames(given: Sequence[str], count: int) -> list[str]:
    if len(given) > count:
        message = f"lora_nickname: {len(given)} for {count} paths; give one for each"
        raise UsageError(message, code="lora_length_mismatch", param="lora_nickname")
    if count == 1:
        return [*given] or [DEFAULT]
    return [*given, *(f"lora_{i + 1}" for i in range(len(given), count))]


def _started(name: str, values: Sequence[Any], count: int) -> list[Any]:
    """Return what a flag says about each adapter; one value applies to all."""
    return _column(name, values[0] if len(values) == 1 else values, count)


def _column(name: str, value: Any, count: int) -> list[Any]:
    """Return a value for each adapter, from one for all or a list. Raises UsageError."""
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        message = f"{name}: {len(value)} values for {count} adapters; give one for each, or one for all"
        raise UsageError(message, code="lora_length_mismatch", param=name)
    return list(value)
