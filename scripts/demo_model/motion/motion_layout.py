"""The parts of tiny-motion in Wan2.1's own layout: sizes, tokenizer, modules, and the folder they are saved to."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from layout import T5_SIZES, t5_tokenizer
from motion_words import caption
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel
from world import sample

TEXT_TOKENS = 64  # what embeddings are padded to with zeros, in training as in use
CHANNELS = 16
LATENTS = (CHANNELS, 9, 16, 24)  # of 33 frames of 128 x 192
SHIFT = 3.0
LIMIT = 16_000_000  # bytes on the disk, everything together
LARGEST = 15_000_000


def tokenizer(work: Path) -> T5Tokenizer:
    """The tokenizer, learnt from the caption grammar the first time it is asked for."""
    folder = work / "tokenizer"
    if not folder.exists():
        rng = random.Random(11)
        texts = [caption(sample(i), rng) for i in range(60_000)]
        part = folder.with_suffix(".part")
        t5_tokenizer(texts).save_pretrained(part)
        part.replace(folder)
    return T5Tokenizer.from_pretrained(folder)


def build_vae() -> AutoencoderKLWan:
    """Wan2.1's autoencoder. The decoder's widths are multiples of 32: others run ten times slower on a CPU."""
    return AutoencoderKLWan(
        base_dim=24,
        decoder_base_dim=32,
        z_dim=CHANNELS,
        dim_mult=[1, 2, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * CHANNELS,
        latents_std=[1.0] * CHANNELS,
    )


def build_text_encoder(tokenizer: T5Tokenizer) -> UMT5EncoderModel:
    return UMT5EncoderModel(UMT5Config(vocab_size=len(tokenizer), num_layers=3, **T5_SIZES))


def build_transformer() -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=6,
        attention_head_dim=32,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=128,
        freq_dim=128,
        ffn_dim=512,
        num_layers=8,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=256,
    )


def assemble(
    tokenizer: T5Tokenizer, text_encoder: UMT5EncoderModel, transformer: WanTransformer3DModel, vae: AutoencoderKLWan
) -> WanPipeline:
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT)
    pipe = WanPipeline(
        tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, scheduler=scheduler, transformer=transformer
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save(pipe: WanPipeline, folder: Path) -> None:
    """The pipeline as an fp16 safetensors folder; fp16 holds weights of this size eight times finer than bf16."""
    for module in (pipe.text_encoder, pipe.transformer, pipe.vae):
        for name, weight in module.state_dict().items():
            assert weight.abs().max() < 60_000 and weight.isfinite().all(), f"{name} does not fit fp16"
        torch.nn.Module.half(module)  # also what stays fp32 when it is loaded in half precision
    pipe.save_pretrained(folder, safe_serialization=True)
    sizes = measure(folder)
    for name, size in sizes.items():
        print(f"{size:>11,} {name}", flush=True)
    total = sum(sizes.values())
    print(f"{total:>11,} bytes in all", flush=True)
    if total > LIMIT or max(sizes.values()) > LARGEST:
        raise SystemExit(f"{folder} is too large: {total:,} bytes of {LIMIT:,}, no file over {LARGEST:,}")


def measure(folder: Path) -> dict[str, int]:
    """Bytes of each file."""
    return {str(f.relative_to(folder)): f.stat().st_size for f in sorted(folder.rglob("*")) if f.is_file()}
