"""Which adapters are loaded, which are set, and which are in effect in a model's weights at the moment."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from engine import hub, log, profiler, remote
from engine.errors import ModelError, UsageError, listed, suggest
from engine.lora import blocks, facts, files, formats, header, keys, refs
from engine.lora.blocks import Packed
from engine.lora.layers import Beside, Layers, Merged
from engine.remote import Access
from engine.types import LoraRef

logger = log.get(__name__)
CACHE_BYTES = 8 * 2**30  # of adapters that are kept for later


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A LoRA file in memory, as each component takes it that it has been asked for."""

    nickname: str
    ref: LoraRef  # as it was asked for
    file: Path
    identity: Mapping[str, str]  # name that means it on any machine, and sha256
    owners: frozenset[str | None]  # components that its keys name; None: any denoiser
    adapters: dict[str, Packed] = field(default_factory=dict)
    misfits: dict[str, UsageError] = field(default_factory=dict)  # why a component does not take it

    @property
    def nbytes(self) -> int:
        return sum(packed.block.nbytes for packed in self.adapters.values())

    @property
    def read(self) -> set[str]:
        """The components that it has been read for."""
        return self.adapters.keys() | self.misfits.keys()


@dataclass(frozen=True, slots=True)
class Use:
    """One adapter at work on one component."""

    loaded: Loaded
    target: str
    scale: float
    together: frozenset[str] = field(default=frozenset(), compare=False)  # what "all" meant, if that was asked for


LoraSet = tuple[Use, ...]


class LoraManager:
    """The adapters of one engine. Loading and choosing are safe in several threads; `activate` is the scheduler's."""

    def __init__(
        self,
        components: Mapping[str, Any],
        device: torch.device,
        *,
        merge: bool = True,
        encoders: bool = False,
        pin: bool = True,
        access: Access | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        kinds = (*keys.DENOISERS, *keys.TEXT_ENCODERS) if encoders else keys.DENOISERS
        modules = {name: part for name, part in components.items() if isinstance(part, torch.nn.Module)}
        self.networks = {
            name: part for name, part in modules.items() if name in refs.TARGETS and name.startswith(kinds)
        }
        self.device, self.access, self.cache_bytes = device, access or Access(), cache_bytes
        self.pin = pin and device.type == "cuda"
        kind: Callable[..., Layers] = Merged if merge else Beside
        self.layers = {name: kind(network, device, pin) for name, network in self.networks.items()}
        self.mode = "merge" if merge else "dynamic"
        self.cache: OrderedDict[str, Loaded] = OrderedDict()  # the one used last comes last
        # What is chosen, and the components that go without it: one value, which any thread may read at any time.
        self.setting: tuple[LoraSet, frozenset[str]] = ((), frozenset())
        self.lock = threading.RLock()
        self.active: dict[str, LoraSet | None] = dict.fromkeys(self.networks, ())  # None: not known
        self.swap_s = 0.0  # what the last change of weights took
        self.swapped_at = 0.0

    # What requests take

    @property
    def current(self) -> LoraSet:
        """The set of requests that name none."""
        chosen, unmerged = self.setting
        return tuple(use for use in chosen if use.target not in unmerged)

    def resolve(self, wanted: Sequence[LoraRef] | None) -> LoraSet:
        """Return the set that a request is drawn with, loading what is not there; None is the current one."""
        if wanted is None:
            return self.current
        return self._resolve(refs.check(tuple(wanted)))[0]

    def record(self, wanted: LoraSet) -> list[dict[str, Any]]:
        """Return a set for a recipe: names that mean the files on any machine, hashes, strengths, targets."""
        found = dict[tuple[Loaded, float], list[Use]]()
        for use in wanted:
            found.setdefault((use.loaded, use.scale), []).append(use)
        entries = list[dict[str, Any]]()
        for (loaded, scale), uses in found.items():
            options = {"alpha": loaded.ref.alpha, "modules": loaded.ref.modules and [*loaded.ref.modules]}
            given = {name: value for name, value in options.items() if value is not None}
            targets = [use.target for use in uses]
            names = [refs.ALL] if uses[0].together == set(targets) else targets
            entries += [{**loaded.identity, "scale": scale, "target": name, **given} for name in names]
        return entries

    # What a control call changes

    def choose(self, wanted: tuple[LoraRef, ...]) -> list[str]:
        """Choose the adapters of all requests from now on; return warnings. A failure leaves what was there before."""
        with self.lock:
            chosen, warnings = self._resolve(wanted)
            self.setting = chosen, frozenset()
            self._evict()
            logger.info("LoRA: %s", listed(map(_said, chosen)) or "none")
        return warnings

    def merge(self, target: str = refs.ALL, strength: float | None = None) -> None:
        """Have what was chosen in effect again, with a new strength if one is given. Raises UsageError."""
        with self.lock:
            self._require_support()
            chosen, unmerged = self.setting
            if not chosen:
                raise UsageError("no LoRA is set; set one first", code="no_lora_set")
            targets = self._targets(target)
            if not targets:
                raise self._lacking([target])
            if not any(use.target in targets for use in chosen):
                raise UsageError(f"no LoRA is set on {listed(targets)}; set one first", code="no_lora_set")
            if strength is not None:
                refs.check_strength(strength)
                chosen = tuple(replace(use, scale=strength) if use.target in targets else use for use in chosen)
            self.setting = chosen, unmerged - set(targets)

    def unmerge(self, target: str = refs.ALL) -> None:
        """Have base weights again; what is loaded stays loaded. Raises UsageError."""
        with self.lock:
            self._require_support()
            targets = self._targets(target)
            if not targets:
                raise self._lacking([target])
            chosen, unmerged = self.setting
            self.setting = chosen, unmerged | set(targets)

    def listing(self) -> dict[str, Any]:
        """Return what is loaded, and what is in effect for requests that name no set."""
        with self.lock:
            self._require_support()
            active: dict[str, list[dict[str, Any]]] = {}
            for use in self.current:
                mode = self.layers[use.target].mode
                adapter = use.loaded.adapters[use.target].adapter
                entry = _names(use.loaded) | {
                    "merged": mode == "merged",
                    "strength": use.scale,
                    "num_lora_layers_with_weights": len(adapter.layers) + len(adapter.parameters),
                    "mode": mode,
                }
                active.setdefault(use.target, []).append(entry)
            return {"loaded_adapters": [_names(loaded) for loaded in self.cache.values()], "active": active}

    # What the scheduler does between steps

    def fits(self, wanted: LoraSet) -> bool:
        """Say whether a set is in effect."""
        return all(self.active[name] == part for name, part in self._by_network(wanted).items())

    def activate(self, wanted: LoraSet) -> None:
        """Bring a set into the networks, in place of any other, and measure what that takes."""
        if self.fits(wanted):
            return
        start = profiler.now(self.device)
        for name, part in self._by_network(wanted).items():
            if self.active[name] == part:
                continue
            self.active[name] = None  # until it is done: a failure leaves something between
            self.layers[name].apply([(use.loaded.adapters[name], use.scale) for use in part])
            self.active[name] = part
        self.swapped_at = profiler.now(self.device)
        self.swap_s = self.swapped_at - start
        logger.debug("LoRA: %s in %.3f s", listed(_said(use) for use in wanted) or "none", self.swap_s)

    @property
    def device_bytes(self) -> int:
        """Device memory that is taken to make switching fast."""
        return sum(layers.kept.get(self.device.type, 0) for layers in self.layers.values())

    def release(self, for_good: bool = False) -> None:
        """Give that memory back, and have base weights until the next step; `for_good`: never take it again."""
        for name, layers in self.layers.items():
            self.active[name] = None
            layers.release()
            self.active[name] = ()
            layers.roomy = layers.roomy and not for_good

    def _by_network(self, wanted: LoraSet) -> dict[str, LoraSet]:
        return {name: tuple(use for use in wanted if use.target == name) for name in self.networks}

    # Loading

    def _resolve(self, wanted: tuple[LoraRef, ...]) -> tuple[LoraSet, list[str]]:
        """Return a set and warnings; the cache changes only when all of it is loaded."""
        if wanted:
            self._require_support()
        with self.lock:
            staged, uses, warnings, found = dict[str, Loaded](), list[Use](), list[str](), False
            for ref in wanted:
                targets = self._targets(ref.target)
                if not targets:
                    warnings.append(f"{refs.nickname(ref)}: the model has no {ref.target}, skipped")
                    continue
                found = True
                loaded, taken = self._load(ref, targets)
                staged[loaded.nickname] = loaded
                together = frozenset(taken if ref.target == refs.ALL else ())
                uses += [Use(loaded, target, ref.scale, together) for target in taken]
            if wanted and not found:
                raise self._lacking(sorted({ref.target for ref in wanted}))
            for warning in warnings:
                logger.warning("%s", warning)
            for name, loaded in staged.items():
                self.cache[name] = loaded
                self.cache.move_to_end(name)
            self._evict(kept=staged)
            return tuple(uses), warnings

    def _load(self, ref: LoraRef, targets: Sequence[str]) -> tuple[Loaded, list[str]]:
        """Return an adapter, and those of the targets that it changes."""
        name = refs.nickname(ref)
        cached = self.cache.get(name)
        if ref.path is None and cached is None:
            here = f"; loaded: {listed(self.cache)}" if self.cache else "; none is loaded"
            message = f"lora_nickname: '{name}' is not loaded, give its path too{suggest(name, self.cache)}{here}"
            raise ModelError(message, code="lora_not_found", param="lora_nickname")
        loaded = cached
        if ref.path is not None and (loaded is None or _options(loaded.ref) != _options(ref)):
            loaded = self._opened(ref)
        assert loaded is not None
        several = ref.target == refs.ALL
        unread = set(self._meant(loaded, targets) if several else targets) - loaded.read
        if loaded.read and unread and facts.sha256(loaded.file) != loaded.identity["sha256"]:
            logger.warning("%s: the file has changed since it was loaded, and is read anew", name)
            loaded = self._opened(loaded.ref)
        return loaded, self._read(loaded, targets, several)

    def _opened(self, ref: LoraRef) -> Loaded:
        """Return an adapter of which no component has anything yet."""
        assert ref.path is not None
        file = files.locate(ref.path, ref.weight_name, self.access)
        owners = frozenset(keys.owner(key) for key in header.read(file).tensors)
        return Loaded(refs.nickname(ref), ref, file, _identity(ref, file), owners)

    def _read(self, loaded: Loaded, targets: Sequence[str], several: bool) -> list[str]:
        """Read a file for those components that it has not been read for; return those that it fits."""
        meant = self._meant(loaded, targets) if several else targets
        for target in meant:
            if target in loaded.read:
                continue
            try:
                adapter = formats.read(
                    loaded.file,
                    self.networks[target],
                    target=target,
                    alpha=loaded.ref.alpha,
                    modules=loaded.ref.modules,
                    others=targets,
                )
            except UsageError as error:
                loaded.misfits[target] = error
                continue
            loaded.adapters[target] = blocks.pack(adapter, self.pin)
        fitting = [target for target in meant if target in loaded.adapters]
        misfit = next((loaded.misfits[target] for target in meant if target in loaded.misfits), None)
        if misfit and (not several or not any(target in keys.DENOISERS for target in fitting)):
            raise UsageError(misfit.message, code=misfit.code, param=misfit.param)
        return fitting

    def _meant(self, loaded: Loaded, targets: Sequence[str]) -> list[str]:
        """Return which of all components a file is for: those that it names, and each denoiser that it may mean.

        What names the first denoiser may mean any: that is what files for one network look like.
        """
        named = loaded.owners & {"transformer_2", "critic"} & self.networks.keys()
        chosen = bool(named) and loaded.owners.isdisjoint({None, "transformer", "unet"})
        meant = {*loaded.owners} if chosen else {*loaded.owners, *keys.DENOISERS}
        return [target for target in targets if target in meant]

    def _targets(self, target: str) -> tuple[str, ...]:
        """Return the components that a target means in this model."""
        refs.check_target(target)
        return tuple(self.networks) if target == refs.ALL else tuple({target} & self.networks.keys())

    def _evict(self, kept: Iterable[str] = ()) -> None:
        """Forget the adapters that were used longest ago, but for those that are set, when all take too much memory."""
        held = {use.loaded for use in self.setting[0]}
        for name, loaded in list(self.cache.items()):
            if sum(entry.nbytes for entry in self.cache.values()) <= self.cache_bytes:
                return
            if loaded not in held and name not in kept:
                logger.info("LoRA %s: forgotten, adapters take more than %.1f GB", name, self.cache_bytes / 1e9)
                del self.cache[name]

    def _require_support(self) -> None:
        if not self.networks:
            raise UsageError("this model takes no LoRA: it has no denoiser to change", code="lora_not_supported")

    def _lacking(self, targets: Sequence[str]) -> UsageError:
        message = f"target: the model has no {listed(targets)}; it has {listed(self.networks)}"
        return UsageError(message, code="lora_target_missing", param="target")


def _options(ref: LoraRef) -> tuple[Any, ...]:
    """Return all that what is loaded depends on."""
    return ref.path, ref.weight_name, ref.alpha, ref.modules


def _identity(ref: LoraRef, file: Path) -> dict[str, str]:
    """Return a name that means the file on any machine: that of a repository with its file, else of the file alone."""
    assert ref.path is not None
    digest = facts.sha256(file)
    path, _ = files.parted(ref.path)
    if Path(ref.path).exists() or not hub.is_portable(path):
        return {"path": file.name, "sha256": digest}
    root = next((folder for folder in file.parents if remote.commit_of(folder)), file.parent)
    named = {"weight_name": file.relative_to(root).as_posix()} if "/" in path else {}
    return {"path": path, **named, "sha256": digest}


def _names(loaded: Loaded) -> dict[str, Any]:
    return {"nickname": loaded.nickname, "path": loaded.ref.path}


def _said(use: Use) -> str:
    return f"{use.loaded.nickname} x {use.scale:g} on {use.target}"
