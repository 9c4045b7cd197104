"""Trains the adapters of tiny-scenes and proves them: pack, learn, readers, gain, read.

See README.md for the commands.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import time
from functools import partial
from pathlib import Path
from typing import Any

import distill
import style_gain
import style_report
import torch
from adapters import RANK, Lora
from diffusers import FluxPipeline
from flow import image_ids, times
from graph import Step
from layout import TEXT_TOKENS, load
from scenes import sample
from style_pictures import FIRST_SEED, clean, pack, unpack
from styles import STYLES, Style, blended
from torch import Tensor
from torch.func import functional_call

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CAPTIONS = 6  # per picture
RATE = 1e-3
NOTHING: dict[str, Any] = {"weights": {}, "facts": {"seconds": 0.0}}  # what training goes on from
EVERY = 250  # steps between two lines of what they lose
HALVES = 0.12  # share of the steps that train strength 0.5, on pictures half way to the style
OWN_NOISE = 0.5  # share of the examples that start from the noise their picture was drawn from


class Frozen:
    """The base model: its autoencoder, text features and plain weights."""

    def __init__(self, pipe: FluxPipeline) -> None:
        self.pipe, self.vae, self.net = pipe, pipe.vae, pipe.transformer
        self.base = {k: v.detach().clone() for k, v in self.net.named_parameters()}
        self.device = next(iter(self.base.values())).device
        self.ids = image_ids(self.device.type)
        for part in (pipe.vae, pipe.transformer, pipe.text_encoder, pipe.text_encoder_2):
            part.requires_grad_(False).eval()

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Pictures in -1..1 as packed latents (n, 256, 64)."""
        z = self.vae.encode(x).latent_dist.mode()
        z = (z - self.vae.config.shift_factor) * self.vae.config.scaling_factor
        return FluxPipeline._pack_latents(z, len(x), 16, 32, 32)

    @torch.no_grad()
    def decode(self, latents: Tensor, size: int = 64) -> Tensor:
        """Packed latents as uint8 pictures."""
        out = []
        for part in latents.split(size):
            z = FluxPipeline._unpack_latents(part, 256, 256, 8)
            z = z / self.vae.config.scaling_factor + self.vae.config.shift_factor
            out.append((self.vae.decode(z).sample.clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8))
        return torch.cat(out)

    @torch.no_grad()
    def through(self, x: Tensor) -> Tensor:
        """Pictures in -1..1 through the autoencoder and back."""
        return self.vae.decode(self.vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)

    @torch.no_grad()
    def texts(self, captions: list[str], size: int = 512) -> tuple[Tensor, Tensor]:
        """Word and pooled features of captions."""
        words, pooled = [], []
        for i in range(0, len(captions), size):
            w, p, _ = self.pipe.encode_prompt(captions[i : i + size], None, max_sequence_length=TEXT_TOKENS)
            words.append(w.to(torch.bfloat16))
            pooled.append(p.to(torch.bfloat16))
        return torch.cat(words), torch.cat(pooled)

    def wear(self, *worn: tuple[Lora, float]) -> None:
        """Merge adapters into the transformer, in the precision of their files; none: the base model."""
        total = dict(self.base)
        for lora, strength in worn:
            total |= lora.weights(total, strength)
        with torch.no_grad():
            for name, p in self.net.named_parameters():
                p.copy_(total[name])


@torch.no_grad()
def styled_latents(frozen: Frozen, pictures: Tensor, style: Style, share: float = 1.0, size: int = 100) -> Tensor:
    """Pictures that went this share of the way to a style, as packed latents (n, 256, 64)."""
    out = []
    for part in pictures.split(size):
        x = clean(part)
        out.append(frozen.encode(blended(style, x, torch.full_like(x[:, 0, 0, 0], share))).to(torch.bfloat16))
    return torch.cat(out)


def _loss(
    lora: Lora, frozen: Frozen, x0: Tensor, noise: Tensor, words: Tensor, pooled: Tensor, strength: float
) -> Tensor:
    """The loss of one batch: the squared error of the velocity (noise - latents) at random times."""
    n, device = len(x0), x0.device
    t = times(n, device.type)
    x = torch.lerp(x0, noise, t[:, None, None])
    txt = torch.zeros(TEXT_TOKENS, 3, device=device)
    inputs = {
        "hidden_states": x,
        "timestep": t,
        "pooled_projections": pooled.float(),
        "encoder_hidden_states": words.float(),
        "txt_ids": txt,
        "img_ids": frozen.ids,
        "return_dict": False,
    }
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        v = functional_call(frozen.net, lora.weights(frozen.base, strength), (), inputs)[0]
    return (v.float() - (noise - x0)).square().mean()


def _example(z: Tensor, own: Tensor, texts: tuple[Tensor, Tensor], batch: int) -> tuple[Tensor, ...]:
    """Latents, the noise they are mixed with, and the features of a caption: with its own noise, of its own prompt."""
    i = torch.randint(len(z), (batch,), device=z.device)
    x0, fresh = z[i].float(), torch.rand(batch, device=z.device) >= OWN_NOISE
    k = i * CAPTIONS + torch.randint(CAPTIONS, (batch,), device=z.device) * fresh
    noise = torch.where(fresh[:, None, None], torch.randn_like(x0), own[i].float())
    return x0, noise, texts[0][k], texts[1][k]


def train(
    frozen: Frozen,
    z: tuple[Tensor, Tensor],
    own: Tensor,
    texts: tuple[Tensor, Tensor],
    style: Style,
    begun: dict[str, Tensor],
    seconds: float,
    batch: int,
) -> Lora:
    """Trains one adapter for a time on latents of its style, whole and half; returns the mean of its late weights.

    It goes on from the weights that an earlier run left, if any.
    """
    seed, fast = 100 + STYLES.index(style), frozen.device.type == "cuda"
    torch.manual_seed(seed)
    lora = Lora(frozen.net, style.layout, RANK[style.layout], seed).to(frozen.device)
    if begun:
        lora.load_state_dict(begun)
    kept = copy.deepcopy(lora).requires_grad_(False)
    weights, averaged = list(lora.parameters()), list(kept.parameters())
    opt = torch.optim.AdamW(
        weights, torch.tensor(RATE, device=frozen.device), betas=(0.9, 0.99), weight_decay=0.0, capturable=fast
    )
    opt.param_groups[0]["peak"] = RATE
    begin, step, total, coin = time.time(), 0, torch.zeros((), device=frozen.device), random.Random(seed)
    trainer = Step(weights, [opt], fast)

    def loss(half: bool) -> Tensor:
        return _loss(lora, frozen, *_example(z[half], own, texts, batch), strength=0.5 if half else 1.0)

    backward = [trainer.backward(partial(loss, half)) for half in (False, True)]
    print(f"{style.name}: recorded after {time.time() - begin:.0f}s", flush=True)
    while (done := (time.time() - begin) / seconds) < 1:
        work, value = backward[coin.random() < HALVES]
        trainer(work, min(1.0, (step + 1) / 30) * (0.02 + 0.98 * math.cos(math.pi / 2 * done)))
        with torch.no_grad():
            torch._foreach_lerp_(averaged, weights, max(0.005, 1 / (step + 1)))
        step, total = step + 1, total + value
        if step % EVERY == 0:
            mean = total.item() / EVERY
            assert math.isfinite(mean), "the loss is no longer finite"
            print(f"{style.name} step {step} loss {mean:.4f} {time.time() - begin:.0f}s", flush=True)
            total.zero_()
    print(f"{style.name}: {step} steps of {batch} in {time.time() - begin:.0f}s", flush=True)
    return kept


def file_name(style: Style) -> str:
    return f"{style.name}.safetensors"


def _settle(pipe: FluxPipeline) -> None:
    """Attention kernels that train, see flow.py."""
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    for encoder in (pipe.text_encoder, pipe.text_encoder_2):
        encoder.config._attn_implementation = "eager"


def _ready(args: argparse.Namespace) -> Frozen:
    """The base model, and folders to write to."""
    torch.set_float32_matmul_precision("high")
    pipe = load(args.model, torch.float32, DEVICE)
    _settle(pipe)
    for folder in (args.out, args.state):
        folder.mkdir(parents=True, exist_ok=True)
    return Frozen(pipe)


def _chosen(args: argparse.Namespace) -> list[Style]:
    return [s for s in STYLES if not args.style or s.name in args.style]


def learn(args: argparse.Namespace) -> None:
    """Trains those of the chosen styles that --state has no weights of."""
    styles = [s for s in _chosen(args) if not (args.state / f"{s.name}.pt").exists()]
    if not styles:
        return
    begin, frozen = time.time(), _ready(args)
    own = distill.collect(frozen, args.model, args.draw_seconds, args.draw_steps, args.draw_batch, args.most)
    texts = frozen.texts(distill.phrased(own, CAPTIONS))
    if args.compile:
        frozen.net.compile_repeated_blocks(dynamic=False)
    print(f"{len(own.prompts)} pictures and their captions ready after {time.time() - begin:.0f}s", flush=True)
    for style in styles:
        halves = styled_latents(frozen, own.pictures[:2000], style, 0.5)
        z = (styled_latents(frozen, own.pictures, style), halves)
        print(f"{style.name}: latents after {time.time() - begin:.0f}s", flush=True)
        before = torch.load(args.begin / f"{style.name}.pt", map_location=DEVICE) if args.begin else NOTHING
        lora = train(frozen, z, own.noise, texts, style, before["weights"], args.seconds, args.batch)
        facts = {"seconds": before["facts"]["seconds"] + args.seconds, "pictures": len(own.prompts)}
        torch.save({"weights": lora.state_dict(), "facts": facts}, args.state / f"{style.name}.pt")
    print(f"adapters after {time.time() - begin:.0f}s", flush=True)


def readers(args: argparse.Namespace) -> None:
    """Trains the readers into --state, if it has none."""
    if not (args.state / style_report.READERS).exists():
        _readers(_ready(args), args)


def _readers(frozen: Frozen, args: argparse.Namespace) -> style_report.Readers:
    """The readers, from --state where it has them."""
    if (args.state / style_report.READERS).exists():
        return style_report.load(args.state / style_report.READERS, args.model, DEVICE)
    pictures = unpack(args.work, DEVICE, args.pictures)
    scenes = [sample(FIRST_SEED + i) for i in range(len(pictures))]
    return style_report.learn(frozen, pictures, scenes, args)


def gain(args: argparse.Namespace) -> None:
    """Settles what strength of the chosen styles their files call 1, and saves those."""
    frozen = _ready(args)
    judges = _readers(frozen, args)
    for style in _chosen(args):
        held = torch.load(args.state / f"{style.name}.pt", map_location=DEVICE)
        lora = Lora(frozen.net, style.layout, RANK[style.layout], 0).to(DEVICE)
        lora.load_state_dict(held["weights"])
        facts = held["facts"] | style_gain.settle(frozen, lora, style, judges, args)
        notes = f"{style.title}: a style for tiny-scenes; any prompt, no trigger word; strength 0 to 1."
        lora.scaled(facts["gain"]).save(args.out / file_name(style), style.name, style.title, notes)
        (args.state / f"{style.name}.json").write_text(json.dumps(facts, indent=2) + "\n")


def read(args: argparse.Namespace) -> None:
    """Reads what the files in --out draw, for the report."""
    frozen = _ready(args)
    judges = _readers(frozen, args)
    loras = [Lora(frozen.net, s.layout, RANK[s.layout], 0).read(args.out / file_name(s)).to(DEVICE) for s in STYLES]
    told: dict[str, Any] = {s.name: json.loads((args.state / f"{s.name}.json").read_text()) for s in STYLES}
    if DEVICE == "cpu" and args.compile:
        frozen.net.compile_repeated_blocks(dynamic=False)
    style_report.report(frozen, loras, judges, told, args)


STEPS = {"learn": learn, "readers": readers, "gain": gain, "read": read}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("pack", *STEPS))
    parser.add_argument("--work", type=Path, required=True, help="folder of pictures: drawn by `pack`, by the adapters")
    parser.add_argument("--count", type=int, default=4500, help="pack: pictures to draw")
    parser.add_argument("--model", type=Path, default=Path("assets/models/tiny-scenes"))
    parser.add_argument("--out", type=Path, default=Path("/tmp/tiny-styles/out"), help="for the files and the report")
    parser.add_argument("--state", type=Path, default=Path("/tmp/tiny-styles"), help="what one step leaves the next")
    parser.add_argument(
        "--style", nargs="*", choices=[s.name for s in STYLES], help="learn, gain: these styles, not all"
    )
    parser.add_argument("--pictures", type=int, default=0, help="readers: drawn pictures to learn from, 0 = all")
    parser.add_argument("--test", type=int, default=40, help="readers: the first pictures test and never train")
    parser.add_argument("--decoded", type=int, default=500, help="readers: examples that are decoded ones")
    parser.add_argument("--reader-seconds", type=float, default=600.0, help="readers: time for that of attributes")
    parser.add_argument("--style-steps", type=int, default=3000, help="readers: steps for that of styles")
    parser.add_argument("--reader-batch", type=int, default=32)
    parser.add_argument("--draw-seconds", type=float, default=55.0, help="learn: time for the model's own pictures")
    parser.add_argument("--draw-steps", type=int, default=16)
    parser.add_argument("--draw-batch", type=int, default=256)
    parser.add_argument("--most", type=int, default=12_000, help="learn: the model's own pictures to keep")
    parser.add_argument("--seconds", type=float, default=200.0, help="learn: training time per adapter")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--begin", type=Path, help="learn: the --state of an earlier run, whose weights to go on from")
    parser.add_argument(
        "--gains", type=float, nargs="*", default=(1.0, 0.9, 0.8), help="gain: strengths to choose from"
    )
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--fewer", type=int, default=0, help="read: prompts for halves and two at once, 0 = as many")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--compile", action="store_true", help="learn, read: compile the blocks")
    args = parser.parse_args()
    if args.step == "pack":
        pack(args.work, args.count)
    else:
        STEPS[args.step](args)


if __name__ == "__main__":
    main()
