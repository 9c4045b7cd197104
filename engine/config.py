"""How an engine is built and runs: EngineConfig and its nested parts, frozen, described once."""

# No annotations as text here: evaluating two hundred of them would take a sixth of a help page.

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from engine.schema import Ge, Gt, Le, Opt
from engine.types import CACHING, CfgGateStep, EmbeddedGuidance, EnableCacheDit, EnableTeaCache, FlowShift

Precision = Literal["fp16", "bf16", "fp32"]
AttentionBackend = Literal[
    "fa", "fa2", "fa3", "fa4", "torch_sdpa", "torch_cudnn_sdpa", "sage_attn", "sage_attn_3",
    "sliding_tile_attn", "video_sparse_attn", "vmoba_attn", "aiter",
]  # fmt: skip
UNBUILT_ATTENTION = ("sage_attn", "sage_attn_3", "sliding_tile_attn", "video_sparse_attn", "vmoba_attn", "aiter")

LOADING, PRECISION, PARALLEL, ATTENTION = "Model and loading", "Precision and VAE", "Parallelism", "Attention"
MEMORY, LORA_START, QUANT = "Memory and offload", "LoRA at start", "Quantization"
COMPILE = "Compile, graphs, warm-up"


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeConfig:
    """Which halves of the VAE are loaded, and how it tiles."""

    load_encoder: Annotated[bool | None, Opt("Load the VAE encoder; by task when absent", PRECISION)] = None
    load_decoder: Annotated[bool, Opt("Load the VAE decoder", PRECISION)] = True
    tile_sample_min_height: Annotated[int | None, Ge(1), Opt("Tile height in pixels", PRECISION)] = None
    tile_sample_min_width: Annotated[int | None, Ge(1), Opt("Tile width in pixels", PRECISION)] = None
    tile_sample_min_num_frames: Annotated[int | None, Ge(1), Opt("Tile length in frames", PRECISION)] = None
    tile_sample_stride_height: Annotated[int | None, Ge(1), Opt("Stride in pixels", PRECISION)] = None
    tile_sample_stride_width: Annotated[int | None, Ge(1), Opt("Stride in pixels", PRECISION)] = None
    tile_sample_stride_num_frames: Annotated[int | None, Ge(1), Opt("Stride in frames", PRECISION)] = None
    blend_num_frames: Annotated[int | None, Ge(0), Opt("Frames blended between tiles", PRECISION)] = None
    use_temporal_tiling: Annotated[bool | None, Opt("Tile over time", PRECISION)] = None
    use_parallel_tiling: Annotated[bool | None, Opt("Spread tiles over GPUs", PRECISION, later=True)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DitConfig:
    """Settings of the transformer alone."""

    torch_compile_mode: Annotated[
        str | None, Opt("Mode of torch.compile", COMPILE, env=("SGLANG_TORCH_COMPILE_MODE",), later=True)
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NunchakuConfig:
    """SVDQuant settings."""

    enable_svdquant: Annotated[bool | None, Opt("Use SVDQuant weights", QUANT, later=True)] = None
    transformer_weights_path: Annotated[str | None, Opt("Quantized weights", QUANT, later=True)] = None
    quantization_precision: Annotated[Literal["int4", "nvfp4"] | None, Opt("Weight format", QUANT, later=True)] = None
    quantization_rank: Annotated[int | None, Ge(1), Opt("Rank of the low-rank branch", QUANT, later=True)] = None
    quantization_act_unsigned: Annotated[bool | None, Opt("Unsigned activations", QUANT, later=True)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheDitParams:
    """Cache-DiT settings; the environment names are those of the source documents."""

    Fn_compute_blocks: Annotated[
        int | None, Ge(0), Opt("First blocks always computed", CACHING, env=("SGLANG_CACHE_DIT_FN",), later=True)
    ] = None
    Bn_compute_blocks: Annotated[
        int | None, Ge(0), Opt("Last blocks always computed", CACHING, env=("SGLANG_CACHE_DIT_BN",), later=True)
    ] = None
    max_warmup_steps: Annotated[
        int | None, Ge(0), Opt("Steps before caching starts", CACHING, env=("SGLANG_CACHE_DIT_WARMUP",), later=True)
    ] = None
    residual_diff_threshold: Annotated[
        float | None, Ge(0), Opt("Lower = closer to uncached", CACHING, env=("SGLANG_CACHE_DIT_RDT",), later=True)
    ] = None
    max_continuous_cached_steps: Annotated[
        int | None, Ge(-1), Opt("Longest run of cached steps", CACHING, env=("SGLANG_CACHE_DIT_MC",), later=True)
    ] = None
    enable_taylorseer: Annotated[
        bool | None, Opt("Taylor-expansion prediction", CACHING, env=("SGLANG_CACHE_DIT_TAYLORSEER",), later=True)
    ] = None
    taylorseer_order: Annotated[
        int | None, Ge(1), Le(2), Opt("Order, 1 or 2", CACHING, env=("SGLANG_CACHE_DIT_TS_ORDER",), later=True)
    ] = None
    scm_preset: Annotated[
        Literal["none", "slow", "medium", "fast", "ultra"] | None,
        Opt("Step mask preset", CACHING, env=("SGLANG_CACHE_DIT_SCM_PRESET",), later=True),
    ] = None
    scm_policy: Annotated[
        Literal["dynamic", "static"] | None,
        Opt("Step mask policy", CACHING, env=("SGLANG_CACHE_DIT_SCM_POLICY",), later=True),
    ] = None
    scm_compute_bins: Annotated[
        tuple[int, ...] | None,
        Opt("Computed steps, alternating", CACHING, env=("SGLANG_CACHE_DIT_SCM_COMPUTE_BINS",), later=True),
    ] = None
    scm_cache_bins: Annotated[
        tuple[int, ...] | None,
        Opt("Cached steps, alternating", CACHING, env=("SGLANG_CACHE_DIT_SCM_CACHE_BINS",), later=True),
    ] = None
    secondary: Annotated[
        dict[str, Any] | None, Opt("The same keys for a second transformer", CACHING, later=True, metavar="JSON")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Everything that is fixed when an engine is built. None stands for: by model, or by device."""

    model_path: Annotated[str, Opt("Hub id, local folder or bundled name", LOADING, aliases=("model",))] = "tiny-scenes"
    model_id: Annotated[str | None, Opt("Catalog id, when a folder's name says nothing about the model", LOADING)] = (
        None
    )
    revision: Annotated[str | None, Opt("Branch, tag or commit of the hub", LOADING)] = None
    backend: Annotated[
        Literal["auto", "sglang", "native", "diffusers"],
        Opt("auto: native pipeline, else diffusers; sglang (or native): native or fail", LOADING),
    ] = "auto"
    trust_remote_code: Annotated[
        bool, Opt("Allow code shipped in a model repository, and weights that are not safetensors", LOADING)
    ] = False
    pipeline_class_name: Annotated[str | None, Opt("Force a pipeline class", LOADING, aliases=("pipeline",))] = None
    component_paths: Annotated[
        dict[str, str], Opt("Component key -> path or hub id; also --<component>-path", LOADING, metavar="JSON")
    ] = field(default_factory=dict)
    component_weights_paths: Annotated[
        dict[str, str],
        Opt("Component key -> weights alone; also --<component>-weights-path", LOADING, metavar="JSON"),
    ] = field(default_factory=dict)
    offline: Annotated[bool, Opt("Never use the network", LOADING)] = False
    load_format: Annotated[Literal["auto", "dummy"], Opt("dummy: random weights from the configs alone", LOADING)] = (
        "auto"
    )
    device: Annotated[Literal["auto", "cuda", "cpu", "mps"], Opt("Where to compute", LOADING)] = "auto"

    dit_precision: Annotated[
        Precision | None, Opt("Precision of the diffusion transformer", PRECISION, aliases=("precision",))
    ] = None
    vae_precision: Annotated[Precision | None, Opt("Precision of the VAE", PRECISION)] = None
    vae_decode_precision: Annotated[Precision | None, Opt("Precision of the VAE decoder", PRECISION)] = None
    image_encoder_precision: Annotated[Precision | None, Opt("Precision of the image encoder", PRECISION)] = None
    text_encoder_precisions: Annotated[
        tuple[Precision, ...] | None, Opt("One per text encoder, or one for all", PRECISION)
    ] = None
    disable_autocast: Annotated[
        bool, Opt("No casts between components of a stock pipeline that differ in precision", PRECISION)
    ] = False
    vae_tiling: Annotated[bool | None, Opt("Decode in tiles; auto: when the whole does not fit", PRECISION)] = None
    vae_slicing: Annotated[bool, Opt("Decode one batch item at a time", PRECISION)] = False
    vae_sp: Annotated[bool | None, Opt("Spatially parallel VAE decode", PRECISION, later=True)] = None
    vae_config: Annotated[VaeConfig, Opt("Parts and tiles of the VAE", PRECISION)] = field(default_factory=VaeConfig)
    flow_shift: FlowShift = None
    embedded_cfg_scale: EmbeddedGuidance = None

    num_gpus: Annotated[int, Ge(1), Opt("GPUs in all", PARALLEL, later=True)] = 1
    gpu_ids: Annotated[tuple[int, ...] | None, Opt("Which devices", PARALLEL, later=True)] = None
    tp_size: Annotated[int, Ge(1), Opt("Tensor parallelism", PARALLEL, later=True)] = 1
    sp_degree: Annotated[
        int | None, Ge(1), Opt("Sequence parallelism", PARALLEL, aliases=("sp_size",), later=True, neutral=(1,))
    ] = None
    ulysses_degree: Annotated[int | None, Ge(1), Opt("All-to-all part of it", PARALLEL, later=True, neutral=(1,))] = (
        None
    )
    ring_degree: Annotated[int, Ge(1), Opt("Ring part of it", PARALLEL, later=True)] = 1
    dp_size: Annotated[
        int,
        Ge(1),
        Opt("Replicas that serve different requests", PARALLEL, aliases=("dp", "data_parallel_size"), later=True),
    ] = 1
    dp_degree: Annotated[
        int | None, Ge(1), Opt("GPUs per replica; only checked", PARALLEL, later=True, neutral=(1,))
    ] = None
    enable_cfg_parallel: Annotated[
        bool | None, Opt("The two guidance branches on different GPUs", PARALLEL, later=True)
    ] = None
    cfg_parallel_size: Annotated[int | None, Ge(1), Opt("Degree; 1 = off", PARALLEL, later=True, neutral=(1,))] = None
    use_fsdp_inference: Annotated[bool, Opt("Shard transformer weights over GPUs", PARALLEL, later=True)] = False
    executor: Annotated[
        Literal["auto", "inline", "process", "ray"], Opt("Where the engine runs", PARALLEL, later=("process", "ray"))
    ] = "auto"
    dist_timeout: Annotated[int, Ge(1), Opt("Timeout of collectives in seconds", PARALLEL, later=True)] = 3600
    master_port: Annotated[int | None, Ge(1), Le(65535), Opt("Rendezvous port", PARALLEL, later=True)] = None

    attention_backend: Annotated[
        AttentionBackend | None,
        Opt("Attention of native pipelines; auto when absent", ATTENTION, later=UNBUILT_ATTENTION),
    ] = None
    attention_backend_config: Annotated[
        dict[str, Any], Opt("Options of that backend: JSON, path or k=v,k=v", ATTENTION, later=True, metavar="JSON")
    ] = field(default_factory=dict)
    component_attention_backends: Annotated[
        tuple[str, ...] | None, Opt("Per component, e.g. text_encoder=torch_sdpa", ATTENTION, later=True)
    ] = None
    diffusers_attention_backend: Annotated[str, Opt("Attention of diffusers pipelines", ATTENTION)] = "native"
    mask_strategy_file_path: Annotated[
        str | None,
        Opt(
            "Mask strategy of sliding tile attention", ATTENTION, env=("SGLANG_DIFFUSION_ATTENTION_CONFIG",), later=True
        ),
    ] = None

    performance_mode: Annotated[
        Literal["auto", "manual", "speed", "memory"],
        Opt("auto picks residency from free memory; manual touches nothing", MEMORY, aliases=("mode",)),
    ] = "auto"
    dit_cpu_offload: Annotated[bool | None, Opt("Transformer in host memory between uses", MEMORY)] = None
    dit_layerwise_offload: Annotated[bool | None, Opt("Stream transformer layers", MEMORY)] = None
    dit_offload_prefetch_size: Annotated[
        float, Ge(0), Opt("Layers prefetched: a share below 1, a count from 1", MEMORY, later=True)
    ] = 0.0
    text_encoder_cpu_offload: Annotated[bool | None, Opt("Text encoders in host memory between uses", MEMORY)] = None
    image_encoder_cpu_offload: Annotated[bool | None, Opt("Image encoder in host memory between uses", MEMORY)] = None
    vae_cpu_offload: Annotated[bool, Opt("VAE in host memory between uses", MEMORY)] = False
    layerwise_offload_components: Annotated[
        tuple[str, ...] | None,
        Opt(
            "Components to stream by layer; default = encoders and VAE", MEMORY, aliases=("layerwise_offload_modules",)
        ),
    ] = None
    pin_cpu_memory: Annotated[bool, Opt("Page-locked host memory for offload", MEMORY)] = True

    lora_path: Annotated[tuple[str, ...] | None, Opt("Adapters: files, folders or hub ids", LORA_START)] = None
    lora_nickname: Annotated[tuple[str, ...] | None, Opt("One per path", LORA_START)] = None
    lora_scale: Annotated[tuple[float, ...] | None, Opt("Strength, one or one per path", LORA_START)] = None
    lora_target_modules: Annotated[
        tuple[str, ...] | None, Opt("Only modules whose name ends so, e.g. to_q,to_k", LORA_START)
    ] = None
    lora_target: Annotated[
        tuple[str, ...] | None, Opt("all, transformer, transformer_2, unet, critic; one or one per path", LORA_START)
    ] = None
    lora_weight_name: Annotated[
        tuple[str, ...] | None, Opt("File of a repository with several, one or one per path", LORA_START)
    ] = None
    lora_alpha: Annotated[
        tuple[Annotated[int, Gt(0)], ...] | None,
        Opt("Training alpha, when the file lacks it, one or one per path", LORA_START),
    ] = None
    lora_merge_mode: Annotated[
        Literal["auto", "merge", "dynamic"],
        Opt("Merge into the weights or ride beside; auto: merge, but not where weights are offloaded", LORA_START),
    ] = "auto"

    nunchaku_config: Annotated[NunchakuConfig, Opt("SVDQuant settings", QUANT)] = field(default_factory=NunchakuConfig)
    enable_svdquant: Annotated[bool | None, Opt("Use SVDQuant weights", QUANT, later=True)] = None
    quantization_precision: Annotated[
        Literal["int4", "nvfp4"] | None, Opt("SVDQuant weight format", QUANT, later=True)
    ] = None
    quantization_rank: Annotated[int | None, Ge(1), Opt("SVDQuant rank", QUANT, later=True)] = None
    quantization_act_unsigned: Annotated[bool | None, Opt("SVDQuant activations", QUANT, later=True)] = None
    quantization: Annotated[str | None, Opt("Quantize on load: fp8, int8, ...", QUANT, later=True)] = None
    quantization_ignored_layers: Annotated[
        tuple[str, ...] | None, Opt("Name patterns kept in full precision", QUANT, later=True)
    ] = None

    enable_torch_compile: Annotated[bool, Opt("Compile hot paths", COMPILE, later=True)] = False
    regional_compile: Annotated[bool | None, Opt("Compile repeated blocks only", COMPILE, later=True)] = None
    dit_config: Annotated[DitConfig, Opt("Settings of the transformer", COMPILE)] = field(default_factory=DitConfig)
    enable_breakable_cuda_graph: Annotated[bool | None, Opt("CUDA graphs split at attention", COMPILE, later=True)] = (
        None
    )
    warmup_mode: Annotated[
        Literal["off", "request", "server"] | None, Opt("When to run a warm-up", COMPILE, later=("request",))
    ] = None
    warmup_steps: Annotated[int, Ge(1), Opt("Denoising steps of a warm-up run", COMPILE)] = 1
    warmup_resolutions: Annotated[tuple[str, ...] | None, Opt("Sizes to warm, WxH", COMPILE)] = None
    warmup_num_frames: Annotated[int | None, Ge(1), Opt("Frames to warm", COMPILE)] = None

    cache_dit_config: Annotated[
        dict[str, Any], Opt("Cache-DiT settings; giving them turns it on", CACHING, later=True, metavar="JSON")
    ] = field(default_factory=dict)
    enable_cache_dit: EnableCacheDit = None
    cache_dit_params: Annotated[CacheDitParams, Opt("Single Cache-DiT settings", CACHING)] = field(
        default_factory=CacheDitParams
    )
    enable_teacache: EnableTeaCache = False
    cfg_gate_step: CfgGateStep = 1.0
    disable_conditioning_cache: Annotated[
        bool, Opt("No reuse of prompt embeddings between requests", CACHING, later=True)
    ] = False
    conditioning_cache_max_size_mb: Annotated[
        float, Ge(0), Opt("Size of the prompt embedding cache", CACHING, later=True)
    ] = 512.0

    max_pixels: Annotated[int | None, Ge(1), Opt("Largest width x height x frames of one output", "Server")] = None
