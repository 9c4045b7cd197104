"""Trains the transformer and both text encoders together, as one rectified flow from noise to latents."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
from data import arrays, progress
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from layout import TEXT_TOKENS, assemble, build_clip, build_t5, build_transformer
from muon import optimizers
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

PEAK = 1.2e-3  # AdamW
MATRIX_PEAK = 2e-3  # Muon, whose updates are rescaled to AdamW's size


class Model(nn.Module):
    """Both text encoders and the transformer: all that is trained together."""

    def __init__(self, clip_tok: CLIPTokenizer, t5_tok: T5Tokenizer) -> None:
        super().__init__()
        self.clip, self.t5, self.transformer = build_clip(clip_tok), build_t5(t5_tok), build_transformer()

    def forward(
        self, x: Tensor, t: Tensor, clip_ids: Tensor, t5_ids: Tensor, txt_ids: Tensor, img_ids: Tensor
    ) -> Tensor:
        """The velocity (noise - latents) at time t, for packed latents (n, 256, 64)."""
        pooled = self.clip(clip_ids).pooler_output
        words = self.t5(t5_ids)[0]
        return self.transformer(
            hidden_states=x,
            timestep=t,
            pooled_projections=pooled,
            encoder_hidden_states=words,
            txt_ids=txt_ids,
            img_ids=img_ids,
            return_dict=False,
        )[0]


def _init(model: Model) -> None:
    """DiT's start: every block begins as the identity, so that deep stacks learn from the first step."""
    net = model.transformer
    for block in net.transformer_blocks:
        for layer in (block.norm1.linear, block.norm1_context.linear):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    for block in net.single_transformer_blocks:
        nn.init.zeros_(block.norm.linear.weight)
        nn.init.zeros_(block.norm.linear.bias)
    for layer in (net.norm_out.linear, net.proj_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


INNER = ("transformer_blocks", "single_transformer_blocks", "encoder.block", "encoder.layers")


def divided(model: nn.Module, inner: tuple[str, ...] = INNER) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside blocks, AdamW for embeddings, norms, biases and the edges of the network."""
    matrix, rest = [], []
    for name, p in model.named_parameters():
        plain = any(k in name for k in inner) and p.ndim == 2 and ".norm" not in name and "bias" not in name
        (matrix if plain else rest).append(p)
    print(f"muon {sum(p.numel() for p in matrix) / 1e6:.2f}M, adamw {sum(p.numel() for p in rest) / 1e6:.2f}M")
    return optimizers(matrix, rest, (PEAK, MATRIX_PEAK), (0.01, 0.01))


def rate(step: int, done: float) -> float:
    """Warm up, stay, then fall along a cosine."""
    return min(1.0, (step + 1) / 400) * (0.02 + 0.98 * min(1.0, 0.5 * (1 + math.cos(math.pi * done)) * 1.15))


def times(n: int, device: str, mean: float = 0.9) -> Tensor:
    """Times spread evenly over the batch: logit-normal and shifted towards noise, a quarter of them uniform.

    Colours and positions are settled close to pure noise (t above 0.9), where a plain logit-normal hardly ever looks.
    """
    u = (torch.arange(n, device=device) + torch.rand(n, device=device)) / n
    normal = torch.sigmoid(torch.special.ndtri(u.clamp(1e-5, 1 - 1e-5)) * 1.05 + mean)
    return torch.where(torch.rand(n, device=device) < 0.25, u, normal)


class Tokens:
    """Caption ids of every scene, on the device."""

    def __init__(self, folder: Path, device: str) -> None:
        ready, total = progress(folder)
        assert ready == total, "rendering has not finished"
        files = arrays(folder, total)
        self.clip = torch.from_numpy(np.array(files["clip"])).to(device)
        self.t5 = torch.from_numpy(np.array(files["t5"])).to(device)
        self.total, self.kinds = total, self.clip.shape[2]


def image_ids(device: str) -> Tensor:
    return FluxPipeline._prepare_latent_image_ids(1, 16, 16, device, torch.float32)


def _start(model: Model, init: Path | None) -> None:
    """The first weights: those of an earlier round's folder, or fresh ones."""
    _init(model)
    if init is None:
        return
    model.clip.load_state_dict(CLIPTextModel.from_pretrained(init / "text_encoder").state_dict())
    model.t5.load_state_dict(T5EncoderModel.from_pretrained(init / "text_encoder_2").state_dict())
    model.transformer.load_state_dict(FluxTransformer2DModel.from_pretrained(str(init / "transformer")).state_dict())


def resume(
    path: Path, model: nn.Module, ema: nn.Module, opts: list[torch.optim.Optimizer], device: str
) -> tuple[float, int]:
    """Go on from a checkpoint where there is one; returns the seconds and steps behind it."""
    if not path.exists():
        return 0.0, 0
    state = torch.load(path, map_location=device)
    model.load_state_dict(state["model"])
    ema.load_state_dict(state["ema"])
    for opt, saved in zip(opts, state["opts"], strict=True):
        opt.load_state_dict(saved)
    torch.manual_seed(2 + state["step"])
    return state["seconds"], state["step"]


def _prepare(model: Model, mode: str) -> None:
    """Compile what `mode` says, and settle on attention kernels that train."""
    if mode != "eager":
        model.transformer.compile_repeated_blocks()
    if mode == "fast":
        model.t5.compile()
    # Training died of illegal memory accesses (torch 2.11, H200) until these were off and the encoders' attention
    # was eager; which of the three was to blame was not told apart.
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    for encoder in (model.t5, model.clip):
        encoder.config._attn_implementation = "eager"


def train(
    work: Path,
    z: Tensor,
    toks: tuple[CLIPTokenizer, T5Tokenizer],
    total_minutes: float,
    slice_minutes: float,
    batch: int,
    device: str,
    mode: str = "fast",
    init: Path | None = None,
) -> Model:
    """Trains one slice of a run of `total_minutes` and returns averaged weights.

    Goes on from work/flow.pt where there is one; else starts at `init`, the folder of an earlier round, if given.
    """
    torch.manual_seed(2)
    torch.set_float32_matmul_precision("high")
    tokens = Tokens(work / "train", device)
    model, ema = Model(*toks).to(device), Model(*toks).to(device).requires_grad_(False)
    _start(model, init)
    ema.load_state_dict(model.state_dict())
    opts = divided(model)
    before, step = resume(work / "flow.pt", model, ema, opts, device)
    weights, averaged = list(model.parameters()), list(ema.parameters())
    _prepare(model, mode)
    txt, img = torch.zeros(TEXT_TOKENS, 3, device=device), image_ids(device)
    begin, first, shown, log_loss = time.time(), step, 0.0, torch.zeros((), device=device)
    while True:
        elapsed = time.time() - begin
        if elapsed > slice_minutes * 60 or before + elapsed > total_minutes * 60:
            break
        done = (before + elapsed) / (total_minutes * 60)
        share = rate(step, done)
        i = torch.randint(tokens.total, (batch,), device=device)
        m = torch.randint(2, (batch,), device=device)
        k = torch.randint(tokens.kinds, (batch,), device=device)
        x0, noise, t = z[i, m].float(), torch.randn(batch, 256, 64, device=device), times(batch, device)
        x = torch.lerp(x0, noise, t[:, None, None])
        with torch.autocast(device, torch.bfloat16):
            v = model(x, t, tokens.clip[i, m, k].long(), tokens.t5[i, m, k].long(), txt, img)
        loss = (v.float() - (noise - x0)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for opt in opts:
            for group in opt.param_groups:
                group["lr"].fill_(group["peak"] * share)
            opt.step()
            opt.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(averaged, weights, max(0.0007, 1 / (step + 8)))
        step += 1
        if step % 1500 == 0:
            checkpoint(work / "flow.pt", model, ema, opts, before + time.time() - begin, step)
        log_loss += loss.detach()
        if step % 250 == 0:
            spent = time.time() - begin
            assert math.isfinite(log_loss.item()), "the loss is no longer finite"
            print(
                f"flow step {step} loss {log_loss.item() / 250:.4f} rate {share:.3f} "
                f"{250 / (spent - shown):.2f} it/s {before + spent:.0f}s",
                flush=True,
            )
            shown = spent
            log_loss.zero_()
    log_loss.item()
    seconds = before + time.time() - begin
    print(f"flow: {step - first} steps of {batch} in {time.time() - begin:.0f}s, {seconds:.0f}s so far", flush=True)
    checkpoint(work / "flow.pt", model, ema, opts, seconds, step)
    return ema


def checkpoint(
    path: Path, model: nn.Module, ema: nn.Module, opts: list[torch.optim.Optimizer], seconds: float, step: int
) -> None:
    state = {"model": model.state_dict(), "ema": ema.state_dict(), "opts": [o.state_dict() for o in opts]}
    torch.save(state | {"seconds": seconds, "step": step}, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def pipeline(model: Model, vae: AutoencoderKL, toks: tuple[CLIPTokenizer, T5Tokenizer]) -> FluxPipeline:
    return assemble(vae, model.clip, toks[0], model.t5, toks[1], model.transformer)
