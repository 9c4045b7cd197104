"""Any other diffusers pipeline: the stock call as one unit, watched from around its denoiser's forward."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from engine import log, media
from engine.catalog import ModelSpec
from engine.errors import ModelError, UsageError
from engine.models.base import BaseModel
from engine.stages import Stage
from engine.types import Request, State, Task

logger = log.get(__name__)

# Request fields and the argument names that diffusers pipelines have for them.
ARGUMENTS = {
    "negative_prompt": ("negative_prompt",),
    "guidance_scale": ("guidance_scale",),
    "guidance_scale_2": ("guidance_scale_2",),
    "true_cfg_scale": ("true_cfg_scale",),
    "guidance_rescale": ("guidance_rescale",),
    "strength": ("strength",),
    "num_frames": ("num_frames",),
    "fps": ("fps", "frame_rate"),
    "max_sequence_length": ("max_sequence_length",),
    "image_path": ("image", "images"),
    "mask_path": ("mask_image",),
}
ALWAYS = {"height": "height", "width": "width", "num_inference_steps": "num_inference_steps"}
FALLBACK_STEPS, FALLBACK_GUIDANCE = 50, 7.5
DENOISERS = ("transformer", "transformer_2", "unet", "prior")


def pipeline_class(name: str | None) -> Any:
    """Return the diffusers class of that name. Raises ModelError when diffusers has none."""
    import diffusers

    found = getattr(diffusers, name or "", None)
    if not (inspect.isclass(found) and issubclass(found, diffusers.DiffusionPipeline)):
        message = f"'{name}' is not a pipeline of the installed diffusers {diffusers.__version__}"
        raise ModelError(f"{message}; its own code is not run", code="model_not_supported")
    return found


def spec(name: str, pipeline: str, known: ModelSpec | None = None) -> ModelSpec:
    """Describe a pipeline by the signature of its call; defaults of a `known` catalog entry win over it."""
    parameters = _parameters(pipeline_class(pipeline))
    uses = {field: argument for field in ARGUMENTS if (argument := _argument(field, parameters))}
    is_video = "num_frames" in parameters
    defaults: dict[str, Any] = {
        field: parameters[argument].default
        for field, argument in (uses | ALWAYS).items()
        if argument in parameters and isinstance(parameters[argument].default, int | float)
    }
    defaults.setdefault("num_inference_steps", FALLBACK_STEPS)
    if "guidance_scale" in uses:
        defaults.setdefault("guidance_scale", FALLBACK_GUIDANCE)
    if is_video:
        defaults.setdefault("fps", 16)
    defaults |= {key: value for key, value in (known.defaults if known else {}).items() if key in uses or key in ALWAYS}
    task: Task = "T2V" if is_video else "T2I"
    if "image_path" in uses and parameters[uses["image_path"]].default is inspect.Parameter.empty:
        task = "I2V" if is_video else "I2I"
    return ModelSpec(
        id=known.id if known else name,
        family="passthrough",
        pipeline=pipeline,
        tasks=(task,),
        features=("inpaint",) if "mask_path" in uses else (),
        defaults=defaults,
        uses=(*sorted(uses), *(("fps",) if is_video and "fps" not in uses else ())),
        multiple=1,
        precision=known.precision if known else {},
    )


def _parameters(cls: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(cls.__call__).parameters


def _argument(field: str, parameters: Mapping[str, Any]) -> str | None:
    return next((name for name in ARGUMENTS[field] if name in parameters), None)


class Model(BaseModel):
    """A stock pipeline. Its one stage does everything; steps are counted by the timesteps its denoiser sees."""

    exclusive = True

    def __init__(self, spec: ModelSpec, components: dict[str, Any]) -> None:
        super().__init__(spec, components)
        cls = pipeline_class(spec.pipeline)
        names = inspect.signature(cls.__init__).parameters
        settings = {key: value for key, value in spec.settings.items() if key in names}
        self.pipeline = cls(**settings, **components)
        self.pipeline.set_progress_bar_config(disable=True)

    def offload(self, device: torch.device) -> bool:
        """Keep every component in host memory between uses; the stock call moves them, so its own hooks do it."""
        self.pipeline.enable_model_cpu_offload(device=device)
        return True

    def stages(self) -> Sequence[Stage]:
        return [Stage("generation", tuple(self.components), self.call)]

    def grid(self, request: Request) -> tuple[int, int]:
        return request.height or 0, request.width or 0

    def decode(self, state: State) -> None:
        """Nothing is left to do: the stock call ends with pixels."""

    def call(self, state: State) -> None:
        """Run the stock call and write `pixels`. Raises UsageError for arguments that it refuses."""
        parameters = _parameters(type(self.pipeline))
        arguments = self._arguments(state, parameters)
        watched = [self.components[name] for name in DENOISERS if self.components.get(name) is not None]
        watch = _Watch(state)
        hooks = [network.register_forward_pre_hook(watch.before, with_kwargs=True) for network in watched]
        try:
            result = self.pipeline(**arguments)
        finally:
            for hook in hooks:
                hook.remove()
        watch.finish()
        state.pixels = _pixels(result)

    def _arguments(self, state: State, parameters: Mapping[str, Any]) -> dict[str, Any]:
        request = state.request
        arguments: dict[str, Any] = {"prompt": request.prompt, "generator": state.generator, "output_type": "np"}
        for field in ALWAYS:
            if getattr(request, field) is not None and field in parameters:
                arguments[field] = getattr(request, field)
        for field in ARGUMENTS:
            name, value = _argument(field, parameters), getattr(request, field)
            if name is not None and value is not None:
                arguments[name] = value
        if request.image_path:
            name = _argument("image_path", parameters) or "image"
            images = [media.open_image(source) for source in request.image_path]
            arguments[name] = images[0] if len(images) == 1 else images
        if request.mask_path and request.image_path:
            arguments["mask_image"] = media.open_mask(request.mask_path, media.image_size(request.image_path[0]))
        unknown = [name for name in request.diffusers_kwargs if name not in parameters]
        if unknown:
            name = type(self.pipeline).__name__
            raise UsageError(f"diffusers_kwargs: {name} takes no argument '{unknown[0]}'", param="diffusers_kwargs")
        return arguments | dict(request.diffusers_kwargs)


class _Watch:
    """Counts steps of a stock call: a new timestep at the denoiser means that the step before it is done."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.seen: float | None = None
        self.step: AbstractContextManager[None] | None = None
        state.steps = state.request.num_inference_steps or 0

    def before(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        names = list(inspect.signature(module.forward).parameters)
        given = dict(zip(names, args, strict=False)) | kwargs
        timestep = given.get("timestep", given.get("t"))
        now = float(timestep.max()) if isinstance(timestep, torch.Tensor) else timestep
        if now == self.seen:
            return
        if self.seen is not None:
            self._done()
        else:
            self.state.control.check()
        self.seen = now
        self.step = self.state.profile.step()
        self.step.__enter__()

    def finish(self) -> None:
        """Count the last step, whose end no further forward marks."""
        if self.seen is not None:
            self._done()
        self.state.steps = self.state.step

    def _done(self) -> None:
        assert self.step is not None
        self.step.__exit__(None, None, None)
        self.state.step += 1
        self.state.steps = max(self.state.steps, self.state.step)
        self.state.tick(self.state)


def _pixels(result: Any) -> torch.Tensor:
    """Return (frames, height, width, 3) in [0, 1] from whatever output a pipeline returns."""
    frames = getattr(result, "frames", None)
    if frames is None:
        frames = getattr(result, "images", result[0])
    array = np.asarray(frames)
    return torch.from_numpy(array[0] if array.ndim == 5 else array)
