"""Every noun that travels between rooms: Request, State, Output, Artifact, Progress, LoraRef, the Model protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from engine.schema import Ge, Gt, Le, MaxLen, Opt

if TYPE_CHECKING:
    import numpy as np
    import torch

    from engine.catalog import ModelSpec
    from engine.profiler import Profile
    from engine.runtime.control import Control
    from engine.stages import Stage

Task = Literal["T2I", "I2I", "TI2I", "T2V", "I2V", "TI2V", "V2V"]
MAX_SEED = 2**63 - 1
Seed = Annotated[int, Ge(0), Le(MAX_SEED)]
Quality = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]
ImageFormat = Literal["png", "jpeg", "webp"]

SAMPLING, OUTPUT, POST, PROFILING = "Sampling", "Output", "Post-processing", "Profiling"
CACHING, LORA = "Step caching and prompt cache", "LoRA"

# Settings that an engine takes as its default and a request may override are described once and used in both.
FlowShift = Annotated[float | None, Gt(0), Opt("Flow-matching shift", "Precision and VAE", optional=True)]
EmbeddedGuidance = Annotated[
    float | None, Ge(0), Opt("Embedded guidance of the Hunyuan family", "Precision and VAE", optional=True)
]
EnableCacheDit = Annotated[
    bool | None, Opt("Cache-DiT step caching", CACHING, env=("SGLANG_CACHE_DIT_ENABLED",), later=True)
]
EnableTeaCache = Annotated[bool, Opt("TeaCache, for models with coefficients; excludes Cache-DiT", CACHING, later=True)]
CfgGateStep = Annotated[
    float, Ge(0), Le(1), Opt("Share of the steps that run the unconditional branch", CACHING, later=True)
]
DiffusersKwargs = Annotated[
    dict[str, Any], Opt("Extra arguments for the call of a diffusers pipeline", "Model and loading", metavar="JSON")
]


@dataclass(frozen=True, slots=True)
class LoraRef:
    """One adapter of a LoRA set: a cached name or a path, how strongly, and on which component."""

    name: Annotated[str | None, Opt("Nickname of a loaded adapter", LORA)] = None
    path: Annotated[str | None, Opt("File, folder or hub id", LORA)] = None
    scale: Annotated[float, Opt("Strength; 1 is as trained", LORA)] = 1.0
    target: Annotated[str, Opt("Component to apply it to", LORA)] = "all"
    weight_name: Annotated[str | None, Opt("File of a folder or repository with several", LORA)] = None
    alpha: Annotated[int | None, Gt(0), Opt("Training alpha, when the file lacks it", LORA)] = None
    modules: Annotated[tuple[str, ...] | None, Opt("Only modules whose name ends so", LORA)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to draw. JSON-able; None stands for the model's default (see `engine.resolve`)."""

    prompt: Annotated[str | None, MaxLen(32_000), Opt("What to draw", SAMPLING)] = None
    negative_prompt: Annotated[
        str | None,
        MaxLen(32_000),
        Opt("What to keep out; needs true classifier-free guidance", SAMPLING, optional=True),
    ] = None
    image_path: Annotated[
        tuple[str, ...] | None,
        MaxLen(16),
        Opt("Input images: files, URLs, data URIs", SAMPLING, aliases=("image_paths",), optional=True, metavar="IMAGE"),
    ] = None
    mask_path: Annotated[
        str | None, Opt("Mask of the first image; white or transparent = change", SAMPLING, optional=True)
    ] = None
    video_path: Annotated[tuple[str, ...] | None, Opt("Input video", SAMPLING, optional=True, later=True)] = None
    strength: Annotated[
        float | None, Ge(0), Le(1), Opt("Share of noise put on the input image", SAMPLING, optional=True)
    ] = None
    num_inference_steps: Annotated[
        int | None, Ge(1), Le(1000), Opt("Denoising steps", SAMPLING, aliases=("steps",))
    ] = None
    guidance_scale: Annotated[
        float | None, Ge(0), Opt("Guidance, embedded or classifier-free as the model defines", SAMPLING, optional=True)
    ] = None
    guidance_scale_2: Annotated[
        float | None, Ge(0), Opt("Guidance of the low-noise expert", SAMPLING, optional=True)
    ] = None
    boundary_ratio: Annotated[
        float | None, Ge(0), Le(1), Opt("Where the low-noise expert takes over", SAMPLING, optional=True)
    ] = None
    true_cfg_scale: Annotated[
        float | None, Ge(0), Opt("Classifier-free guidance where guidance_scale is embedded", SAMPLING, optional=True)
    ] = None
    guidance_rescale: Annotated[float | None, Ge(0), Opt("Rescale the guided prediction", SAMPLING, optional=True)] = (
        None
    )
    cfg_normalization: Annotated[
        float | None, Ge(0), Opt("Cap the norm of the guided prediction", SAMPLING, optional=True)
    ] = None
    flow_shift: FlowShift = None
    embedded_cfg_scale: EmbeddedGuidance = None
    seed: Annotated[
        Seed | tuple[Seed, ...] | None,
        Opt("Output i uses seed + i, or entry i of a list; random when absent", SAMPLING),
    ] = None
    generator_device: Annotated[
        Literal["cpu", "cuda"], Opt("Where noise is drawn; cpu gives the same noise on every device", SAMPLING)
    ] = "cpu"
    height: Annotated[int | None, Ge(1), Opt("Height in pixels", SAMPLING)] = None
    width: Annotated[int | None, Ge(1), Opt("Width in pixels", SAMPLING)] = None
    num_frames: Annotated[int | None, Ge(1), Opt("Frames of a video", SAMPLING, optional=True)] = None
    fps: Annotated[int | None, Ge(1), Le(120), Opt("Frames per second of a video", SAMPLING, optional=True)] = None
    num_outputs_per_prompt: Annotated[
        int, Ge(1), Le(10), Opt("Outputs per prompt", SAMPLING, aliases=("num_samples", "num_outputs", "n"))
    ] = 1
    max_sequence_length: Annotated[int | None, Ge(1), Opt("Prompt token limit", SAMPLING, optional=True)] = None
    quality: Annotated[
        Quality, Opt("Steps x 0.5, 0.75, 1, 1.25, 1.5 for low to max; few-step models ignore it", SAMPLING)
    ] = "auto"
    loras: Annotated[tuple[LoraRef, ...] | None, Opt("LoRA set of this request alone", LORA, metavar="JSON")] = None
    enable_cache_dit: EnableCacheDit = None
    cache_dit_params: Annotated[
        dict[str, Any] | None, Opt("Cache-DiT settings of this request", CACHING, later=True, metavar="JSON")
    ] = None
    enable_teacache: EnableTeaCache = False
    cfg_gate_step: CfgGateStep = 1.0
    attention_backend_override: Annotated[
        str | None, Opt("Attention backend of this request", "Attention", later=True)
    ] = None
    diffusers_kwargs: DiffusersKwargs = field(default_factory=dict)
    output_format: Annotated[
        Literal["png", "jpeg", "webp", "mp4", "gif"] | None, Opt("File format; png, or mp4 for a video", OUTPUT)
    ] = None
    output_quality: Annotated[
        Literal["default", "low", "medium", "high", "maximum"],
        Opt("35, 55, 90, 100 of 100; default: 75 for images, 50 for video", OUTPUT),
    ] = "default"
    output_compression: Annotated[
        int | None, Ge(0), Le(100), Opt("Higher = better and larger; wins over output_quality; not for png", OUTPUT)
    ] = None
    x264_preset: Annotated[
        Literal[
            "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
        ],
        Opt("Encoder preset of mp4 files", OUTPUT),
    ] = "fast"
    embed_recipe: Annotated[
        bool, Opt("Put the recipe into the file, so that it can be made again", OUTPUT, aliases=("metadata",))
    ] = True
    enable_frame_interpolation: Annotated[bool, Opt("RIFE frame interpolation", POST, later=True)] = False
    frame_interpolation_exp: Annotated[
        int, Ge(1), Le(4), Opt("1 doubles the frames, 2 makes four", POST, later=True)
    ] = 1
    frame_interpolation_scale: Annotated[
        float, Ge(0.25), Le(4), Opt("Flow scale; 0.5 for high resolution", POST, later=True)
    ] = 1.0
    frame_interpolation_model_path: Annotated[str | None, Opt("RIFE weights", POST, later=True)] = None
    enable_upscaling: Annotated[bool, Opt("Super-resolution, after interpolation", POST, later=True)] = False
    upscaling_scale: Annotated[int, Ge(1), Le(8), Opt("Upscaling factor", POST, later=True)] = 4
    upscaling_model_path: Annotated[str | None, Opt("Upscaler: file, repo or repo:file", POST, later=True)] = None
    profile: Annotated[bool, Opt("Trace the denoising steps", PROFILING, later=True)] = False
    num_profiled_timesteps: Annotated[
        int, Ge(-1), Opt("Steps traced after one warm-up step; -1 = all", PROFILING, later=True)
    ] = 5
    profile_all_stages: Annotated[bool, Opt("Trace every stage; implies profile", PROFILING, later=True)] = False

    def replace(self, **changes: Any) -> Request:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes) if changes else self

    def resolve(self, spec: ModelSpec) -> Request:
        """Return the same request with every default of `spec` filled in and every rule of it checked."""
        from engine.resolve import resolve  # this is the noun's door to the rules

        return resolve(self, spec)

    def outputs(self) -> tuple[Request, ...]:
        """Split a resolved request into one request per output, each with its own seed and `n = 1`."""
        count = self.num_outputs_per_prompt
        assert self.seed is not None, "resolve the request first"
        seeds = self.seed if isinstance(self.seed, tuple) else tuple(self.seed + i for i in range(count))
        return tuple(self.replace(seed=seed, num_outputs_per_prompt=1) for seed in seeds)


@dataclass(slots=True)
class State:
    """One run. Each slot is written by one stage, named in the comment; later stages read it.

    Shapes are the family's own; `latents` may be packed to (1, tokens, channels).
    """

    request: Request  # resolved, one output
    index: int  # which output of the request it was split from
    control: Control  # begin: cancel in, progress out
    profile: Profile  # begin: spans and step marks of this run alone
    tick: Callable[[State], None]  # begin: called after every step; progress, preview, cancel
    device: torch.device
    grid: tuple[int, int]  # begin: height and width that the network runs at, in pixels
    generator: torch.Generator  # begin: the only source of noise
    cond: dict[str, Any] = field(default_factory=dict)  # encode: the network's own argument names
    uncond: dict[str, Any] | None = None  # encode: None without classifier-free guidance
    image: torch.Tensor | None = None  # encode: (1, 3, H, W) in [-1, 1]
    scheduler: Any = None  # schedule: a copy of the model's own
    timesteps: torch.Tensor | None = None  # schedule: (steps,)
    steps: int = 0  # schedule: denoising steps, fewer than asked for when the run starts from an image
    image_latents: torch.Tensor | None = None  # encode: the input image that the run starts from, packed like `latents`
    reference: torch.Tensor | None = None  # encode: latents that the network sees beside its own in every step
    mask: torch.Tensor | None = None  # encode: 1 = change, packed like `latents`
    noise: torch.Tensor | None = None  # latents
    latents: torch.Tensor | None = None  # latents, then denoise
    step: int = 0  # denoise: steps done
    wants_x0: bool = False  # before each step: somebody looks at previews, and the VAE allows them
    x0: torch.Tensor | None = None  # denoise: prediction of the clean latents, kept only for a preview
    pixels: torch.Tensor | None = None  # decode: (frames, H, W, 3) in [0, 1]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one output is. `step` counts finished steps; `eta_s` covers the steps that are left."""

    stage: str
    step: int = 0
    steps: int = 0
    elapsed_s: float = 0.0
    eta_s: float | None = None
    index: int = 0  # which output of the request
    preview: bytes | None = field(default=None, repr=False)  # JPEG, longer side at most 256 px


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one output went, in milliseconds, its memory, in MB, and its length in tokens."""

    total_ms: float
    stages: tuple[tuple[str, float], ...]
    denoise_steps: tuple[float, ...]
    memory: Mapping[str, Mapping[str, float]]
    peak_memory_mb: float
    tokens: Mapping[str, int] = field(default_factory=dict)  # of the prompt (text), input images (image), latents


@dataclass(frozen=True, slots=True)
class Output:
    """One finished output: `frames` is uint8 (frames, height, width, 3) on the CPU."""

    frames: np.ndarray[Any, Any]
    request: Request  # resolved, with its own seed
    recipe: Mapping[str, Any]
    timings: Timings
    index: int = 0

    @property
    def seed(self) -> int:
        assert isinstance(self.request.seed, int)
        return self.request.seed

    def save(self, path: str) -> Artifact:
        """Write the file; its suffix names the format. Raises OutputError when the place is not writable."""
        from engine.storage import save

        return save(self, path)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A delivered file: a local path, or nothing but the key of an object in cloud storage."""

    location: str
    media_type: str
    width: int
    height: int
    frames: int
    seed: int
    fps: int | None = None
    key: str | None = None  # in cloud storage


class Model(Protocol):
    """What a family says about itself: at most eight verbs on a State. `engine.models.base` has the defaults.

    Around the verbs: `stages` lists what runs before the first step, `grid` gives the size the network runs at,
    `offload` may see to offloading itself, `clean` predicts the clean latents, and `latent_image` lays them out as
    (1, channels, height, width) for a preview.
    """

    spec: ModelSpec
    components: dict[str, Any]
    exclusive: bool
    masked: bool  # whether the attention masks of its network hide anything

    def encode(self, state: State) -> None: ...
    def encode_image(self, state: State) -> None: ...
    def noise(self, state: State) -> None: ...
    def schedule(self, state: State) -> None: ...
    def denoiser(self, state: State) -> str: ...
    def predict(self, state: State, network: Any, cond: Mapping[str, Any]) -> torch.Tensor: ...
    def guide(self, state: State, cond: torch.Tensor, uncond: torch.Tensor | None) -> torch.Tensor: ...
    def decode(self, state: State) -> None: ...

    def offload(self, device: torch.device) -> bool: ...
    def stages(self) -> Sequence[Stage]: ...
    def grid(self, request: Request) -> tuple[int, int]: ...
    def clean(self, state: State, prediction: torch.Tensor) -> torch.Tensor: ...
    def latent_image(self, state: State, latents: torch.Tensor) -> torch.Tensor: ...
