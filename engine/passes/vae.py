"""How the VAE works: in tiles, in slices, in which precision each of its halves, and in how much memory."""

from __future__ import annotations

from typing import Any

import torch

from engine.config import EngineConfig
from engine.errors import UsageError, listed

TILES = tuple(f"tile_sample_{kind}_{axis}" for axis in ("height", "width", "num_frames") for kind in ("min", "stride"))
ENCODER, DECODER = ("encoder", "quant_conv"), ("decoder", "post_quant_conv")
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
OVER_TIME = ("use_framewise_encoding", "use_framewise_decoding")
# Feature maps of a VAE decoder that are alive together at its widest full-resolution layer, measured on FLUX's.
LIVE_MAPS = 4
# The same for VAEs of the Wan kind: with one frame, with more. Measured on those of Wan 2.1 and Qwen-Image, and on that
# of Wan 2.2 5B (residual).
LIVE_MAPS_BY_FRAME = {False: (11.1, 7.5), True: (14.5, 11.7)}


def is_wan_kind(config: Any) -> bool:
    """Whether a VAE's config is of the Wan kind, which decodes a frame after another and keeps what the next needs.

    A fact of the VAE and not of the family: any model may be given another VAE.
    """
    return "base_dim" in config


def peak_bytes(vae: Any, grid: tuple[int, int], frames: int) -> float:
    """Return an estimate of the memory that decoding all at once takes, beside the weights."""
    if vae is None:
        return 0.0
    config, picture = vae.config, grid[0] * grid[1]
    if not is_wan_kind(config):
        channels = getattr(config, "block_out_channels", (128, 256))
        return float(picture * frames * max(channels[:2]) * vae.dtype.itemsize * LIVE_MAPS)
    alone, together = LIVE_MAPS_BY_FRAME[bool(config.get("is_residual"))]
    live = alone if frames == 1 else together * 4  # a latent frame is 4 frames, but for the first
    patch = config.get("patch_size") or 1
    widest = 2 * (config.get("decoder_base_dim") or config["base_dim"])
    values = picture * (widest * live / patch**2 + 3 * frames)
    return float(values * vae.dtype.itemsize)


def apply(vae: Any, config: EngineConfig, halves: tuple[str, str] | None = None) -> None:
    """Set a VAE up as the settings say; `halves` are the precisions of encoder and decoder, if they differ."""
    if vae is None:
        return
    for name, value in tiles(vae, config).items():
        setattr(vae, name, value)
    if config.vae_tiling and hasattr(vae, "enable_tiling"):
        vae.enable_tiling()
    if config.vae_slicing and hasattr(vae, "enable_slicing"):
        vae.enable_slicing()
    for parts, precision in zip((ENCODER, DECODER), halves or (), strict=False):
        for part in filter(None, (getattr(vae, name, None) for name in parts)):
            part.to(DTYPES[precision])
            part.register_forward_pre_hook(_cast, with_kwargs=True)


def _cast(module: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Bring what a half of a VAE is given into its own precision."""
    dtype = next(module.parameters()).dtype

    def cast(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    return tuple(map(cast, inputs)), {name: cast(value) for name, value in named.items()}


def asks(config: EngineConfig) -> bool:
    """Whether a setting depends on what tiles a VAE has."""
    wanted = config.vae_config
    names = (*TILES, "blend_num_frames", "use_temporal_tiling")
    return not wanted.load_decoder or any(getattr(wanted, name) is not None for name in names)


def tiles(vae: Any, config: EngineConfig) -> dict[str, Any]:
    """Return the attributes of a VAE that the settings change. A VAE without weights will do.

    Raises UsageError for tiles that the VAE does not have or cannot work with.
    """
    if not config.vae_config.load_decoder:
        message = "vae_config.load_decoder: must be true: pictures and clips are what the decoder makes"
        raise UsageError(message, param="vae_config")
    asked = {name: getattr(config.vae_config, name) for name in TILES}
    asked = {name: value for name, value in asked.items() if value is not None}
    found = _square(vae, asked, config) if hasattr(vae, "tile_sample_min_size") else _sides(vae, asked, config)
    return found | _over_time(vae, config)


def _refuse(name: str, problem: str) -> UsageError:
    return UsageError(f"vae_config.{name}: {problem}", param="vae_config")


def _sides(vae: Any, asked: dict[str, int], config: EngineConfig) -> dict[str, Any]:
    """Tiles with a height, a width and perhaps a length of their own."""
    known = [name for name in TILES if hasattr(vae, name)]
    asked = dict(asked)
    blended = config.vae_config.blend_num_frames
    if blended is not None:
        if "tile_sample_stride_num_frames" in asked:
            raise _refuse("blend_num_frames", "excludes tile_sample_stride_num_frames; give one of them")
        if "tile_sample_stride_num_frames" not in known:
            raise _refuse("blend_num_frames", f"{type(vae).__name__} has no tiles over time")
        length = asked.get("tile_sample_min_num_frames", vae.tile_sample_min_num_frames)
        factor = vae.temporal_compression_ratio
        if not 0 <= blended < length or (length - blended) % factor:
            problem = f"must be below the {length} frames of a tile by a multiple of {factor}, got {blended}"
            raise _refuse("blend_num_frames", problem)
        asked["tile_sample_stride_num_frames"] = length - blended
    derived: dict[str, int] = {}
    for name, value in asked.items():
        if name not in known:
            of = listed(known or ("none",))
            raise _refuse(name, f"{type(vae).__name__} has no such tiles; what can be set: {of}")
        over_time = name.endswith("num_frames")
        factor = vae.temporal_compression_ratio if over_time else vae.spatial_compression_ratio
        _check_multiple(name, value, factor)
        stride = name.replace("min", "stride")
        if stride not in asked:  # what the tile's own stride was to its size
            steps = value * getattr(vae, stride) // (getattr(vae, name) * factor)
            derived[stride] = max(1, steps) * factor
    asked |= derived
    whole = {name: asked.get(name, getattr(vae, name)) for name in known}
    for name in (name for name in asked if whole[name.replace("min", "stride")] > whole[name.replace("stride", "min")]):
        size = whole[name.replace("stride", "min")]
        raise _refuse(name, f"a stride of {whole[name.replace('min', 'stride')]} leaves gaps between tiles of {size}")
    return asked


def _square(vae: Any, asked: dict[str, int], config: EngineConfig) -> dict[str, Any]:
    """Tiles that are as high as wide, and overlap by a share of that."""
    if "tile_sample_min_num_frames" in asked or "tile_sample_stride_num_frames" in asked:
        raise _refuse("tile_sample_min_num_frames", f"{type(vae).__name__} has no tiles over time")
    if config.vae_config.blend_num_frames is not None:
        raise _refuse("blend_num_frames", f"{type(vae).__name__} has no tiles over time")
    before = vae.tile_sample_min_size if isinstance(vae.tile_sample_min_size, int) else vae.tile_sample_min_size[0]
    factor = before // vae.tile_latent_min_size
    values = {}
    for kind in ("min", "stride"):
        sides = {asked[name] for name in asked if name.startswith(f"tile_sample_{kind}")}
        if len(sides) > 1:
            name = f"tile_sample_{kind}_width"
            raise _refuse(
                name, f"{type(vae).__name__} has square tiles; give it the value of the height, or leave it out"
            )
        values[kind] = sides.pop() if sides else None
    size, stride = values["min"], values["stride"]
    changed: dict[str, Any] = {}
    if size is not None:
        _check_multiple("tile_sample_min_height", size, factor)
        changed = {"tile_sample_min_size": size, "tile_latent_min_size": size // factor}
    if stride is not None:
        if stride > (size or before):
            message = f"a stride of {stride} leaves gaps between tiles of {size or before}"
            raise _refuse("tile_sample_stride_height", message)
        changed["tile_overlap_factor"] = 1 - stride / (size or before)
    return changed


def _check_multiple(name: str, value: int, factor: int) -> None:
    if value < 1 or value % factor:
        raise _refuse(name, f"must be a multiple of {factor}, got {value}")


def _over_time(vae: Any, config: EngineConfig) -> dict[str, Any]:
    wanted = config.vae_config.use_temporal_tiling
    if wanted is None:
        return {}
    known = [name for name in OVER_TIME if hasattr(vae, name)]
    if wanted and not known:
        raise _refuse("use_temporal_tiling", f"{type(vae).__name__} has no tiles over time")
    return dict.fromkeys(known, wanted)
