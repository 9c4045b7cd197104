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
from engine.errors import ModelError
from engine.models.base import BaseModel, assemble
from engine.passes.precision import DENOISERS, ENCODERS
from engine.stages import Stage
from engine.stages.decode import cancellable
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
FALLBACK_STEPS, FALLBACK_GUIDANCE, FALLBACK_FPS = 50, 7.5, 16
# Arguments that a request's own fields stand for, or that would change the kind of the result.
OURS = (
    "self", "prompt", "generator", "height", "width", "num_inference_steps", "output_type", "return_dict",
    "num_images_per_prompt", "num_videos_per_prompt", "callback_on_step_end", "callback_on_step_end_tensor_inputs",
)  # fmt: skip
EDITORS = ("Img2Img", "Inpaint", "ImageToVideo", "ImageEdit", "Pix2Pix", "Upscale")  # in names of classes
STRIDES = ("scale_factor_temporal", "temporal_compression_ratio")  # what VAE configs call frames per latent frame


def pipeline_class(name: str | None) -> Any:
    """Return the diffusers class of that name. Raises ModelError when diffusers has none."""
    import diffusers

    found = getattr(diffusers, name or "", None)
    if not (inspect.isclass(found) and issubclass(found, diffusers.DiffusionPipeline)):
        message = f"'{name}' is not a pipeline of the installed diffusers {diffusers.__version__}"
        raise ModelError(f"{message}; its own code is not run", code="model_not_supported")
    return found


def spec(name: str, pipeline: str, known: ModelSpec | None = None, vae: Mapping[str, Any] | None = None) -> ModelSpec:
    """Describe a pipeline by the signature of its call and the config of its `vae`.

    Defaults of a `known` catalog entry win over those of the signature.
    """
    cls = pipeline_class(pipeline)
    parameters = _parameters(cls)
    uses = {field: argument for field in ARGUMENTS if (argument := _argument(field, parameters))}
    is_video = "num_frames" in parameters
    return ModelSpec(
        id=known.id if known else name,
        family="passthrough",
        pipeline=pipeline,
        tasks=(_task(cls, parameters, is_video),),
        features=("inpaint",) if "mask_path" in uses else (),
        defaults=_defaults(uses, parameters, known, is_video),
        uses=(*sorted(uses), *(("fps",) if is_video and "fps" not in uses else ())),
        arguments=tuple(name for name in parameters if name not in OURS),
        multiple=1,
        frame_stride=next((vae[key] for key in STRIDES if (vae or {}).get(key)), 1) if vae and is_video else 1,
        precision=known.precision if known else {},
    )


def _defaults(
    uses: Mapping[str, str], parameters: Mapping[str, inspect.Parameter], known: ModelSpec | None, is_video: bool
) -> dict[str, Any]:
    found = {
        field: parameters[argument].default
        for field, argument in (dict(uses) | ALWAYS).items()
        if argument in parameters and isinstance(parameters[argument].default, int | float)
    }
    fallback: dict[str, Any] = {"num_inference_steps": FALLBACK_STEPS, "fps": FALLBACK_FPS if is_video else None}
    fallback["guidance_scale"] = FALLBACK_GUIDANCE if "guidance_scale" in uses else None
    given = {key: value for key, value in (known.defaults if known else {}).items() if key in uses or key in ALWAYS}
    return {key: value for key, value in (fallback | found | given).items() if value is not None}


def _task(cls: Any, parameters: Mapping[str, inspect.Parameter], is_video: bool) -> Task:
    """Say what a pipeline makes of what. Many that need a picture give `image` a default that does not work."""
    image = next((parameters[name] for name in ARGUMENTS["image_path"] if name in parameters), None)
    edits = any(word in cls.__name__ for word in EDITORS)
    if image is not None and (edits or image.default is inspect.Parameter.empty):
        return "I2V" if is_video else "I2I"
    return "T2V" if is_video else "T2I"


def _parameters(cls: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(cls.__call__).parameters


def _argument(field: str, parameters: Mapping[str, Any]) -> str | None:
    return next((name for name in ARGUMENTS[field] if name in parameters), None)


class Model(BaseModel):
    """A stock pipeline. Its one stage does everything; steps are counted by the timesteps its denoiser sees."""

    exclusive = True

    def __init__(self, spec: ModelSpec, components: dict[str, Any]) -> None:
        super().__init__(spec, components)
        self.pipeline = assemble(pipeline_class(spec.pipeline), components, spec.settings)

    def offload(self, device: torch.device) -> bool:
        """Keep every component in host memory between uses; the stock call moves them, so its own hooks do it."""
        self.pipeline.enable_model_cpu_offload(device=device)
        return True

    def stages(self) -> Sequence[Stage]:
        return [Stage("generation", tuple(self.components), self.call)]

    def grid(self, request: Request) -> tuple[int, int]:
        """Return the size asked for, rounded up to what the pipeline takes; (0, 0) leaves the size to the pipeline."""
        multiple = self._multiple()
        return -(-(request.height or 0) // multiple) * multiple, -(-(request.width or 0) // multiple) * multiple

    def _multiple(self) -> int:
        """Return the VAE's factor, doubled for a transformer, which takes latents in patches of two by two."""
        spatial = getattr(self.pipeline, "vae_scale_factor_spatial", None)
        factor = int(spatial or getattr(self.pipeline, "vae_scale_factor", None) or 8)
        return factor * 2 if self.components.get("transformer") is not None else factor

    def decode(self, state: State) -> None:
        """Nothing is left to do: the stock call ends with pixels."""

    def call(self, state: State) -> None:
        """Run the stock call and write `pixels`."""
        parameters = _parameters(type(self.pipeline))
        arguments = self._arguments(state, parameters)
        watched = [part for name, part in self.components.items() if name.startswith(DENOISERS)]
        others = [part for name, part in self.components.items() if name.startswith(ENCODERS)]
        vae = self.components.get("vae")
        watch = _Watch(state, vae)
        hooks = [network.register_forward_pre_hook(watch.before, with_kwargs=True) for network in watched]
        try:
            with cancellable(state, getattr(vae, "decoder", None), *others):
                result = self.pipeline(**arguments)
        finally:
            for hook in hooks:
                hook.remove()
        watch.finish()
        state.pixels = _pixels(result)
        asked = state.request.num_frames
        if asked is not None and asked != len(state.pixels):
            logger.warning("num_frames: asked for %d, %s drew %d", asked, self.spec.pipeline, len(state.pixels))

    def _arguments(self, state: State, parameters: Mapping[str, Any]) -> dict[str, Any]:
        request = state.request
        arguments: dict[str, Any] = {"prompt": request.prompt, "generator": state.generator, "output_type": "np"}
        sizes = dict(zip(("height", "width"), state.grid, strict=True))
        values = {field: sizes.get(field, getattr(request, field)) for field in ALWAYS}
        arguments |= {field: value for field, value in values.items() if value and field in parameters}
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
        return arguments | dict(request.diffusers_kwargs)


class _Watch:
    """Counts steps of a stock call: a new timestep at the denoiser means that the step before it is done."""

    def __init__(self, state: State, vae: Any) -> None:
        self.state, self.vae = state, vae
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
        if self.state.wants_x0:
            self._look(given.get("sample", given.get("hidden_states")))
        if self.seen is not None:
            self._done()
        else:
            self.state.control.check()
        self.seen = now
        self.step = self.state.profile.step()
        self.step.__enter__()

    def _look(self, latents: Any) -> None:
        """Keep latents that are laid out like a picture for a preview: noisy ones, x0 is the pipeline's own."""
        channels = getattr(self.vae.config, "latent_channels", None)
        if isinstance(latents, torch.Tensor) and latents.ndim == 4 and latents.shape[1] == channels:
            self.state.x0 = latents[-1:]  # the conditional one, where both branches of guidance share a forward

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
