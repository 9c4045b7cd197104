"""Tiny random-weight models in the folder layout of the real ones, made in seconds and without network."""

from __future__ import annotations

import argparse
import string
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine import log
from engine.errors import SgdiffError, UsageError, listed, suggest

HIDDEN = 32  # width of every text encoder
HEADS = 4  # so that two and four devices can share them
HEAD_DIM = 16


def make(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a random-weight model of `family` to `folder` and return it; the same seed gives the same weights.

    The folder appears complete or not at all. Raises UsageError for an unknown family or a folder that is in use.
    """
    if family not in FAMILIES:
        raise UsageError(f"family: '{family}' is not known{suggest(family, FAMILIES)}; known: {listed(FAMILIES)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: exists and is not an empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    import torch

    log.quiet_libraries()
    with torch.random.fork_rng(devices=[]):
        pipeline = FAMILIES[family](Seeds(seed))
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
        built = Path(place) / "model"
        pipeline.save_pretrained(str(built), safe_serialization=True)
        try:
            built.rename(folder)
        except OSError:
            if not (folder / "model_index.json").is_file():  # otherwise another process was faster
                raise
    return folder


class Seeds:
    """Give every module its own seed, so that one more module does not change the others."""

    def __init__(self, seed: int) -> None:
        self.next = seed * 1000

    def build(self, cls: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Build one module from the next seed, in eval mode."""
        import torch

        torch.manual_seed(self.next)
        self.next += 1
        return cls(*args, **kwargs).eval()


def _new(cls: Any, **parts: Any) -> Any:
    return cls(**parts)  # diffusers leaves constructors untyped


def clip_tokenizer() -> Any:
    """One token per byte, and per byte that ends a word."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    symbols = sorted(ByteLevel.alphabet())
    names = [*symbols, *(f"{symbol}</w>" for symbol in symbols), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={name: i for i, name in enumerate(names)}, merges=[], model_max_length=77)


def t5_tokenizer() -> Any:
    """One token per character; a character outside printable ASCII is unknown."""
    from transformers import T5Tokenizer

    letters = string.ascii_letters + string.digits + string.punctuation
    vocab = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("▁", -2.0),
        *((letter, -3.0) for letter in letters),
    ]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=512)


def clip_encoder(seeds: Seeds, tokenizer: Any, projection: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        projection_dim=HIDDEN,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,  # the pooled vector is taken at the first of these
        pad_token_id=tokenizer.pad_token_id,
    )
    return seeds.build(CLIPTextModelWithProjection if projection else CLIPTextModel, config)


def t5_sizes(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "d_model": HIDDEN,
        "d_ff": 2 * HIDDEN,
        "d_kv": HIDDEN // HEADS,
        "num_heads": HEADS,
        "num_layers": 2,
        "feed_forward_proj": "gated-gelu",
    }


def image_vae(seeds: Seeds, **config: Any) -> Any:
    """Return a VAE of the real factor 8 with the smallest channels."""
    from diffusers import AutoencoderKL

    return seeds.build(
        AutoencoderKL,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
        latent_channels=4,
        **config,
    )


def flux(seeds: Seeds, guidance_embeds: bool = True) -> Any:
    """Build FLUX.1-dev, or schnell when it has no guidance embedding."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        FluxPipeline,
        FluxTransformer2DModel,
    )
    from transformers import T5Config, T5EncoderModel

    dynamic = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    return _new(
        FluxPipeline,
        scheduler=_new(
            FlowMatchEulerDiscreteScheduler,
            shift=3.0 if guidance_embeds else 1.0,
            **(dynamic if guidance_embeds else {}),
        ),
        vae=image_vae(
            seeds,
            use_quant_conv=False,
            use_post_quant_conv=False,
            scaling_factor=0.3611,
            shift_factor=0.1159,
        ),
        text_encoder=clip_encoder(seeds, clip),
        tokenizer=clip,
        text_encoder_2=seeds.build(T5EncoderModel, T5Config(**t5_sizes(t5))),
        tokenizer_2=t5,
        transformer=seeds.build(
            FluxTransformer2DModel,
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=HEAD_DIM,
            num_attention_heads=HEADS,
            joint_attention_dim=HIDDEN,
            pooled_projection_dim=HIDDEN,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(4, 6, 6),
        ),
    )


def flux_schnell(seeds: Seeds) -> Any:
    return flux(seeds, guidance_embeds=False)


def wan(seeds: Seeds) -> Any:
    """Build Wan2.1 text-to-video."""
    from diffusers import (
        AutoencoderKLWan,
        UniPCMultistepScheduler,
        WanPipeline,
        WanTransformer3DModel,
    )
    from transformers import UMT5Config, UMT5EncoderModel

    tokenizer = t5_tokenizer()
    return _new(
        WanPipeline,
        tokenizer=tokenizer,
        text_encoder=seeds.build(UMT5EncoderModel, UMT5Config(**t5_sizes(tokenizer))),
        vae=seeds.build(
            AutoencoderKLWan,
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        scheduler=_new(
            UniPCMultistepScheduler, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        transformer=seeds.build(
            WanTransformer3DModel,
            num_attention_heads=HEADS,
            attention_head_dim=HEAD_DIM,
            in_channels=4,
            out_channels=4,
            text_dim=HIDDEN,
            freq_dim=32,
            ffn_dim=64,
            num_layers=2,
            rope_max_seq_len=64,
        ),
    )


def sdxl(seeds: Seeds) -> Any:
    """Build SDXL, which has no code of its own here and runs through the stock pipeline."""
    from diffusers import (
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )

    first, second = clip_tokenizer(), clip_tokenizer()
    return _new(
        StableDiffusionXLPipeline,
        vae=image_vae(seeds, scaling_factor=0.13025, force_upcast=True),
        text_encoder=clip_encoder(seeds, first),
        text_encoder_2=clip_encoder(seeds, second, projection=True),
        tokenizer=first,
        tokenizer_2=second,
        unet=seeds.build(
            UNet2DConditionModel,
            sample_size=8,
            down_block_types=(
                "DownBlock2D",
                "CrossAttnDownBlock2D",
                "CrossAttnDownBlock2D",
            ),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(8, 16, 16),
            layers_per_block=1,
            transformer_layers_per_block=[1, 1, 2],
            attention_head_dim=[2, 4, 4],
            cross_attention_dim=2 * HIDDEN,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=HIDDEN + 6 * 8,  # pooled text and six embedded numbers
            norm_num_groups=4,
        ),
        scheduler=_new(
            EulerDiscreteScheduler,
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
        add_watermarker=False,
    )


FAMILIES: dict[str, Callable[[Seeds], Any]] = {
    "flux": flux,
    "flux-schnell": flux_schnell,
    "wan": wan,
    "sdxl": sdxl,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the model that a command line asks for, print its folder and return the exit status."""
    parser = argparse.ArgumentParser(prog="make_tiny_model", description=__doc__)
    parser.add_argument("family", help=listed(FAMILIES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    try:
        sys.stdout.write(f"{make(given.family, given.folder, given.seed)}\n")
    except SgdiffError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
