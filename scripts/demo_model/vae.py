"""Trains the autoencoder and turns the training pictures into latents."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from data import Pictures, progress
from diffusers import AutoencoderKL
from layout import build_vae
from PIL import Image
from torch import Tensor

KL_WEIGHT = 1e-4  # enough for latents of unit size with a soft posterior, so the decoder forgives small errors
COARSE_WEIGHT = 0.25


def wait_for(folder: Path, count: int) -> tuple[int, int]:
    """Waits until `count` pictures are rendered."""
    while True:
        ready, total = progress(folder)
        if ready and ready >= min(count, total):
            return ready, total
        time.sleep(0.5)


def edges(a: Tensor, b: Tensor) -> Tensor:
    """How far the differences between neighbouring pixels disagree: what keeps outlines crisp."""
    dx = (a[..., 1:] - a[..., :-1]) - (b[..., 1:] - b[..., :-1])
    dy = (a[..., 1:, :] - a[..., :-1, :]) - (b[..., 1:, :] - b[..., :-1, :])
    return dx.abs().mean() + dy.abs().mean()


def _losses(vae: AutoencoderKL, x: Tensor, coarse: bool) -> tuple[Tensor, Tensor]:
    mean, logvar = vae.encoder(x).float().chunk(2, 1)
    logvar = logvar.clamp(-20, 10)
    z = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
    out = vae.decoder(z).float()
    l1 = (out - x).abs().mean()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    total = l1 + 1.0 * edges(out, x) + KL_WEIGHT * kl
    if coarse:
        # Latents shrunk by two must decode to the shrunk picture: smoother latents are easier to generate.
        small = vae.decoder(F.avg_pool2d(z, 2)).float()
        total = total + COARSE_WEIGHT * (small - F.avg_pool2d(x, 2)).abs().mean()
    return total, l1


def train(folder: Path, out: Path, minutes: float, batch: int, device: str) -> AutoencoderKL:
    """Trains for a time on the pictures as they arrive; returns the averaged weights."""
    torch.manual_seed(1)
    _, total = wait_for(folder, 6000)
    pictures = Pictures(folder, total, device)
    vae = (
        AutoencoderKL.from_pretrained(str(out)) if (out / "config.json").exists() else build_vae()
    )  # goes on from there
    vae = vae.to(device, memory_format=torch.channels_last).train()
    ema = copy.deepcopy(vae).requires_grad_(False)
    weights, averaged = list(vae.parameters()), list(ema.parameters())
    opt = torch.optim.AdamW(weights, lr=0.0, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    vae.encoder.compile()
    vae.decoder.compile()
    begin, step, peak = time.time(), 0, 1.2e-3
    warmed = begin
    while (elapsed := time.time() - warmed) < minutes * 60:
        have = pictures.fill()
        x = pictures.batch(torch.randint(have, (batch,), device=device))
        done = elapsed / (minutes * 60)
        for group in opt.param_groups:
            group["lr"] = peak * min(1.0, (step + 1) / 150) * 0.5 * (1 + math.cos(math.pi * done))
        with torch.autocast(device, torch.bfloat16):
            loss, l1 = _losses(vae, x, step % 3 == 0)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        opt.step()
        torch._foreach_lerp_(averaged, weights, 0.5 if step < 50 else 0.002)
        step += 1
        if step == 4:
            loss.item()
            warmed = time.time()  # compilation is not training
        if step % 1000 == 0:
            print(
                f"vae step {step} loss {loss.item():.4f} l1 {l1.item():.4f} pictures {have} {elapsed:.0f}s", flush=True
            )
    print(f"vae: {step} steps of {batch} in {time.time() - begin:.0f}s", flush=True)
    _normalise(ema, pictures)
    ema.save_pretrained(out)
    reconstructions(ema, pictures, out / "sheet.png")
    return ema


@torch.no_grad()
def _normalise(vae: AutoencoderKL, pictures: Pictures) -> None:
    """Sets shift and scale so that latents have mean 0 and deviation 1."""
    z = torch.cat(
        [
            vae.encode(pictures.batch(torch.arange(i, i + 64))).latent_dist.mean
            for i in range(0, min(2048, pictures.filled - 63), 64)
        ]
    )
    vae.register_to_config(shift_factor=round(z.mean().item(), 4), scaling_factor=round(1 / z.std().item(), 4))
    by_channel = ((z - z.mean()) / z.std()).std((0, 2, 3))
    print("vae shift, scale:", vae.config.shift_factor, vae.config.scaling_factor)
    print("deviation by channel:", [round(v, 2) for v in by_channel.tolist()], flush=True)


@torch.no_grad()
def reconstructions(vae: AutoencoderKL, pictures: Pictures, path: Path) -> None:
    """A sheet of pictures above their reconstructions."""
    x = pictures.batch(torch.arange(0, 12))
    y = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
    mse = (((x - y) / 2) ** 2).mean((1, 2, 3))
    print(f"vae PSNR {(-10 * mse.log10()).mean().item():.2f} dB", flush=True)
    rows = [torch.cat(list(part), 2) for part in (x[:6], y[:6], x[6:], y[6:])]
    sheet = ((torch.cat(rows, 1).permute(1, 2, 0) + 1) * 127.5).byte().cpu().numpy()
    Image.fromarray(sheet).save(path)


def _batches(count: int, size: int) -> Iterator[tuple[int, int]]:
    for i in range(0, count, size):
        yield i, min(i + size, count)


@torch.no_grad()
def latents(vae: AutoencoderKL, folder: Path, device: str) -> Tensor:
    """All pictures and their mirror images as packed latents (n, 2, 256, 64) in bf16, on the device."""
    begin = time.time()
    _, total = wait_for(folder, 2000)
    pictures = Pictures(folder, total, device)
    out = torch.empty((total, 2, 256, 64), dtype=torch.bfloat16, device=device)
    vae = vae.to(device, memory_format=torch.channels_last).eval()
    encode = torch.compile(vae.encoder)
    shift, scale = vae.config.shift_factor, vae.config.scaling_factor
    for a, b in _batches(total, 250):
        while pictures.fill() < b:
            time.sleep(0.05)
        x = pictures.batch(torch.arange(a, b, device=device))
        for m, view in enumerate((x, x.flip(3))):
            with torch.autocast(device, torch.bfloat16):
                mean = encode(view.contiguous(memory_format=torch.channels_last))[:, :16]
            z = (mean.float() - shift) * scale
            # FluxPipeline._pack_latents: 2x2 neighbours become one token of 64 channels
            z = z.view(b - a, 16, 16, 2, 16, 2).permute(0, 2, 4, 1, 3, 5).reshape(b - a, 256, 64)
            out[a:b, m] = z.to(torch.bfloat16)
    print(f"latents: {total} x 2 in {time.time() - begin:.0f}s", flush=True)
    return out
