"""Trains the transformer and the text encoder together, as one rectified flow from noise to latents of clips."""

from __future__ import annotations

import json
import math
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from flow import checkpoint, divided, rate, resume, times
from graph import Step
from motion_data import CAPTIONS, texts
from motion_layout import LATENTS, TEXT_TOKENS, build_text_encoder, build_transformer
from motion_ranks import Ranks, Slice, half
from torch import Tensor, nn
from transformers import T5Tokenizer, UMT5EncoderModel

INNER = ("transformer.blocks", "encoder.block")
MEAN = 1.2  # of the times' logit: a clip is settled closer to pure noise than a picture, for it has more latents
EMPTY = 0.1  # share of examples without a caption, for guidance
SAVE_EVERY = 60  # seconds


class Model(nn.Module):
    """The text encoder and the transformer: all that is trained together."""

    def __init__(self, tokenizer: T5Tokenizer) -> None:
        super().__init__()
        self.text, self.transformer = build_text_encoder(tokenizer), build_transformer()
        # Fused attention of padded text died on some devices; 64 tokens do not need it.
        self.text.config._attn_implementation = "eager"

    def forward(self, x: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        """The velocity (noise - latents) at time t in 0..1."""
        mask = ids != 0
        words = self.text(ids, attention_mask=mask.long())[0]
        words = words * mask[..., None]  # WanPipeline sets what is behind the text to zero
        return self.transformer(hidden_states=x, timestep=1000 * t, encoder_hidden_states=words, return_dict=False)[0]


def init(model: Model) -> None:
    """DiT's start: every block begins as the identity, so that deep stacks learn from the first step."""
    net = model.transformer
    zero = [net.condition_embedder.time_proj.weight, net.condition_embedder.time_proj.bias]
    zero += [net.proj_out.weight, net.proj_out.bias, net.scale_shift_table]
    for block in net.blocks:
        zero += [block.scale_shift_table, block.attn2.to_out[0].weight, block.attn2.to_out[0].bias]
    for weight in zero:
        nn.init.zeros_(weight)


def adopt(model: Model, folder: Path, tokenizer: T5Tokenizer) -> None:
    """Take what weights an earlier folder has; its text encoder only where it was taught the same words."""
    if (folder / "transformer").exists():
        old = WanTransformer3DModel.from_pretrained(str(folder / "transformer"), torch_dtype=torch.float32)
        model.transformer.load_state_dict(old.state_dict())
        print("flow: begins with an earlier transformer", flush=True)
    if not (folder / "text_encoder").exists():
        return
    if T5Tokenizer.from_pretrained(folder / "tokenizer").get_vocab() == tokenizer.get_vocab():
        text = UMT5EncoderModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32)
        model.text.load_state_dict(text.state_dict())
        print("flow: begins with an earlier text encoder", flush=True)


def tokens(work: Path, tokenizer: T5Tokenizer, ranks: Ranks) -> None:
    """The captions' ids in work/tokens.npy, (clips, 8, 64); the first rank's work."""
    path = work / "tokens.npy"
    if ranks.first and not path.exists():
        flat = [text for clip in texts(work / "train") for text in clip]
        ids = [
            tokenizer(flat[a : a + 8000], padding="max_length", max_length=TEXT_TOKENS, truncation=True).input_ids
            for a in range(0, len(flat), 8000)
        ]
        packed = np.concatenate([np.array(part, dtype=np.int16) for part in ids])
        cut = (packed[:, -1] > 1).mean()
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, packed.reshape(-1, CAPTIONS, TEXT_TOKENS))
        part.replace(path)
        print(f"tokens: {len(flat)} captions, {(packed > 0).sum(1).max()} at most, {cut:.2%} cut off", flush=True)


class Examples:
    """Latents and caption ids, all in the device's memory."""

    def __init__(self, work: Path, tokenizer: T5Tokenizer, device: str) -> None:
        count = json.loads((work / "latents.json").read_text())["count"]
        latents = np.memmap(work / "latents.bin", np.float16, "r", shape=(count, *LATENTS))
        self.z = torch.from_numpy(np.array(latents)).to(device)
        self.ids = torch.from_numpy(np.load(work / "tokens.npy")[:count]).to(device)
        empty = tokenizer("", padding="max_length", max_length=TEXT_TOKENS).input_ids
        self.empty = torch.tensor(empty, device=device)
        self.device = device
        assert self.z.isfinite().all()

    def batch(self, n: int) -> tuple[Tensor, Tensor]:
        i = torch.randint(len(self.z), (n,), device=self.device)
        k = torch.randint(self.ids.shape[1], (n,), device=self.device)
        bare = torch.rand(n, 1, device=self.device) < EMPTY
        return self.z[i].float(), torch.where(bare, self.empty, self.ids[i, k].long())


def _prepare(model: Model, mode: str) -> None:
    torch.set_float32_matmul_precision("high")
    # Training of tiny-scenes died of illegal memory accesses (torch 2.11, H200) until these were off.
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    if mode == "fast":
        model.transformer.compile_repeated_blocks()
        model.text.compile()


def _loss(model: Model, examples: Examples, batch: int) -> Tensor:
    x0, ids = examples.batch(batch)
    noise, t = torch.randn_like(x0), times(batch, examples.device, MEAN)
    x = torch.lerp(x0, noise, t[:, None, None, None, None])
    with half(examples.device):
        v = model(x, t, ids)
    return (v.float() - (noise - x0)).square().mean()


def train(
    work: Path,
    ranks: Ranks,
    tokenizer: T5Tokenizer,
    part: Slice,
    batch: int,
    mode: str,
    folder: Path | None = None,
) -> None:
    """Trains one slice of a run; work/flow.pt holds what goes on and the averaged weights."""
    examples = Examples(work, tokenizer, ranks.device)
    ranks.say(f"flow: {len(examples.z)} clips on {ranks.world} ranks after {time.time() - part.began:.0f}s")
    torch.manual_seed(2)
    model, ema = Model(tokenizer).to(ranks.device), Model(tokenizer).to(ranks.device).requires_grad_(False)
    init(model)
    if folder:
        adopt(model, folder, tokenizer)
    ema.load_state_dict(model.state_dict())
    opts = divided(model, INNER)
    before, step = resume(work / "flow.pt", model, ema, opts, ranks.device)
    weights, averaged = list(model.parameters()), list(ema.parameters())
    ranks.align([*weights, *averaged])
    _prepare(model, mode)
    torch.manual_seed(10_000 * (step + 1) + ranks.rank)
    trainer = Step(weights, opts, mode == "fast", ranks.mean)
    backward, loss = trainer.backward(partial(_loss, model, examples, batch))
    first, shown, saved = step, time.time(), time.time()
    spent, log_loss = before, torch.zeros((), device=ranks.device)
    for spent in part.clock(ranks, before):
        share = rate(step, spent / part.total)
        trainer(backward, share)
        with torch.no_grad():
            torch._foreach_lerp_(averaged, weights, max(0.0007, 1 / (step + 8)))
        step += 1
        log_loss += loss
        if step % 250 == 0:
            assert math.isfinite(log_loss.item()), "the loss is no longer finite"
            ranks.say(
                f"flow step {step} loss {log_loss.item() / 250:.4f} rate {share:.3f} "
                f"{250 / (time.time() - shown):.2f} it/s {spent:.0f}s"
            )
            shown = time.time()
            log_loss.zero_()
        if ranks.first and time.time() - saved > SAVE_EVERY:
            checkpoint(work / "flow.pt", model, ema, opts, before + time.time() - part.began, step)
            saved = time.time()
    ranks.say(f"flow: {step - first} steps of {batch} x {ranks.world}, {spent:.0f}s so far")
    if ranks.first:
        checkpoint(work / "flow.pt", model, ema, opts, spent, step)


def trained(work: Path, tokenizer: T5Tokenizer) -> Model:
    """The averaged weights so far."""
    model = Model(tokenizer)
    model.load_state_dict(torch.load(work / "flow.pt", map_location="cpu")["ema"])
    return model.eval()
