"""Any other diffusers pipeline: the stock call as one unit, watched from around its denoiser's forward."""

from __future__ import annotations

import inspect
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from engine import log, media
from engine.catalog import INPAINT, MAX_CLIP, ModelSpec
from engine.errors import ModelError
from engine.models.base import BaseModel, assemble
from engine.passes import autocast
from engine.passes.precision import DENOISERS, ENCODERS
from engine.stages import Stage
from engine.stages.decode import cancellable
from engine.types import Request, State, Task

logger = log.get(__name__)
FAMILY = "passthrough"

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


def pipeline_class(name: str | None, hint: str = "its own code is not run") -> Any:
    """Return the diffusers class of that name. Raises ModelError, with a hint, when diffusers has none."""
    import diffusers

    found = getattr(diffusers, name or "", None)
    if not (inspect.isclass(found) and issubclass(found, diffusers.DiffusionPipeline)):
        message = f"'{name}' is not a pipeline of the installed diffusers {diffusers.__version__}"
        raise ModelError(f"{message}; {hint}", code="model_not_supported")
    return found


def spec(name: str, pipeline: str, known: ModelSpec | None = None, vae: Mapping[str, Any] | None = None) -> ModelSpec:
    """Describe a pipeline by the signature of its call, those of its variants, and the config of its `vae`.

    Defaults of a `known` catalog entry win over those of the signature.
    """
    native = known is not None and known.family != FAMILY
    hint = {"hint": "without --backend diffusers it runs natively"} if native else {}
    known = known or ModelSpec(id=name, family=FAMILY, pipeline=pipeline, tasks=())
    cls = pipeline_class(pipeline, **hint)
    variants = {feature: _parameters(pipeline_class(variant)) for feature, variant in known.variants.items()}
    own = _parameters(cls)
    fields = _uses(own, known).union(*(_uses(call, known) for call in variants.values()))
    is_video = "num_frames" in own
    found = {**_signature_defaults(variants.values(), known), **_signature_defaults([own], known)}
    return replace(
        known,
        family=FAMILY,
        pipeline=pipeline,
        tasks=known.tasks or (_task(cls, own, is_video),),
        features=(*known.variants, *((INPAINT,) if "mask_path" in _uses(own, known) else ())),
        defaults=_defaults(found, fields, known, is_video),
        small_defaults={field: value for field, value in known.small_defaults.items() if field in fields},
        uses=(*sorted(fields), *(("fps",) if is_video and "fps" not in fields else ())),
        ignores={field: why for field, why in known.ignores.items() if field in fields},
        arguments=_extra(own),
        classes={},  # a stock call needs its components whole, as the folder names them
        variant_arguments={feature: _extra(call) for feature, call in variants.items()},
        multiple=1,
        frame_stride=next((vae[key] for key in STRIDES if (vae or {}).get(key)), 1) if vae and is_video else 1,
        max_pixels=max(known.max_pixels, MAX_CLIP) if is_video else known.max_pixels,
    )


def _uses(parameters: Mapping[str, Any], known: ModelSpec) -> set[str]:
    """Return the optional request fields that a call takes, and works with."""
    fields = {*ARGUMENTS, *known.stock_names} - known.native_only.keys()
    return {field for field in fields if _argument(field, parameters, known)}


def _extra(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in parameters if name not in OURS)


def _signature_defaults(calls: Iterable[Mapping[str, inspect.Parameter]], known: ModelSpec) -> dict[str, Any]:
    """Return the numbers that calls have as defaults, by request field; the first call wins."""
    found: dict[str, Any] = {}
    for parameters in calls:
        for field in (*ARGUMENTS, *known.stock_names, *ALWAYS):
            argument = field if field in ALWAYS else _argument(field, parameters, known)
            default = parameters[argument].default if argument and argument in parameters else None
            if isinstance(default, int | float):
                found.setdefault(field, default)
    return found


def _defaults(found: Mapping[str, Any], uses: Container[str], known: ModelSpec, is_video: bool) -> dict[str, Any]:
    fallback: dict[str, Any] = {"num_inference_steps": FALLBACK_STEPS, "fps": FALLBACK_FPS if is_video else None}
    fallback["guidance_scale"] = FALLBACK_GUIDANCE if "guidance_scale" in uses else None
    timed = ("fps",) if is_video else ()
    given = {key: value for key, value in known.defaults.items() if key in uses or key in (*ALWAYS, *timed)}
    return {key: value for key, value in {**fallback, **found, **given}.items() if value is not None}


def _task(cls: Any, parameters: Mapping[str, inspect.Parameter], is_video: bool) -> Task:
    """Say what a pipeline makes of what. Many that need a picture give `image` a default that does not work."""
    image = next((parameters[name] for name in ARGUMENTS["image_path"] if name in parameters), None)
    edits = any(word in cls.__name__ for word in EDITORS)
    if image is not None and (edits or image.default is inspect.Parameter.empty):
        return "I2V" if is_video else "I2I"
    return "T2V" if is_video else "T2I"


def _parameters(cls: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(cls.__call__).parameters


def _argument(field: str, parameters: Mapping[str, Any], spec: ModelSpec) -> str | None:
    """Return the name that a call has for a request field."""
    names = (spec.stock_names[field],) if field in spec.stock_names else ARGUMENTS[field]
    return next((name for name in names if name in parameters), None)


class Model(BaseModel):
    """A stock pipeline. Its one stage does everything; steps are counted by the timesteps its denoiser sees."""

    exclusive = True

    def __init__(self, spec: ModelSpec, components: dict[str, Any]) -> None:
        super().__init__(spec, components)
        classes = [(None, spec.pipeline), *spec.variants.items()]
        self.pipelines = {
            feature: assemble(pipeline_class(name), components, spec.settings) for feature, name in classes
        }

    def offload(self, device: torch.device) -> bool:
        """Keep every component in host memory between uses; the stock calls move them, so their own hooks do it."""
        for pipeline in self.pipelines.values():
            pipeline.enable_model_cpu_offload(device=device)
        return True

    def stages(self) -> Sequence[Stage]:
        return [Stage("generation", tuple(self.components), self.call)]

    def grid(self, request: Request) -> tuple[int, int]:
        """Return the size asked for, rounded up to what the pipeline takes; (0, 0) leaves the size to the pipeline."""
        multiple = self._multiple()
        return -(-(request.height or 0) // multiple) * multiple, -(-(request.width or 0) // multiple) * multiple

    def _multiple(self) -> int:
        """Return the VAE's factor, doubled for a transformer, which takes latents in patches of two by two."""
        pipeline = self.pipelines[None]
        spatial = getattr(pipeline, "vae_scale_factor_spatial", None)
        factor = int(spatial or getattr(pipeline, "vae_scale_factor", None) or 8)
        return factor * 2 if self.components.get("transformer") is not None else factor

    def decode(self, state: State) -> None:
        """Nothing is left to do: the stock call ends with pixels."""

    def call(self, state: State) -> None:
        """Run the stock call and write `pixels`."""
        pipeline = self.pipelines[self.spec.feature_of(state.request)]
        arguments = self._arguments(state, pipeline)
        watched = [part for name, part in self.components.items() if name.startswith(DENOISERS)]
        others = [part for name, part in self.components.items() if name.startswith(ENCODERS)]
        vae = self.components.get("vae")
        cast = autocast.casting(watched, vae) if self.spec.autocast else nullcontext()
        watch = _Watch(state, vae)
        hooks = [network.register_forward_pre_hook(watch.before, with_kwargs=True) for network in watched]
        decoder = getattr(vae, "decoder", None)
        if decoder is not None:
            hooks.append(decoder.register_forward_pre_hook(lambda *_: watch.finish()))
        try:
            with cancellable(state, decoder, *others), autocast.kept(vae), cast:
                result = pipeline(**arguments)
        except RuntimeError as error:
            self._explain(error, type(pipeline).__name__)
            raise
        finally:
            for hook in hooks:
                hook.remove()
        watch.finish()
        state.pixels = _pixels(result)
        asked = state.request.num_frames
        if asked is not None and asked != len(state.pixels):
            logger.warning("num_frames: asked for %d, %s drew %d", asked, type(pipeline).__name__, len(state.pixels))

    def _explain(self, error: RuntimeError, pipeline: str) -> None:
        """Raise ModelError for what torch says of operands whose types differ."""
        modules = {name: part for name, part in self.components.items() if isinstance(part, torch.nn.Module)}
        dtypes = {name: str(part.dtype).removeprefix("torch.") for name, part in modules.items()}
        if self.spec.autocast or len(set(dtypes.values())) < 2 or "type" not in str(error):
            return
        parts = ", ".join(f"{name} {dtype}" for name, dtype in sorted(dtypes.items()))
        message = f"{pipeline}: its components differ in precision ({parts}) and --disable-autocast forbids casts"
        raise ModelError(f"{message}: {error}", code="model_not_supported") from error

    def _arguments(self, state: State, pipeline: Any) -> dict[str, Any]:
        request, parameters = state.request, _parameters(type(pipeline))
        arguments: dict[str, Any] = {"prompt": request.prompt, "generator": state.generator, "output_type": "np"}
        sizes = dict(zip(("height", "width"), state.grid, strict=True))
        values = {field: sizes.get(field, getattr(request, field)) for field in ALWAYS}
        arguments |= {field: value for field, value in values.items() if value and field in parameters}
        for field in (*ARGUMENTS, *self.spec.stock_names):
            name, value = _argument(field, parameters, self.spec), getattr(request, field)
            if name is not None and value is not None:
                arguments[name] = value
        return arguments | self._pictures(state, parameters) | dict(request.diffusers_kwargs)

    def _pictures(self, state: State, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return input images and mask, fitted to the size asked for where the output is a picture over them."""
        request = state.request
        if not request.image_path:
            return {}
        fitted = bool(request.height and request.width) and (
            self.spec.feature_of(request) is not None or "height" not in parameters
        )

        def fit(picture: Any) -> Any:
            return media.fit(picture, (request.height or 0, request.width or 0), state.grid) if fitted else picture

        name = _argument("image_path", parameters, self.spec) or "image"
        images = [fit(media.open_image(source)) for source in request.image_path]
        pictures: dict[str, Any] = {name: images[0] if len(images) == 1 else images}
        if request.mask_path:
            mask = media.open_mask(request.mask_path, media.image_size(request.image_path[0]))
            pictures["mask_image"] = fit(mask)
        return pictures


class _Watch:
    """Counts steps of a stock call: a new timestep at the denoiser means that the step before it is done."""

    def __init__(self, state: State, vae: Any) -> None:
        self.state, self.vae = state, vae
        self.seen: float | None = None
        self.step: AbstractContextManager[None] | None = None
        steps, strength = state.request.num_inference_steps or 0, state.request.strength
        state.steps = steps if strength is None else min(int(steps * strength), steps)

    def before(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        names = list(inspect.signature(module.forward).parameters)
        given = dict(zip(names, args, strict=False)) | kwargs
        timestep = given.get("timestep", given.get("t"))
        now = float(timestep.max()) if isinstance(timestep, torch.Tensor) else timestep
        if now == self.seen:
            return
        if self.state.wants_x0:
            self._look(given.get("sample", given.get("hidden_states")))
        if self.step is not None:
            self._done()
        else:
            self.state.control.check()
        self.seen = now
        self.step = self.state.profile.step()
        self.step.__enter__()

    def _look(self, latents: Any) -> None:
        """Keep the latents of a picture or a clip for a preview: noisy ones, x0 is the pipeline's own."""
        channels = getattr(self.vae.config, "latent_channels", None) or getattr(self.vae.config, "z_dim", None)
        if isinstance(latents, torch.Tensor) and latents.ndim in (4, 5) and latents.shape[1] == channels:
            self.state.x0 = latents[-1:]  # the conditional one, where both branches of guidance share a forward

    def finish(self) -> None:
        """Count the last step, which ends when the VAE decodes or, without one, with the call."""
        if self.step is not None:
            self._done()
            self.state.steps = self.state.step

    def _done(self) -> None:
        assert self.step is not None
        self.step.__exit__(None, None, None)
        self.step = None
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
