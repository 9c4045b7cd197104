"""Trains the autoencoder of clips, reports what it loses, and turns all clips into latents."""

from __future__ import annotations

import copy
import json
import math
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import motion_whole as whole
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from graph import Step
from motion_data import arrays, progress
from motion_layout import CHANNELS, LATENTS, build_vae
from motion_ranks import Ranks, Slice, half
from muon import optimizers
from PIL import Image
from torch import Tensor
from vae import edges
from world import FRAMES

PEAK = 1.2e-3  # AdamW
KERNEL_PEAK = 2e-3  # Muon
SHARES = (0.35, 0.30, 0.35)  # of the time, for each length of the windows
KL_WEIGHT = 1e-4
COARSE_WEIGHT = 0.25
MOTION_WEIGHT = 0.5
QUIET = -4.0  # log variance of the latents at the start
SAVE_EVERY = 60  # seconds
PATIENCE = 120  # seconds until the first clips are there


def wait_for(folder: Path, count: int) -> tuple[int, int]:
    """Waits until `count` clips are rendered."""
    begin = time.time()
    while True:
        ready, total = progress(folder)
        if ready and ready >= min(count, total):
            return ready, total
        if not ready and time.time() - begin > PATIENCE:
            raise SystemExit(f"no clip in {folder} after {PATIENCE} s: has the renderer failed?")
        time.sleep(0.5)


def _normal(clips: Tensor) -> Tensor:
    """uint8 (n, frames, h, w, 3) as (n, 3, frames, h, w) in -1..1."""
    return (clips.float() / 127.5 - 1.0).permute(0, 4, 1, 2, 3)


class Clips:
    """This rank's share of the clips, held as uint8 in the device's memory, filled as the renderer gets on."""

    def __init__(self, folder: Path, ranks: Ranks, most: int) -> None:
        _, self.total = wait_for(folder, 4 * ranks.world)
        self.source, self.folder, self.ranks = arrays(folder, self.total)["clips"], folder, ranks
        room = min(most, self.total // ranks.world)
        self.store = torch.empty((room, *self.source.shape[1:]), dtype=torch.uint8, device=ranks.device)
        self.filled = 0

    def fill(self, most: int) -> None:
        """Takes over at most `most` more clips of those that are ready."""
        ready = progress(self.folder)[0] // self.ranks.world
        stop = min(ready, self.filled + most, len(self.store))
        for i in range(self.filled, stop):
            clip = self.source[i * self.ranks.world + self.ranks.rank]
            self.store[i] = torch.from_numpy(np.array(clip)).to(self.ranks.device)
        self.filled = max(self.filled, stop)

    def batch(self, count: int, frames: int) -> Tensor:
        """Random windows of random clips."""
        device = self.ranks.device
        i = torch.randint(self.filled, (count, 1), device=device)
        begin = torch.randint(FRAMES - frames + 1, (count, 1), device=device)
        return _normal(self.store[i, begin + torch.arange(frames, device=device)])


def _loss(vae: AutoencoderKLWan, x: Tensor, coarse: bool) -> Tensor:
    with half(x.device.type):
        mean, logvar = whole.encode(vae, x).float().chunk(2, 1)
        logvar = logvar.clamp(-20, 10)
        z = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
        out = whole.decode(vae, z).float()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    total = (out - x).abs().mean() + edges(out, x) + KL_WEIGHT * kl
    if x.shape[2] > 1:
        total = total + MOTION_WEIGHT * (out.diff(dim=2) - x.diff(dim=2)).abs().mean()
    if coarse:
        # Latents shrunk by two must decode to the shrunk clip: smoother latents are easier to generate.
        by_two = (1, 2, 2)
        with half(x.device.type):
            small = whole.decode(vae, F.avg_pool3d(z, by_two)).float()
        total = total + COARSE_WEIGHT * (small - F.avg_pool3d(x, by_two)).abs().mean()
    return total


def _optimizers(vae: AutoencoderKLWan) -> list[torch.optim.Optimizer]:
    """Muon for the kernels between hidden layers, AdamW for norms, biases and both ends of either network."""
    kernels, rest = [], []
    for name, p in vae.named_parameters():
        inside = p.ndim >= 4 and not any(k in name for k in ("conv_in", "conv_out", "quant_conv"))
        (kernels if inside else rest).append(p)
    return optimizers(kernels, rest, (PEAK, KERNEL_PEAK), (1e-4, 0.0))


def _rate(step: int, done: float) -> float:
    """Warm up, stay, then fall evenly."""
    return min(1.0, (step + 1) / 150) * max(0.01, min(1.0, (1 - done) / 0.6))


def _start(ranks: Ranks, init: Path | None) -> AutoencoderKLWan:
    """The first weights: those of an earlier round's folder, or fresh ones."""
    vae = build_vae()
    with torch.no_grad():  # with the noise of a fresh encoder nothing would come through for a while
        vae.quant_conv.bias[CHANNELS:] = QUIET
    if init:
        old = AutoencoderKLWan.from_pretrained(str(init / "vae"), torch_dtype=torch.float32)
        vae.load_state_dict(old.state_dict())
    vae = vae.to(ranks.device).train()
    ranks.align(vae.parameters())
    return vae


@dataclass
class Run:
    """All that is trained, and how far."""

    vae: AutoencoderKLWan
    ema: AutoencoderKLWan
    opts: list[torch.optim.Optimizer]
    seconds: float = 0.0
    step: int = 0
    frames: int = 0  # of the windows last trained on

    def resume(self, path: Path) -> None:
        if path.exists():
            state = torch.load(path, map_location=self.vae.device)
            self.vae.load_state_dict(state["vae"])
            self.ema.load_state_dict(state["ema"])
            for opt, saved in zip(self.opts, state["opts"], strict=True):
                opt.load_state_dict(saved)
            self.seconds, self.step, self.frames = state["seconds"], state["step"], state["frames"]

    def save(self, path: Path) -> None:
        state: dict[str, object] = {"vae": self.vae.state_dict(), "ema": self.ema.state_dict()}
        state |= {"opts": [opt.state_dict() for opt in self.opts], "frames": self.frames}
        torch.save(state | {"seconds": self.seconds, "step": self.step}, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def lengthen(self, frames: int) -> None:
        """Go over to windows of so many frames. What learnt single frames gets to see time as if it stood still."""
        if self.frames == 1 and frames > 1:
            whole.inflate(self.vae)
            whole.inflate(self.ema)
        self.frames = frames


def train(
    work: Path,
    ranks: Ranks,
    part: Slice,
    windows: list[tuple[int, int]],
    most: int,
    mode: str,
    init: Path | None,
) -> None:
    """Trains one slice of a run on windows of (frames, batch), in turn; work/vae holds its averaged weights,
    work/vae.pt what goes on."""
    torch.manual_seed(1)
    torch.backends.cudnn.benchmark = True
    vae = _start(ranks, init)
    run = Run(vae, copy.deepcopy(vae).requires_grad_(False), _optimizers(vae))
    run.resume(work / "vae.pt")
    before, first, averaged = run.seconds, run.step, list(run.ema.parameters())
    clips = Clips(work / "train", ranks, most)
    clips.fill(200)
    torch.manual_seed(1000 * run.step + ranks.rank)
    fast = mode == "fast"
    if fast:
        whole.compiled()
        print(f"vae rank {ranks.rank}: {whole.choose(vae, clips.batch(windows[-1][1], windows[-1][0]))}", flush=True)
    step, now = Step(list(vae.parameters()), run.opts, fast, ranks.mean), (0, 0)
    shown = saved = time.time()
    for run.seconds in part.clock(ranks, before):
        if run.step % 25 == 0:
            clips.fill(50)
        done = run.seconds / part.total
        window = windows[min(sum(done > end for end in accumulate(SHARES)), len(windows) - 1)]
        frames, count = window
        if window != now:
            run.lengthen(frames)
            x, now = clips.batch(count, frames), window
            plain = step.backward(partial(_loss, vae, x, coarse=False))
            coarse = step.backward(partial(_loss, vae, x, coarse=True)) if frames == 1 else plain
        x.copy_(clips.batch(count, frames))
        backward, loss = coarse if run.step % 3 == 0 else plain
        norm = step(backward, _rate(run.step, done))
        with torch.no_grad():
            torch._foreach_lerp_(averaged, step.weights, max(0.002, 1 / (run.step + 4)))
        run.step += 1
        if run.step % 250 == 0:
            assert math.isfinite(loss.item()) and math.isfinite(norm.item()), "the loss is no longer finite"
            ranks.say(
                f"vae step {run.step} loss {loss.item():.4f} frames {count} x {frames} clips {clips.filled} "
                f"{250 / (time.time() - shown):.2f} it/s {run.seconds:.0f}s"
            )
            shown = time.time()
        if ranks.first and time.time() - saved > SAVE_EVERY:
            run.save(work / "vae.pt")
            saved = time.time()
    if ranks.first:
        print(f"vae: {run.step - first} steps x {ranks.world}, {run.seconds:.0f}s so far", flush=True)
        run.save(work / "vae.pt")
        _finish(work, run.ema, clips)


@torch.no_grad()
def _finish(work: Path, ema: AutoencoderKLWan, clips: Clips) -> None:
    """Writes the averaged weights with the mean and deviation of each latent channel, and says what is lost."""
    x = [_normal(clips.store[i : i + 4]) for i in range(0, min(256, clips.filled - 3), 4)]
    z = torch.cat([whole.encode(ema, part)[:, :CHANNELS] for part in x])
    mean, std = z.mean((0, 2, 3, 4)), z.std((0, 2, 3, 4))
    ema.register_to_config(
        latents_mean=[round(v, 4) for v in mean.tolist()], latents_std=[round(v, 4) for v in std.tolist()]
    )
    print("latents mean", ema.config.latents_mean, "\nlatents std", ema.config.latents_std, flush=True)
    ema.save_pretrained(work / "vae")
    report(ema, x[:8], work / "vae.png")


def report(vae: AutoencoderKLWan, batches: list[Tensor], sheet: Path) -> None:
    """Prints peak signal to noise and flicker; draws first, middle and last frames above their reconstructions."""
    shown = [whole.decode(vae, whole.encode(vae, x)[:, :CHANNELS]).clamp(-1, 1) for x in batches]
    x, y = torch.cat(batches), torch.cat(shown)
    mse = ((x - y) / 2).square().mean((1, 2, 3, 4))
    still = x.diff(dim=2).abs().amax(1) < 1.5 / 127.5  # pixels that stay as they are from one frame to the next
    flicker = y.diff(dim=2).abs().mean(1)[still].mean() * 127.5
    own = x.diff(dim=2).abs().mean(1)[still].mean() * 127.5
    print(
        f"vae PSNR {(-10 * mse.log10()).mean().item():.2f} dB; still pixels change by {flicker.item():.3f} of 255 "
        f"(in the drawn clips {own.item():.3f})",
        flush=True,
    )
    frames = (0, x.shape[2] // 2, x.shape[2] - 1)
    rows = [torch.cat([part[i, :, t] for t in frames], -1) for i in range(min(4, len(x))) for part in (x, y)]
    picture = ((torch.cat(rows, 1).permute(1, 2, 0) + 1) * 127.5).byte().cpu().numpy()
    Image.fromarray(picture).save(sheet)


def _ahead(source: np.memmap, spans: list[tuple[int, int]]) -> Iterator[tuple[int, int, Tensor]]:
    """Reads batches in a thread, a few ahead."""
    ready: queue.Queue[tuple[int, int, Tensor] | None] = queue.Queue(3)

    def read() -> None:
        for a, b in spans:
            ready.put((a, b, torch.from_numpy(np.array(source[a:b]))))
        ready.put(None)

    threading.Thread(target=read, daemon=True).start()
    while (item := ready.get()) is not None:
        yield item


@torch.no_grad()
def latents(work: Path, ranks: Ranks, most: int, size: int = 16) -> None:
    """All clips that are ready as normalised latents, fp16, in work/latents.bin; each rank does its share."""
    begin = time.time()
    torch.backends.cudnn.benchmark = True
    ready, total = wait_for(work / "train", 2)
    count = int(ranks.agree(min(ready, most or ready)))
    vae = AutoencoderKLWan.from_pretrained(str(work / "vae")).to(ranks.device).eval()
    if ranks.device != "cpu":
        whole.compiled()
    mean, std = (
        torch.tensor(v, device=ranks.device)[:, None, None, None]
        for v in (vae.config.latents_mean, vae.config.latents_std)
    )
    if ranks.first:
        np.memmap(work / "latents.bin", np.float16, "w+", shape=(count, *LATENTS)).flush()
    ranks.meet()
    out = np.memmap(work / "latents.bin", np.float16, "r+", shape=(count, *LATENTS))
    spans = [(a, min(a + size, count)) for a in range(0, count, size)][ranks.rank :: ranks.world]
    moments = torch.zeros(3, CHANNELS, dtype=torch.float64, device=ranks.device)
    for a, b, clips in _ahead(arrays(work / "train", total)["clips"], spans):
        with half(ranks.device):
            z = whole.encode(vae, _normal(clips.to(ranks.device)))[:, :CHANNELS].float()
        z = (z - mean) / std
        out[a:b] = z.half().cpu().numpy()
        moments[0] += 1
        moments[1] += z.mean((0, 2, 3, 4))
        moments[2] += z.square().mean((0, 2, 3, 4))
    if len(spans):
        print(f"latents rank {ranks.rank}: mean square {(moments[2] / moments[0]).mean().item():.3f}", flush=True)
    out.flush()
    ranks.meet()
    if ranks.first:
        (work / "latents.json").write_text(json.dumps({"count": count}))
        spent = time.time() - begin
        print(f"latents: {count} of {total} clips in {spent:.0f}s, {count / spent:.0f} a second", flush=True)
