"""LoRA files of every common layout, read into the normal form for a live denoiser."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
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
        name, state, metadata, settings = source.name, load_file(source), head.metadata, head.settings
    else:
        name, state, settings = "LoRA", dict(source), header.settings(metadata or {})
    return _Reader(name, state, network, target, settings, alpha).adapter(metadata or {}, modules, others)


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
            for path, change in self._changes(module, entry):
                if path in layers or path in parameters:
                    raise self._refused(f"changes {path} twice, the second time as {module}")
                if isinstance(change, Delta):
                    layers[path] = change
                else:
                    parameters[path] = change
        left = [key for key in skipped if keys.owner(key) not in others]
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
        parts = {part: self.state[key] for part, key in entry.parts.items()}
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

    def _scale(self, module: str, parts: Mapping[Part, torch.Tensor]) -> float:
        """Return alpha / rank: alpha of the layer, else of the adapter, else as asked for, else the rank."""
        if "down" not in parts:
            return 1.0
        rank = parts["down"].shape[0]
        alpha = float(parts["alpha"].item()) if "alpha" in parts else self._adapter_alpha(module)
        stabilized = self.settings.get("use_rslora") is True
        return (rank if alpha is None else alpha) / (rank**0.5 if stabilized else rank)

    def _adapter_alpha(self, module: str) -> float | None:
        patterns = self.settings.get("alpha_pattern")
        for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
            if module == pattern or module.endswith(f".{pattern}"):
                return float(value)
        value = self.settings.get("lora_alpha")
        return float(value) if isinstance(value, int | float) else self.alpha

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
    shown = [group[0] for group in kinds.values()][:SHOWN]
    return listed(shown) + (", ..." if len(names) > len(shown) else "")
