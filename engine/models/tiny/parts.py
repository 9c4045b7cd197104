"""What tiny models of several families are made of: tokenizers, encoders, a VAE for pictures."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Sequence
from typing import Any

HIDDEN = 32  # width of every text encoder
HEADS = 4  # so that two and four devices can share them
HEAD_DIM = 16

# Words of the families' prompt templates and of captions. A tokenizer that knows none of them spells a template out in
# so many tokens that the prompt behind it is cut off.
WORDS = (
    "Describe Generate Picture The You a about actions an and appropriate areas as aspects assistant atmosphere "
    "attributes background behaviors by camera cat changes clearly color consistency consisting consists content "
    "detailing details dog environment events explain features focusing following from generate house how image images "
    "individual information input instruction instructions interactions it its key light lighting main maintain "
    "maintaining meets modify more motion mountains movement movements new object objects of on one original or out "
    "over physical presence provided quality quantity red relationships requirements scene set shape should size space "
    "spatial specified structured style sunset system temporal text texture that the them theme then time to "
    "transitions under used user users using video visual where while with without"
)
QWEN_MARKS = (
    "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
LLAMA_MARKS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
# Messages with a text, or with a list of parts of which the texts count.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{{ part['text'] if part['type'] == 'text' else '' }}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


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


def new(cls: Any, **parts: Any) -> Any:
    """Build a pipeline or a scheduler."""
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


def qwen_tokenizer(marks: Sequence[str] = QWEN_MARKS, **settings: Any) -> Any:
    """A small byte-level BPE with a chat template, as Qwen, Mistral and Llama have; `marks` are single tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1024, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    trained.train_from_iterator([text for word in WORDS.split() for text in (word, f" {word}", f" {word}")], trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    tokenizer = Qwen2Tokenizer(vocab=model["vocab"], merges=merges, **{"model_max_length": 1024, **settings})
    tokenizer.add_tokens(list(marks), special_tokens=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


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


def qwen3_sizes(tokenizer: Any, layers: int = 2) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS // 2,
        "head_dim": HIDDEN // HEADS,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
    }


def flux_vae(seeds: Seeds) -> Any:
    """Return the VAE of FLUX.1, which Ovis-Image and Z-Image have too."""
    return image_vae(seeds, use_quant_conv=False, use_post_quant_conv=False, scaling_factor=0.3611, shift_factor=0.1159)


def image_vae(seeds: Seeds, cls: Callable[..., Any] | None = None, **config: Any) -> Any:
    """Return a VAE of the real factor 8 with the smallest channels: AutoencoderKL, or a class with its settings."""
    from diffusers import AutoencoderKL

    return seeds.build(
        cls or AutoencoderKL,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
        latent_channels=4,
        **config,
    )
