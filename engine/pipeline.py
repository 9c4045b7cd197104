"""Components to a pipeline of stages; begin, advance and finish one run of it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from engine import attention, hub, loader, log
from engine.attention.select import select
from engine.catalog import ModelSpec
from engine.config import EngineConfig
from engine.env import Environment
from engine.errors import UsageError
from engine.faults import Faults
from engine.hub import Source
from engine.lora.manager import Loaded, LoraManager
from engine.passes import precision, vae
from engine.passes.placement import Plan, at_home, plan
from engine.passes.residency import Residency
from engine.profiler import Profile
from engine.stages import decode, denoise, preview, tokens
from engine.types import LoraRef, Model, Progress, Request, State, Timings

if TYPE_CHECKING:
    from engine.runtime.control import Control

logger = log.get(__name__)
ADAPTED = (*precision.DENOISERS, "text_encoder")  # components that LoRAs are made for
UNPLACED = Plan()


class Pipeline:
    """A loaded model that runs one step at a time; nothing in it belongs to a run."""

    def __init__(
        self,
        model: Model,
        device: torch.device,
        residency: Residency,
        environment: Environment,
        auto_tiling: bool,
        attention: str,
        loras: LoraManager,
    ) -> None:
        self.model, self.device, self.residency, self.auto_tiling = model, device, residency, auto_tiling
        self.loras = loras
        # A stock call is one stage, so that its LoRAs must be there before it.
        self.denoises_at_once = any(name in loras.networks for stage in model.stages() for name in stage.uses)
        self.attention = attention
        self.sync = environment.sync_stage_profiling
        self.faults = Faults(environment)
        self.previews = True  # until the VAE turns out to allow none

    @property
    def exclusive(self) -> bool:
        """Whether a run must have the device to itself until its end."""
        return self.model.exclusive or self.residency.exclusive

    @torch.no_grad()
    def begin(self, request: Request, control: Control, index: int = 0) -> State:
        """Run every stage before the first step. `request` is resolved and asks for one output, number `index`."""
        assert isinstance(request.seed, int)
        generator = torch.Generator(request.generator_device).manual_seed(request.seed)
        profile = Profile(self.device, self.sync)
        grid = self.model.grid(request)
        state = State(request, index, control, profile, self._tick, self.device, grid, generator)
        self._watch(state)
        for stage in self.model.stages():
            control.check()
            self._tell(state, stage.name)
            with self.residency.hold(stage.uses), profile.span(stage.name):
                stage(state)
        return state

    @torch.no_grad()
    def advance(self, state: State) -> bool:
        """Take one denoising step; return whether another one is left."""
        if state.step >= state.steps:
            return False
        state.control.check()
        self._watch(state)
        with self.residency.hold((self.model.denoiser(state),)), state.profile.step():
            denoise.step(self.model, state)
        state.tick(state)
        if state.step < state.steps:
            return True
        state.profile.close_steps()
        return False

    @torch.no_grad()
    def finish(self, state: State) -> tuple[Any, Timings]:
        """Decode; return uint8 frames (frames, height, width, 3) and where the time went."""
        state.control.check()
        stage = decode.decode(self.model, self.residency.room if self.auto_tiling else None)
        self._tell(state, stage.name)
        self._make_room(vae.peak_bytes(self.model.components.get("vae"), state.grid, state.request.num_frames or 1))
        with self.residency.hold(stage.uses), state.profile.span(stage.name):
            stage(state)
            frames = decode.to_frames(state)
        return frames, replace(state.profile.timings(), tokens=tokens.count(self.model.components, state))

    def _watch(self, state: State) -> None:
        """Follow whether somebody looks: previews begin and end within a run."""
        if state.control.preview == state.wants_x0 or (state.control.preview and not self.previews):
            return
        if state.control.preview:
            with self.residency.hold(("vae",)):
                self.previews = preview.fit(self.model.components.get("vae"))
        state.wants_x0, state.x0 = state.control.preview and self.previews, None

    def _make_room(self, need: float) -> None:
        """Give the copies of weights under LoRAs back where a decode was to have their room."""
        if self.residency.room - self.loras.device_bytes < need <= self.residency.room:
            self.loras.release()

    def _tick(self, state: State) -> None:
        """Say how far a run is after a step, then let a cancel take effect."""
        picture = None
        if state.x0 is not None:
            picture = preview.jpeg(self.model.components["vae"], self.model.latent_image(state, state.x0))
        self._tell(state, "denoising", picture)
        self.faults.strike(state.request.prompt or "", state.step)
        state.control.check()

    def _tell(self, state: State, stage: str, picture: bytes | None = None) -> None:
        elapsed = state.profile.elapsed_s()
        left = (state.steps - state.step) * elapsed / state.step if state.step else None
        state.control.tell(Progress(stage, state.step, state.steps, elapsed, left, state.index, picture))


def pick_device(wanted: str) -> torch.device:
    """Return the device to compute on. Raises UsageError naming the ones that are there."""
    present = [
        name
        for name, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()))
        if there
    ] + ["cpu"]
    if wanted == "auto":
        return torch.device(present[0])
    if wanted not in present:
        raise UsageError(f"device: {wanted} is not available here; available: {', '.join(present)}", param="device")
    return torch.device(wanted)


def build(
    source: Source,
    spec: ModelSpec,
    config: EngineConfig,
    environment: Environment,
    adapters: tuple[LoraRef, ...] = (),
) -> Pipeline:
    """Load a model and put the passes over it, in order: precision (in the loader), attention, residency.

    The LoRAs that it will start with are read first, so that one that does not fit is refused before weights are read.
    """
    device = pick_device(config.device)
    backend = _attention(spec, config, device)
    if vae.asks(config) and "vae" in source.configs:
        vae.tiles(loader.empty(source, spec, config, "vae"), config)  # refuses before weights are read
    read = _read(adapters, source, spec, config, environment, device)
    components = loader.load(source, spec, config, device, _at_home(source, spec, config, device))
    model: Model = importlib.import_module(f"engine.models.{spec.family}").Model(spec, components)
    for name, component in components.items():
        if name.startswith(precision.DENOISERS):
            if spec.family == "passthrough":
                attention.install_stock(component, backend)
            else:
                attention.install(component, backend, model.masked)
    vae.apply(components.get("vae"), config, precision.halves(config, spec))
    placement = plan(components, config, device)
    loras = _loras(spec, components, device, config, environment, placement)
    loras.cache.update(read)
    if spec.family == "passthrough" and placement.streamed:
        placement = placement.of_stock(components.get("vae"))
    if placement.offloaded and model.offload(device):
        components, placement = {}, Plan()
    placed = Residency(components, device, placement, config.pin_cpu_memory)
    auto_tiling = config.vae_tiling is None
    return Pipeline(model, device, placed, environment, auto_tiling=auto_tiling, attention=backend, loras=loras)


def _read(
    adapters: tuple[LoraRef, ...],
    source: Source,
    spec: ModelSpec,
    config: EngineConfig,
    environment: Environment,
    device: torch.device,
) -> Mapping[str, Loaded]:
    """Read LoRAs for components that have no weights yet. Raises UsageError for those that do not fit."""
    if not adapters:
        return {}
    wanted = (name for name in hub.component_keys(source.index) if name.startswith(ADAPTED))
    components = {name: loader.empty(source, spec, config, name) for name in wanted}
    manager = _loras(spec, components, device, config, environment)
    manager.resolve(adapters)
    return manager.cache


def _loras(
    spec: ModelSpec,
    components: Mapping[str, Any],
    device: torch.device,
    config: EngineConfig,
    environment: Environment,
    placement: Plan = UNPLACED,
) -> LoraManager:
    """Return what keeps the adapters of a model: merged, but beside weights that are elsewhere between uses."""
    away = any(name.startswith(precision.DENOISERS) for name in placement.offloaded | placement.streamed)
    merge = config.lora_merge_mode == "merge" or (config.lora_merge_mode == "auto" and not away)
    return LoraManager(
        components,
        device,
        merge=merge,
        encoders=spec.family == "passthrough",
        pin=config.pin_cpu_memory,
        access=hub.access_of(config, environment),
    )


def _at_home(source: Source, spec: ModelSpec, config: EngineConfig, device: torch.device) -> frozenset[str]:
    """Return which components are loaded into host memory, because they will not stay on the device."""
    if device.type == "cpu":
        return frozenset()
    return at_home(loader.sizes(source, spec, config), config, device)


def _attention(spec: ModelSpec, config: EngineConfig, device: torch.device) -> str:
    """Return the attention backend that a model's denoiser runs on."""
    if spec.family == "passthrough":
        return config.diffusers_attention_backend
    return select(config.attention_backend, device)
