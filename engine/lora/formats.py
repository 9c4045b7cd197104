"""LoRA files of every common layout, read into the normal form for a live denoiser."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from engine import log
from engine.errors import UsageError, listed
from engine.lora import header, keys
from engine.lora.adapter import Adapter, Delta
from engine.lora.convert import converted
from engine.lora.fit import Fit, Misfit
from engine.lora.keys import Part
from engine.lora.names import Place, flat, places

logger = log.get(__name__)
State = Mapping[str, torch.Tensor]
TOLERATED = 0.1  # of a file's tensors may fit nothing
SHOWN = 3  # names in a message
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
FLOATS_8 = (torch.float8_e4m3fn, torch.float8_e5m2)  # which few operations take, and bf16 holds exactly
GREATEST = 1e6  # alpha / rank that cannot be meant


def read(
    source: Path | State,
    network: torch.nn.Module,
    *,
    target: str = "transformer",
    alpha: float | None = None,
    modules: Sequence[str] | None = None,
    metadata: Mapping[str, str] | None = None,
    others: Collection[str] = (),
) -> Adapter:
    """Return what the LoRA file `source`, or its tensors and `metadata`, adds to `network`.

    `target` is the network's component name, `alpha` the training alpha for a file that lacks it, `modules` the
    endings of the module names that alone are taken, `others` the components that read what is theirs themselves.
    Raises UsageError `lora_incompatible`, and ModelError for a file that is not there.
    """
    if isinstance(source, Path):
        head = header.read(source)
        name, state, metadata = source.name, _loaded(source), head.metadata
        settings = header.settings(metadata, header.beside(source, state), target)
    else:
        name, state, settings = "LoRA", dict(source), header.settings(metadata or {}, target=target)
    return _Reader(name, state, network, target, settings, alpha).adapter(metadata or {}, modules, others)


def _loaded(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        message = f"{path}: cannot be read as safetensors: {header.printable(str(error))}"
        raise UsageError(message, code="lora_incompatible", param="lora_path") from error


@dataclass(slots=True)
class _Found:
    """The keys of a file that belong to one module, and where the module is."""

    place: Place
    parts: dict[Part, str] = field(default_factory=dict)


class _Reader:
    """One file, one network."""

    def __init__(
        self,
        name: str,
        state: State,
        network: torch.nn.Module,
        target: str,
        settings: Mapping[str, Any],
        alpha: float | None,
    ) -> None:
        self.name, self.state, self.network, self.target = name, state, network, target
        self.settings, self.alpha = settings, alpha
        self.places = places(network)
        self.fit = Fit(network)

    def adapter(
        self, metadata: Mapping[str, str], endings: Sequence[str] | None, others: Collection[str] = ()
    ) -> Adapter:
        """Read all. Raises UsageError."""
        kind = keys.other_kind(self.state) or ("DoRA" if self.settings.get("use_dora") else None)
        if kind is not None:
            raise self._refused(f"is a {kind} adapter, which is not supported; LoRA and full differences are")
        skipped = self._foreign()
        found, unknown = self._find({key: value for key, value in self.state.items() if key not in skipped})
        if unknown:
            found, unknown = self._find_converted(found, unknown)
        self._check(found, unknown, skipped)
        layers, parameters = dict[str, Delta](), dict[str, torch.Tensor]()
        for module, entry in found.items():
            if entry.parts.keys() == {"alpha"}:
                continue
            for path, change in self._changes(module, entry):
                if path in layers or path in parameters:
                    raise self._refused(f"changes {path} twice, the second time as {module}")
                if isinstance(change, Delta):
                    layers[path] = change
                else:
                    parameters[path] = change
        if not layers and not parameters:
            raise self._refused(f"holds nothing but alphas: {_some(list(found))}")
        # A denoiser's keys need not name it: to a text encoder they are foreign, and somebody else reads them.
        known = {*others, None} if {*others} & {*keys.DENOISERS} else {*others}
        left = [key for key in skipped if keys.owner(key) not in known]
        if left:
            logger.warning("%s: %s tensors are for other parts and are skipped: %s", self.name, len(left), _some(left))
        if unknown:
            logger.warning("%s: %s tensors fit nothing and are skipped: %s", self.name, len(unknown), _some(unknown))
        return Adapter(
            layers=self._wanted(layers, endings),
            parameters=parameters if endings is None else {},
            layout=keys.layout(key for key in self.state if key not in skipped),
            skipped=tuple(skipped),
            unknown=tuple(unknown),
            triggers=header.triggers(metadata),
            metadata=dict(metadata),
        )

    def _foreign(self) -> list[str]:
        """Return the keys of other components: text encoders, and denoisers where the file names this one as well."""
        owners = {key: keys.owner(key) for key in self.state}
        named = set(owners.values())
        own_encoder = self.target in keys.TEXT_ENCODERS
        return [
            key
            for key, owner in owners.items()
            if owner != self.target
            and (own_encoder or owner in keys.TEXT_ENCODERS or (owner is not None and self.target in named))
        ]

    def _find(self, state: State) -> tuple[dict[str, _Found], list[str]]:
        """Sort keys by the module that they change; return those that fit nothing apart."""
        found, unknown = dict[str, _Found](), list[str]()
        for key in state:
            parsed = keys.parse(key)
            place = self._place(parsed.module) if parsed else None
            if parsed is None or place is None:
                unknown.append(key)
                continue
            parts = found.setdefault(parsed.module, _Found(place)).parts
            if parsed.part in parts:
                raise self._refused(f"holds {parts[parsed.part]} and {key}, which are the same")
            parts[parsed.part] = key
        return found, unknown

    def _place(self, module: str) -> Place | None:
        options = (self.places.get(flat(name)) for name in keys.candidates(module, self.target))
        return next((option for option in options if option is not None), None)

    def _find_converted(self, found: dict[str, _Found], unknown: list[str]) -> tuple[dict[str, _Found], list[str]]:
        """Let diffusers name what is unknown."""
        renamed = converted({key: self.state[key] for key in unknown}, self.network)
        more, still = self._find(renamed)
        if not more or len(still) > TOLERATED * len(renamed):
            return found, unknown
        self.state = {**self.state, **renamed}
        return {**found, **more}, still

    def _check(self, found: Mapping[str, _Found], unknown: Sequence[str], skipped: Sequence[str]) -> None:
        """Raise UsageError when nothing fits, or too little."""
        total = len(unknown) + sum(len(entry.parts) for entry in found.values())
        if found and len(unknown) <= TOLERATED * total:
            return
        own = [path for path, module in self.network.named_modules() if isinstance(module, torch.nn.Linear)]
        inner = [path for path in own if re.search(r"\.\d+\.", path)] or own
        if not total:
            what = "holds nothing for it" + (f", only other parts: {_some(skipped)}" if skipped else "; it is empty")
        else:
            what = f"{len(unknown)} of its {total} tensors fit no layer: {_some(unknown)}"
        raise self._refused(f"does not fit {type(self.network).__name__}: {what}; its layers are named {_some(inner)}")

    def _changes(self, module: str, entry: _Found) -> Iterator[tuple[str, Delta | torch.Tensor]]:
        """Yield what a module of the file adds to each module, or bare parameter, that it stands for."""
        parts = {part: self._usable(part, key) for part, key in entry.parts.items()}
        halves = [part for part in parts if part in ("down", "up")]
        if len(halves) == 1 or ("up_bias" in parts and not halves):
            raise self._refused(f"is incomplete: {entry.parts[halves[0]] if halves else module} has no partner")
        scale = self._scale(module, parts)
        try:
            if entry.place.is_parameter:
                yield entry.place.modules[0], self.fit.parameter(entry.place.modules[0], parts)
                return
            yield from self.fit.deltas(entry.place, parts, scale)
        except Misfit as misfit:
            raise self._refused(f"does not fit this model: {module}: {misfit}") from None

    def _usable(self, part: Part, key: str) -> torch.Tensor:
        """Return a tensor that can be computed with. Raises UsageError."""
        tensor, name = self.state[key], header.printable(key)
        if part == "alpha":
            if tensor.numel() != 1 or tensor.is_complex() or not math.isfinite(tensor.item()):
                raise self._refused(f"is damaged: {name} is no finite number")
            return tensor
        if tensor.dtype in FLOATS_8:
            tensor = tensor.bfloat16()
        if tensor.dtype not in FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise self._refused(f"{name} is of type {kind}, of which no LoRA is made; floating-point types are read")
        if not tensor.dim() or not tensor.numel():
            raise self._refused(f"is damaged: {name} holds nothing to add, its shape is {list(tensor.shape)}")
        if not math.isfinite(tensor.sum(dtype=torch.float64 if tensor.dtype == torch.float64 else torch.float32)):
            raise self._refused(f"is damaged: {name} holds values that are not finite")
        return tensor

    def _scale(self, module: str, parts: Mapping[Part, torch.Tensor]) -> float:
        """Return alpha / rank: alpha of the layer, else of the adapter, else as asked for, else the rank."""
        if "down" not in parts:
            return 1.0
        rank = parts["down"].shape[0]
        alpha = float(parts["alpha"].item()) if "alpha" in parts else self._adapter_alpha(module)
        stabilized = self.settings.get("use_rslora") is True
        scale = (rank if alpha is None else alpha) / (rank**0.5 if stabilized else rank)
        if abs(scale) > GREATEST:
            raise self._refused(f"is damaged: alpha of {header.printable(module)} is {alpha:g}")
        return scale

    def _adapter_alpha(self, module: str) -> float | None:
        patterns = self.settings.get("alpha_pattern")
        for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
            if re.fullmatch(r"[\w.-]+", pattern) is None:
                told = f"its alpha_pattern '{header.printable(pattern)}' is a regular expression"
                raise self._refused(f"{told}; names of modules are read")
            if f".{module}".endswith(f".{pattern}"):
                return self._number(f"alpha_pattern of {pattern}", value)
        value = self.settings.get("lora_alpha")
        return self.alpha if value is None else self._number("lora_alpha", value)

    def _number(self, name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= GREATEST**2:
            raise self._refused(f"is damaged: {name} is {header.printable(str(value))}, which is no finite number")
        return float(value)

    def _wanted(self, layers: Mapping[str, Delta], endings: Sequence[str] | None) -> dict[str, Delta]:
        """Return the layers whose names end as asked for. Raises UsageError when none does."""
        if endings is None:
            return dict(layers)
        chosen = {
            path: delta for path, delta in layers.items() if any(f".{path}".endswith(f".{end}") for end in endings)
        }
        if not chosen:
            leaves = sorted({re.sub(r"(\.\d+)+$", "", path).rpartition(".")[2] for path in layers})
            message = (
                f"lora_target_modules: no layer of {self.name} ends with {listed(endings)}; it has {listed(leaves)}"
            )
            raise UsageError(message, code="lora_incompatible", param="lora_target_modules")
        return chosen

    def _refused(self, text: str) -> UsageError:
        return UsageError(f"{self.name}: {text}", code="lora_incompatible", param="lora_path")


def _some(names: Sequence[str]) -> str:
    """Return a few names that differ in more than a number."""
    kinds = defaultdict[str, list[str]](list)
    for name in names:
        kinds[re.sub(r"\d+", "#", name)].append(name)
    shown = [header.printable(group[0]) for group in kinds.values()][:SHOWN]
    return listed(shown) + (", ..." if len(names) > len(shown) else "")
