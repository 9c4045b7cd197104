"""The parts of tiny-scenes in FLUX.1's own layout: sizes, tokenizers, modules, and the folder they are saved to."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from captions import caption
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from scenes import sample
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

TEXT_TOKENS = 64  # what the T5 side is padded to, in training as in use
CLIP_TOKENS = 77
SHIFT = 2.0
BOS, EOS, PAD = "<|startoftext|>", "<|endoftext|>", "<|pad|>"
T5_SIZES: dict[str, Any] = {  # of every encoder in the layout of T5, but for its depth
    "d_model": 128,
    "d_kv": 32,
    "d_ff": 320,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.0,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
    "relative_attention_max_distance": 64,
}


def corpus(count: int, seed: int = 11) -> list[str]:
    """Captions to learn the two vocabularies from."""
    rng = random.Random(seed)
    return [caption(sample(i), rng) for i in range(count)]


def t5_tokenizer(texts: list[str]) -> T5Tokenizer:
    """Whole words of the grammar as they are and capitalised or shouted; every other word is spelt out."""
    words = Counter(w for t in texts for w in re.findall(r"[a-z0-9]+(?:-[a-z]+)*", t.lower()))
    known = [w for w, n in words.most_common() if n >= 12]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    for w in known:
        vocab += [("▁" + form, -6.0) for form in dict.fromkeys((w, w.capitalize(), w.upper()))]
    vocab += [(chr(c), -9.0) for c in range(33, 127)]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=TEXT_TOKENS)


def clip_tokenizer(texts: list[str]) -> CLIPTokenizer:
    """Byte-level BPE over the grammar; each byte is a token too, so that no word is unknown."""
    tok = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>"))
    tok.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True), pre_tokenizers.ByteLevel(False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1100, initial_alphabet=alphabet, end_of_word_suffix="</w>", min_frequency=40, show_progress=False
    )
    tok.train_from_iterator(texts, trainer)
    state = json.loads(tok.to_str())["model"]
    merges = [tuple(m) if not isinstance(m, str) else tuple(m.split(" ")) for m in state["merges"]]
    names = [*alphabet, *(a + "</w>" for a in alphabet)]
    names += [a + b for a, b in merges if a + b not in set(names)]
    vocab = {n: i for i, n in enumerate(dict.fromkeys([*names, BOS, EOS, PAD]))}
    return CLIPTokenizer(
        vocab=vocab,
        merges=merges,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=EOS,
        pad_token=PAD,
        model_max_length=CLIP_TOKENS,
    )


def build_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(32, 64, 96, 96),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        sample_size=256,
        scaling_factor=1.0,
        shift_factor=0.0,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def build_clip(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CLIP_TOKENS,
            projection_dim=128,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_t5(tokenizer: T5Tokenizer) -> T5EncoderModel:
    return T5EncoderModel(T5Config(vocab_size=len(tokenizer), num_layers=4, tie_word_embeddings=False, **T5_SIZES))


def build_transformer() -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=8,
        attention_head_dim=48,
        num_attention_heads=4,
        joint_attention_dim=128,
        pooled_projection_dim=128,
        guidance_embeds=False,
        axes_dims_rope=(8, 20, 20),
    )


def scheduler(shift: float = SHIFT) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=shift, use_dynamic_shifting=False)


def assemble(
    vae: AutoencoderKL,
    clip: CLIPTextModel,
    clip_tok: CLIPTokenizer,
    t5: T5EncoderModel,
    t5_tok: T5Tokenizer,
    transformer: FluxTransformer2DModel,
) -> FluxPipeline:
    pipe = FluxPipeline(
        scheduler=scheduler(),
        vae=vae,
        text_encoder=clip,
        tokenizer=clip_tok,
        text_encoder_2=t5,
        tokenizer_2=t5_tok,
        transformer=transformer,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save(pipe: FluxPipeline, folder: Path) -> None:
    """The pipeline as a bf16 safetensors folder."""
    pipe.to(dtype=torch.bfloat16)
    pipe.save_pretrained(folder, safe_serialization=True)


def load(folder: Path, dtype: torch.dtype, device: str) -> FluxPipeline:
    pipe = FluxPipeline.from_pretrained(str(folder), torch_dtype=dtype).to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def parameters(module: torch.nn.Module) -> float:
    """Millions of parameters."""
    return sum(p.numel() for p in module.parameters()) / 1e6
