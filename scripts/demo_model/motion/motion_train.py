"""Makes tiny-motion step by step: render, vae, encode, flow, save, pack; smoke runs them all, small, on a CPU.

`vae`, `encode` and `flow` run on one device, or on several under `python -m torch.distributed.run`.
"""

from __future__ import annotations

import time

BEGAN = time.time()  # slices count from here, so that a slice ends when its caller expects it to

import argparse  # noqa: E402
import os  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tarfile  # noqa: E402
from pathlib import Path  # noqa: E402

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(1, str(HERE.parent))  # what tiny-scenes is made with
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def render(args: argparse.Namespace) -> None:
    import motion_data
    from motion_layout import tokenizer

    tokenizer(args.work)
    motion_data.render(args.work / "train", args.count, workers=args.workers)
    print(f"render: {args.count} clips in {time.time() - BEGAN:.0f}s", flush=True)
    if args.held_count:
        motion_data.render(args.work / "held", args.held_count, held=True, workers=args.workers)
        print(f"render: {args.held_count} held-out clips, {time.time() - BEGAN:.0f}s so far", flush=True)


def train_vae(args: argparse.Namespace) -> None:
    import motion_vae
    from motion_ranks import Slice, leave, start

    ranks = start()
    total = args.total_seconds or args.seconds
    time_of_call = Slice(BEGAN, args.seconds, total, args.steps)
    windows = list(zip(args.windows, args.batches, strict=True))
    motion_vae.train(args.work, ranks, time_of_call, windows, args.most or 6000, args.mode, args.init)
    leave(ranks)


def encode(args: argparse.Namespace) -> None:
    import motion_flow
    import motion_vae
    from motion_layout import tokenizer
    from motion_ranks import leave, start

    ranks = start()
    motion_vae.latents(args.work, ranks, args.most)
    motion_flow.tokens(args.work, tokenizer(args.work), ranks)
    leave(ranks)


def train_flow(args: argparse.Namespace) -> None:
    import motion_flow
    from motion_layout import tokenizer
    from motion_ranks import Slice, leave, start

    ranks = start()
    total = args.total_seconds or args.seconds
    words = tokenizer(args.work)
    time_of_call = Slice(BEGAN, args.seconds, total, args.steps)
    motion_flow.train(args.work, ranks, words, time_of_call, args.batch or 96, args.mode, args.init)
    leave(ranks)


def save(args: argparse.Namespace) -> None:
    import motion_flow
    import motion_layout
    from diffusers import AutoencoderKLWan

    words = motion_layout.tokenizer(args.work)
    model = motion_flow.trained(args.work, words)
    vae = AutoencoderKLWan.from_pretrained(str(args.work / "vae"))
    motion_layout.save(motion_layout.assemble(words, model.text, model.transformer, vae), args.out)


def pack(args: argparse.Namespace) -> None:
    """The saved folder as one tar beside it."""
    path = args.out.with_suffix(".tar")
    with tarfile.open(path, "w") as tar:
        tar.add(args.out, arcname=args.out.name)
    size = path.stat().st_size
    print(f"{path}: {size:,} bytes", flush=True)
    if size > 16 * 2**20:
        raise SystemExit(f"{path} is over 16 MiB")


def smoke(args: argparse.Namespace) -> None:
    """The whole chain, few clips and steps, on two processes; then diffusers and the engine draw from the folder."""
    import torch
    from motion_layout import build_vae
    from motion_whole import check

    clips = torch.rand(1, 3, 9, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    worst = check(build_vae().eval(), clips)
    print(f"smoke: whole clips differ from chunks by {worst:.1e}", flush=True)
    assert worst < 1e-5
    work, out = str(args.work), str(args.work / "tiny-motion")
    me = [sys.executable, __file__]
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    small = ["--seconds", "300", "--steps", "2", "--batch", "2", "--mode", "eager", "--work", work]
    short = ["--windows", "1", "5", "9", "--batches", "2", "2", "1", "--most", "4"]
    commands = [
        [*me, "render", "--work", work, "--count", "16", "--held-count", "2", "--workers", "2"],
        [*two, "vae", *small, *short],
        [*me, "vae", *small, *short],  # goes on
        [*two, "encode", "--work", work, "--most", "4"],
        [*two, "flow", *small],
        [*me, "flow", *small],
        [*me, "save", "--work", work, "--out", out],
        [*me, "pack", "--work", work, "--out", out],
    ]
    draw = [str(ROOT / "scripts/sgdiff"), "generate", "--model-path", out, "--prompt", "a boat sails left"]
    sizes = ["--height", "128", "--width", "192", "--num-frames", "9", "--num-inference-steps", "2"]
    settings = ["--guidance-scale", "5", "--max-sequence-length", "64", "--negative-prompt", ""]
    commands.append([*draw, *sizes, *settings, "--output-path", str(args.work / "drawn")])
    for command in commands:
        begin = time.time()
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})
        print(f"smoke: {' '.join(command[1:7])} ... {time.time() - begin:.0f}s", flush=True)
    _draw(args.work / "tiny-motion")
    print(f"smoke: all in {time.time() - BEGAN:.0f}s", flush=True)


def _draw(folder: Path) -> None:
    """Diffusers alone draws from the folder."""
    import torch
    from diffusers import WanPipeline

    pipe = WanPipeline.from_pretrained(str(folder), torch_dtype=torch.float32)
    sizes = {"height": 128, "width": 192, "num_frames": 9, "num_inference_steps": 2, "max_sequence_length": 64}
    clip = pipe("a boat sails left", guidance_scale=5.0, output_type="pt", **sizes).frames
    print(f"smoke: diffusers drew {tuple(clip.shape)}, finite {bool(clip.isfinite().all())}", flush=True)


STEPS = {
    "render": render,
    "vae": train_vae,
    "encode": encode,
    "flow": train_flow,
    "save": save,
    "pack": pack,
    "smoke": smoke,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--work", type=Path, required=True, help="folder of everything made on the way")
    parser.add_argument("--out", type=Path, help="save, pack: the folder of the model")
    parser.add_argument("--count", type=int, default=40_000, help="render: clips to train on")
    parser.add_argument("--held-count", type=int, default=0, help="render: clips with held-out combinations")
    parser.add_argument("--workers", type=int, default=0, help="render: processes, 0 = one per core")
    parser.add_argument(
        "--most", type=int, default=0, help="encode: clips at most; vae: those of a rank; 0 = all, 6000"
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="vae, flow: of this call, start included")
    parser.add_argument("--total-seconds", type=float, default=0.0, help="vae, flow: of all calls together, 0 = this")
    parser.add_argument("--steps", type=int, default=0, help="vae, flow: end after so many steps of this call")
    parser.add_argument("--batch", type=int, default=0, help="flow: of one device; 0 = the step's own")
    parser.add_argument("--windows", type=int, nargs="+", default=(1, 9, 33), help="vae: frames, longer and longer")
    parser.add_argument("--batches", type=int, nargs="+", default=(24, 3, 1), help="vae: of one device, per window")
    parser.add_argument("--init", type=Path, help="vae, flow: the folder of an earlier round whose weights come first")
    parser.add_argument("--mode", choices=("fast", "eager"), default="fast", help="vae, flow: compiled or not")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    STEPS[args.step](args)


if __name__ == "__main__":
    main()
