"""Engine: a loaded model that draws. The object that the command line, the SDK and the server's worker hold."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from engine import env, fetch, hub, log, media, profiler, recipe, schema, urls
from engine import resolve as rules
from engine.catalog import ModelSpec
from engine.config import EngineConfig
from engine.env import Environment
from engine.errors import NotAvailable, UsageError
from engine.hub import Source
from engine.lora import refs
from engine.types import LoraRef, Output, Progress, Request

if TYPE_CHECKING:
    from engine.lora.manager import LoraManager, LoraSet
    from engine.runtime.control import Control
    from engine.runtime.executor import InlineExecutor
    from engine.runtime.scheduler import Run, StepScheduler

logger = log.get(__name__)

# Settings that an engine has as its default and a request may override.
ENGINE_DEFAULTS = ("flow_shift", "embedded_cfg_scale")


class Engine:
    """One model, loaded and ready.

    Build it with `Engine.from_pretrained(path, **settings)`; settings are the fields of EngineConfig. Raises UsageError
    for a wrong setting and ModelError for a model that is missing, before any weight is read.
    """

    def __init__(
        self, config: EngineConfig, environment: Environment | None = None, source: Source | None = None
    ) -> None:
        environment = environment or env.read()
        config = schema.read(EngineConfig, schema.plain(config))
        for name in schema.fields(EngineConfig):
            schema.require_available(EngineConfig, name, getattr(config, name))
        warm_ups(config)
        adapters = check_loras(config, environment)
        self.source, self.spec = spec_of(config, environment, source)
        self.config = config
        log.quiet_libraries()
        from engine import pipeline  # torch and diffusers come in here, after every check that needs neither
        from engine.passes import precision
        from engine.runtime.executor import InlineExecutor

        precisions = precision.plan(hub.component_keys(self.source.index), config, self.spec)
        built = pipeline.build(self.source, self.spec, config, environment, adapters)
        self.executor: InlineExecutor | None = InlineExecutor(built)
        self.changes = threading.Lock()
        self.device = str(built.device)
        self.recipe = recipe.engine_part(
            self.source,
            self.spec,
            config,
            device=self.device,
            attention=built.attention,
            precisions=precisions,
        )
        if adapters:
            self.choose(adapters)

    @classmethod
    def from_pretrained(cls, model_path: str | None = None, **settings: Any) -> Self:
        """Load a model by hub id, local folder or bundled name; without one, the model that ships with the program."""
        if model_path is not None:
            settings["model_path"] = str(model_path)
        return cls(schema.read(EngineConfig, settings))

    def resolve(self, request: Request) -> Request:
        """Return the request with every default of this model; what cannot be drawn raises UsageError."""
        return resolve(request, self.spec, self.config)

    def generate(
        self, prompt: str, on_progress: Callable[[Progress], None] | None = None, **fields: Any
    ) -> list[Output]:
        """Draw a prompt and return its outputs, one unless `num_outputs_per_prompt` (or `n`) says more.

        `fields` are those of Request, such as `height`, `seed` or `negative_prompt`. Raises UsageError for a wrong one.
        """
        from engine.runtime.control import Control

        return list(self.run(schema.read(Request, {"prompt": prompt, **fields}), Control(on_progress)))

    def stream(self, prompt: str, preview: bool = False, **fields: Any) -> Iterator[Progress | Output]:
        """Draw a prompt step by step: yield Progress (with a preview picture when asked), each output when it is done.

        Leaving the iterator ends the work.
        """
        from engine.runtime.control import Control

        request = schema.read(Request, {"prompt": prompt, **fields})
        return self.events(self.resolve(request), Control(preview=preview))

    def run(self, request: Request, control: Control | None = None) -> Iterator[Output]:
        """Yield the outputs of a request, each as soon as it is done. Raises Cancelled after `control.cancel()`."""
        from engine.runtime.control import Control

        resolved = self.resolve(request)
        return (event for event in self.events(resolved, control or Control()) if isinstance(event, Output))

    def events(self, resolved: Request, control: Control) -> Iterator[Progress | Output]:
        """Yield Progress and Output of a resolved request; its outputs are separate runs, one after another.

        They are drawn with the adapters that are set now, unless the request names its own.
        """
        self._open()
        return self._events(resolved, control, self.loras.resolve(resolved.loras))

    def _events(self, resolved: Request, control: Control, loras: LoraSet) -> Iterator[Progress | Output]:
        for index, request in enumerate(resolved.outputs()):
            for event in self._open().drive(request, control, index, loras):
                yield event if isinstance(event, Progress) else self.output(event)

    def output(self, run: Run) -> Output:
        """Return what a finished run drew, with the recipe that makes it again."""
        assert run.result is not None
        frames, timings = run.result
        made_with = {**self.recipe, "loras": self.loras.record(run.loras)}
        return Output(frames, run.request, recipe.build(run.request, made_with), timings, run.index)

    @property
    def scheduler(self) -> StepScheduler:
        """Whose turn it is. For those who drive several requests themselves, as the worker of a server."""
        return self._open().scheduler

    def warm_up(self) -> None:
        """Draw what `warmup_mode: server` asks for, so that the first request finds everything in place."""
        if {"T2I", "T2V", "TI2I", "TI2V"} & {*self.spec.tasks}:
            for request in warm_ups(self.config, clips=self.spec.is_video):
                for _ in self.run(request):
                    pass

    def set_lora(
        self,
        lora_nickname: str | Sequence[str],
        lora_path: str | Sequence[str | None] | None = None,
        target: str | Sequence[str] = "all",
        strength: float | Sequence[float] = 1.0,
        *,
        merge_mode: str = "auto",
        lora_alpha: int | Sequence[int | None] | None = None,
        weight_name: str | Sequence[str | None] | None = None,
    ) -> list[str]:
        """Have these adapters, in this order, in all requests accepted from now on; return warnings.

        A nickname without a path means the adapter that was loaded under it. Raises UsageError or ModelError, with the
        adapters as they were before.
        """
        if merge_mode not in ("auto", self.loras.mode):
            message = f"merge_mode: this engine was started with '{self.loras.mode}' (--lora-merge-mode), not others"
            raise NotAvailable(message, param="merge_mode")
        wanted = refs.of_call(lora_nickname, lora_path, target, strength, weight_name, lora_alpha)
        return self.choose(wanted)

    def merge_lora(self, target: str = "all", strength: float | None = None) -> None:
        """Have the adapters that are set in effect again, after `unmerge_lora` or with a new strength."""
        with self._changed():
            self.loras.merge(target, strength)

    def unmerge_lora(self, target: str = "all") -> None:
        """Draw without adapters from now on; they stay loaded, and the weights are again what they were, exactly."""
        with self._changed():
            self.loras.unmerge(target)

    def list_loras(self) -> dict[str, Any]:
        """Return the adapters that are loaded, and those that requests are drawn with."""
        self._open()
        return self.loras.listing()

    def memory(self) -> dict[str, Any]:
        """Return how much memory the device has, has free, and how much of it this process uses, in MB."""
        return profiler.device_memory(self.scheduler.pipeline.device)

    def lora_refs(self) -> list[dict[str, Any]]:
        """Return the adapters that are in effect as plain references, from which another engine can take them."""
        found, named = list[LoraRef](), set[str]()
        for use in self.loras.current:
            ref = replace(use.loaded.ref, name=use.loaded.nickname, scale=use.scale, target=use.target)
            whole = {same.target for same in self.loras.current if (same.loaded, same.scale) == (use.loaded, use.scale)}
            if whole == use.together:
                ref = replace(ref, target=refs.ALL)
            if ref not in found:
                found.append(replace(ref, name=None) if ref.name in named else ref)
                named.add(use.loaded.nickname)
        return [schema.plain(ref) for ref in found]

    def choose(self, wanted: tuple[LoraRef, ...]) -> list[str]:
        """Have these adapters in all requests accepted from now on, as `set_lora` does; return warnings."""
        with self._changed():
            return self.loras.choose(wanted)

    @contextmanager
    def _changed(self) -> Iterator[None]:
        """Change which adapters are set; if they cannot come into effect, all is as before."""
        scheduler, loras, in_effect = self._open().scheduler, self.loras, False
        scheduler.refuse_reentry()  # before the lock: whoever has it may wait for the step that calls
        with self.changes:
            before = loras.setting
            try:
                yield
                scheduler.settle()
                in_effect = True
            finally:
                if not in_effect:
                    loras.setting = before

    @property
    def loras(self) -> LoraManager:
        """What keeps the adapters; with the weights, which a closed engine holds no more."""
        return self._open().scheduler.pipeline.loras

    def _open(self) -> InlineExecutor:
        if self.executor is None:
            raise UsageError("the engine is closed")
        return self.executor

    def close(self) -> None:
        """Free the model; the engine cannot draw afterwards. Closing twice is fine."""
        if self.executor is None:
            return
        self.executor = None
        import gc

        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def warm_ups(config: EngineConfig, clips: bool = False) -> list[Request]:
    """Return the requests of a warm-up when the engine starts. Raises UsageError for sizes that are none."""
    found = []
    for size in config.warmup_resolutions or ("",):
        width, _, height = size.partition("x")
        if size and not (width.isdecimal() and height.isdecimal()):
            message = f"warmup_resolutions: must be WIDTHxHEIGHT, such as 1024x1024, got '{size}'"
            raise UsageError(message, param="warmup_resolutions")
        fields: dict[str, Any] = {"num_inference_steps": config.warmup_steps}
        fields |= {"num_frames": config.warmup_num_frames} if clips else {}
        fields |= {"width": int(width), "height": int(height)} if size else {}
        found.append(Request(prompt="warm-up", seed=0, **fields))
    return found if config.warmup_mode == "server" else []


def check_loras(
    config: EngineConfig, environment: Environment, requests: Iterable[Request] = (), download: bool = True
) -> tuple[LoraRef, ...]:
    """Return the adapters that an engine starts with; their files, and those of requests, are there and readable.

    Without `download`, those of the hub are not looked for. Raises UsageError or ModelError.
    """
    wanted = refs.of_config(config)
    own = [ref for request in requests for ref in refs.check(request.loras or ())]
    if wanted or own:
        from engine.lora import files

        access = hub.access_of(config, environment)
        for path, weight_name in dict.fromkeys((ref.path, ref.weight_name) for ref in (*wanted, *own)):
            if path is not None and (download or not files.is_remote(path)):
                files.locate(path, weight_name, access)
    return wanted


def spec_of(config: EngineConfig, environment: Environment, source: Source | None = None) -> tuple[Source, ModelSpec]:
    """Find a model's folder and describe it, without reading a weight.

    `backend` decides between a native family and the stock diffusers pipeline. Raises ModelError or UsageError.
    """
    source = source or hub.locate(config, environment)
    pipeline = config.pipeline_class_name or source.index.get("_class_name")
    known = source.spec if source.spec is not None and source.spec.pipeline == pipeline else None
    native = known is not None and known.family != "passthrough" and config.backend != "diffusers"
    if not native and config.backend in ("sglang", "native"):
        message = f"backend: {source.name} ({pipeline}) has no native pipeline; use --backend auto or diffusers"
        raise UsageError(message, param="backend")
    if native:
        assert known is not None
        spec = known
        if config.diffusers_attention_backend != EngineConfig().diffusers_attention_backend:
            logger.warning("diffusers_attention_backend has no effect on %s: it runs natively", spec.id)
    else:
        log.quiet_libraries()
        from engine.models import passthrough

        name = source.spec.id if source.spec else source.name
        spec = passthrough.spec(name, str(pipeline), known, source.configs.get("vae", {}))
    from engine.passes import layerwise, precision

    names = hub.component_keys(source.index)
    dtypes = precision.plan(names, config, spec)
    layerwise.check(config, names)
    settings = {**spec.settings, **_settings(source.index)}
    return source, replace(spec, settings=settings, autocast=precision.autocast(dtypes, config))


def _settings(index: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model_index.json says beside its components: plain values, and None for components it lacks."""
    components = hub.component_keys(index)
    own = {key: value for key, value in index.items() if not key.startswith("_") and key not in components}
    return {key: None if isinstance(value, list) else value for key, value in own.items()}


def resolve_all(requests: Iterable[Request], spec: ModelSpec, config: EngineConfig) -> list[Request]:
    """Check and resolve several requests for a model; what lies at a URL that they share is fetched once."""
    fetched: dict[str, str] = {}
    return [resolve(request, spec, config, fetched) for request in requests]


def resolve(
    request: Request,
    spec: ModelSpec,
    config: EngineConfig,
    fetched: dict[str, str] | None = None,
    device: str | None = None,
) -> Request:
    """Check and resolve a request for a model; an input image without a size gives the output its shape.

    In place of a URL comes a data URI of what lies there, so that all who read the input see the same bytes. `fetched`
    holds those that are known, and takes those that are fetched. `device` is what the engine computes on, where that
    is known, or "" where another process will know; None has torch look.
    """
    request = schema.read(Request, schema.given(request))
    request = _inlined(request, spec, config, {} if fetched is None else fetched)
    shaped = "image_path" in spec.uses and "height" in spec.defaults  # an image that is not used is refused below
    if request.image_path and shaped and not (request.height or request.width):
        width, height = media.image_size(request.image_path[spec.shaped_by])
        request = request.replace(**_same_shape(width, height, spec))
    given = {name: getattr(config, name) for name in ENGINE_DEFAULTS if name in spec.uses}
    request = request.replace(**{name: value for name, value in given.items() if getattr(request, name) is None})
    resolved = rules.resolve(request, spec, config.max_pixels)
    if resolved.generator_device != "cpu":
        _check_generator(resolved.generator_device, config, device)
    if resolved.image_path:
        for source in resolved.image_path:
            rules.check_image(*media.open_image(source).size, spec)
        if config.vae_config.load_encoder is False:
            raise UsageError("image_path: needs the VAE encoder, but vae_config.load_encoder is false")
    if resolved.mask_path and resolved.image_path:
        media.open_mask(resolved.mask_path, media.image_size(resolved.image_path[0]))
    return resolved


def _check_generator(wanted: str, config: EngineConfig, device: str | None) -> None:
    if device is None:
        from engine.pipeline import pick_device

        device = pick_device(config.device).type
    kind = device.partition(":")[0]
    if kind and kind != wanted:
        message = f"generator_device: the engine computes on {kind}; noise is drawn there or on the cpu"
        raise UsageError(message, param="generator_device")


def _inlined(request: Request, spec: ModelSpec, config: EngineConfig, fetched: dict[str, str]) -> Request:
    def inline(source: str, field: str) -> str:
        if not urls.is_url(source):
            return source
        if config.offline:
            raise fetch.failure(source, "--offline forbids to fetch it", field)
        if source not in fetched:
            fetched[source] = media.inlined(source, field)
        return fetched[source]

    images, mask = request.image_path, request.mask_path
    if images and "image_path" in spec.uses:  # a model that takes none refuses it, with nothing fetched
        request = request.replace(image_path=tuple(inline(source, "image_path") for source in images))
    if mask and "mask_path" in spec.uses:
        request = request.replace(mask_path=inline(mask, "mask_path"))
    return request


def _same_shape(width: int, height: int, spec: ModelSpec) -> dict[str, int]:
    """Return the size with the image's shape and at most the model's default area, in multiples it can draw.

    An image that is far longer than it is wide gives the longest picture of that area. With a `shape_multiple`, the
    sides are the nearest multiples of it, so the area may be a little larger.
    """
    area, multiple = int(spec.defaults["height"]) * int(spec.defaults["width"]), spec.multiple
    if spec.shape_multiple is not None:
        wide = (area * (width / height)) ** 0.5
        sides = {"height": wide / (width / height), "width": wide}
        return {name: max(1, round(side / spec.shape_multiple)) * spec.shape_multiple for name, side in sides.items()}
    scale = (area / (width * height)) ** 0.5
    if not spec.enlarges:
        scale = min(scale, 1.0)
    short, long = (max(multiple, int(side * scale) // multiple * multiple) for side in sorted((height, width)))
    long = min(long, area // short // multiple * multiple)
    return {"height": long, "width": short} if height > width else {"height": short, "width": long}
