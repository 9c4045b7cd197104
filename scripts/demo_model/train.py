"""Makes tiny-scenes step by step: render, vae, classifier, flow. See README.md for the recipe."""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import classifier
import data
import flow
import layout
import torch
import vae as autoencoder
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer, T5Tokenizer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def tokenizers(work: Path) -> tuple[CLIPTokenizer, T5Tokenizer]:
    """The two tokenizers, learnt from the caption grammar the first time they are asked for."""
    a, b = work / "tokenizer", work / "tokenizer_2"
    if not b.exists():
        texts = layout.corpus(60_000)
        layout.clip_tokenizer(texts).save_pretrained(a)
        layout.t5_tokenizer(texts).save_pretrained(b)
    return CLIPTokenizer.from_pretrained(a), T5Tokenizer.from_pretrained(b)


def render(work: Path, args: argparse.Namespace) -> None:
    begin = time.time()
    tokenizers(work)
    if args.held:
        data.render(work / "held", work, args.held, held=True, workers=args.workers)
    data.render(work / "train", work, args.scenes, workers=args.workers)
    print(f"render: {args.scenes} + {args.held} scenes in {time.time() - begin:.0f}s", flush=True)


def train_vae(work: Path, args: argparse.Namespace) -> None:
    autoencoder.train(work / "train", work / "vae", args.minutes, args.batch or 16, DEVICE)


def _noisy(x: torch.Tensor) -> torch.Tensor:
    """Small blur, noise and shifts of brightness: generated pictures are not as clean as drawn ones."""
    x = x + 0.03 * torch.randn(x.shape[0], 3, 1, 1, device=x.device) + 0.04 * torch.rand(1).item() * torch.randn_like(x)
    if torch.rand(1).item() < 0.5:
        soft = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
        x = torch.lerp(x, soft, torch.rand(x.shape[0], 1, 1, 1, device=x.device))
    return x


def _load_set(folder: Path, device: str) -> tuple[data.Pictures, torch.Tensor]:
    """All pictures of a folder with their labels."""
    _, total = autoencoder.wait_for(folder, 10**9)
    pictures = data.Pictures(folder, total, device)
    while pictures.fill() < total:
        pass
    return pictures, torch.from_numpy(data.arrays(folder, total)["labels"][:, 0].copy()).to(device)


TEST = 4_000  # of the pictures with held-out combinations, the first so many test the reader


def train_classifier(work: Path, args: argparse.Namespace) -> None:
    """Trains the reader on drawn pictures. It must know every combination, also those the generator never sees."""
    torch.manual_seed(3)
    begin = time.time()
    common, y_common = _load_set(work / "train", DEVICE)
    held, y_held = _load_set(work / "held", DEVICE)
    n = args.batch or 192
    folder = work / "classifier"
    model = classifier.load(folder, DEVICE).train() if folder.exists() else classifier.Reader().to(DEVICE)
    model = model.to(memory_format=torch.channels_last)
    model.trunk.compile()
    opt = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.02, fused=DEVICE == "cuda")
    step, start = 0, time.time()
    while (elapsed := time.time() - start) < args.minutes * 60:
        i = torch.randint(common.filled, (n * 2 // 3,), device=DEVICE)
        k = torch.randint(min(TEST, held.filled // 2), held.filled, (n // 3,), device=DEVICE)
        rate = min(1.0, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * elapsed / (args.minutes * 60)))
        opt.param_groups[0]["lr"] = 2e-3 * rate
        x = torch.cat([common.batch(i), held.batch(k)]).contiguous(memory_format=torch.channels_last)
        with torch.autocast(DEVICE, torch.bfloat16):
            out = model(_noisy(x))
        loss = classifier.loss(out, torch.cat([y_common[i], y_held[k]]))
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        step += 1
        if step % 500 == 0:
            print(f"classifier step {step} loss {loss.item():.4f} {elapsed:.0f}s", flush=True)
    classifier.save(model, folder)
    scores = accuracy(work, held, y_held)
    (work / "drawn.json").write_text(json.dumps(scores) + "\n")
    print(f"classifier: {step} steps in {time.time() - begin:.0f}s; on held-out pictures: {scores}", flush=True)


@torch.no_grad()
def accuracy(work: Path, pictures: data.Pictures, y: torch.Tensor) -> dict[str, float]:
    """The saved reader's accuracy on drawn pictures that it never saw."""
    model = classifier.load(work / "classifier", DEVICE)
    count = min(TEST, pictures.filled // 2)
    parts = []
    for a in range(0, count, 250):
        index = torch.arange(a, min(a + 250, count), device=DEVICE)
        parts.append(classifier.scores(model(pictures.batch(index)), y[index]))
    return {k: round(torch.cat([p[k] for p in parts]).float().mean().item(), 4) for k in parts[0]}


def train_flow(work: Path, args: argparse.Namespace) -> None:
    toks = tokenizers(work)
    net = AutoencoderKL.from_pretrained(str(work / "vae"))
    cache = work / "latents.pt"
    if cache.exists():
        z = torch.load(cache, map_location=DEVICE)
    else:
        z = autoencoder.latents(net, work / "train", DEVICE)
        torch.save(z, cache)
    model = flow.train(work, z, toks, args.total_minutes, args.minutes, args.batch or 256, DEVICE, args.mode, args.init)
    del z
    layout.save(flow.pipeline(model, net.float(), toks), work / "tiny-scenes")


STEPS = {"render": render, "vae": train_vae, "classifier": train_classifier, "flow": train_flow}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--work", type=Path, required=True, help="folder of everything made on the way")
    parser.add_argument("--scenes", type=int, default=110_000, help="render: pictures to train on")
    parser.add_argument("--held", type=int, default=16_000, help="render: pictures with held-out combinations")
    parser.add_argument("--minutes", type=float, default=3.0, help="training time of this call")
    parser.add_argument("--total-minutes", type=float, default=15.0, help="flow: training time of all slices together")
    parser.add_argument("--workers", type=int, default=0, help="render: processes, 0 = one per core")
    parser.add_argument(
        "--mode", choices=("fast", "blocks", "eager"), default="fast", help="flow: how much is compiled"
    )
    parser.add_argument("--init", type=Path, help="flow: a saved tiny-scenes folder to start from")
    parser.add_argument("--batch", type=int, default=0, help="0 = the step's own")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    STEPS[args.step](args.work, args)


if __name__ == "__main__":
    main()
