"""In which precision each component is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engine.catalog import ModelSpec
from engine.config import EngineConfig
from engine.errors import UsageError

ENCODERS = ("text_encoder", "vision_language_encoder")
DENOISERS = ("transformer", "unet", "prior", "critic")
WITHOUT_WEIGHTS = ("tokenizer", "scheduler", "feature_extractor", "processor", "image_processor")


def plan(components: Iterable[str], config: EngineConfig, spec: ModelSpec) -> dict[str, str]:
    """Return `fp16`, `bf16` or `fp32` for each component with weights: what was asked for, else the model's own.

    The loader applies it while it reads the weights: a cast afterwards would destroy parts that a model keeps in fp32.
    Raises UsageError when `text_encoder_precisions` has neither one entry nor one per text encoder.
    """
    names = [name for name in components if not name.startswith(WITHOUT_WEIGHTS)]
    encoders = sorted(name for name in names if name.startswith(ENCODERS))
    wanted = config.text_encoder_precisions or ()
    if len(wanted) > 1 and len(wanted) != len(encoders):
        raise UsageError(
            f"text_encoder_precisions: {spec.id} has {len(encoders)} text encoders "
            f"({', '.join(encoders)}), got {len(wanted)} values",
            param="text_encoder_precisions",
        )
    asked: dict[str, str | None] = {"vae": config.vae_precision, "image_encoder": config.image_encoder_precision}
    asked |= dict(zip(encoders, wanted * len(encoders) if len(wanted) == 1 else wanted, strict=False))
    asked |= {name: config.dit_precision for name in names if name.startswith(DENOISERS)}
    return {name: asked.get(name) or spec.default_precision(name) for name in names}


def autocast(planned: Mapping[str, str], config: EngineConfig) -> bool:
    """Say whether a stock call must cast what goes from one component to the next; native families do it themselves."""
    return len(set(planned.values())) > 1 and not config.disable_autocast


def halves(config: EngineConfig, spec: ModelSpec) -> tuple[str, str] | None:
    """Return the precisions of a VAE's encoder and decoder, if they differ. It is then loaded in fp32."""
    encoder = config.vae_precision or spec.default_precision("vae")
    decoder = config.vae_decode_precision or encoder
    return (encoder, decoder) if encoder != decoder else None
