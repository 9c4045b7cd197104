"""What only a GPU can show, on tiny models: equal bytes, offload, interleaving, previews, nearness to the CPU."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from common import store  # noqa: E402
from PIL import Image  # noqa: E402

from engine.engine import Engine  # noqa: E402
from engine.models import tiny  # noqa: E402
from engine.runtime.control import Control  # noqa: E402
from engine.runtime.scheduler import StepScheduler  # noqa: E402
from engine.types import Output, Progress, Request  # noqa: E402

FP32 = {"dit_precision": "fp32", "vae_precision": "fp32", "text_encoder_precisions": ["fp32"]}
OFFLOADS: dict[str, dict[str, Any]] = {
    "text encoder offloaded": {"text_encoder_cpu_offload": True},
    "all offloaded": {"performance_mode": "memory"},
    "layerwise": {"dit_layerwise_offload": True},
    "layerwise, all": {"dit_layerwise_offload": True, "layerwise_offload_components": ("default",)},
}
Frames = np.ndarray[Any, Any]


def request(engine: Engine, picture: Path) -> Request:
    """Return a small request with whatever the model needs."""
    spec = engine.spec
    fields: dict[str, Any] = {"prompt": 'a hill with a sign "ok"', "height": 64, "width": 64, "seed": 3}
    fields["num_inference_steps"] = 3 if spec.few_steps else 4
    if spec.is_video:
        fields["num_frames"] = 9
    if set(spec.tasks) <= {"I2I", "I2V"}:
        fields["image_path"] = (str(picture),)
    return Request(**fields)


def draw(engine: Engine, asked: Request) -> Frames:
    """Return the frames of one output."""
    (output,) = engine.run(asked)
    return output.frames


def with_engine(folder: Path, use: Callable[[Engine], Any], **settings: Any) -> Any:
    """Build an engine, use it, and free it."""
    with Engine.from_pretrained(str(folder), **settings) as engine:
        return use(engine)


def difference(one: Frames, other: Frames) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def interleaved(engine: Engine, asked: Request) -> bool:
    """Say whether three runs that take turns draw what they draw alone."""
    assert engine.executor is not None
    pipeline = engine.executor.scheduler.pipeline
    wanted = [engine.resolve(asked.replace(seed=seed)) for seed in range(3)]
    alone = [draw(engine, one) for one in wanted]
    scheduler = StepScheduler(pipeline)
    runs = [scheduler.submit(one, Control()) for one in wanted]
    while scheduler.tick():
        pass
    return all(
        run.result is not None and (run.result[0] == frames).all() for run, frames in zip(runs, alone, strict=True)
    )


def previews(engine: Engine, asked: Request) -> int:
    """Return how many previews a run shows."""
    events: Iterator[Progress | Output] = engine.events(engine.resolve(asked), Control(preview=True))
    return sum(isinstance(event, Progress) and event.preview is not None for event in events)


def check(family: str, place: Path, picture: Path) -> dict[str, Any]:
    """Return what held for one family; a failure is the text of its error."""
    folder = tiny.make(family, place / family)
    found: dict[str, Any] = {}

    def note(name: str, use: Callable[[], Any]) -> None:
        try:
            found[name] = use()
        except Exception as error:  # noqa: BLE001 - the table says which check failed, and goes on
            found[name] = f"{type(error).__name__}: {error}"[:160]

    resident: list[Frames] = []

    def on_device(engine: Engine) -> None:
        asked = request(engine, picture)
        resident.append(draw(engine, asked))
        found["std"] = round(float(resident[0].std()), 1)
        found["again the same"] = bool((draw(engine, asked) == resident[0]).all())
        note("interleaved the same", lambda: interleaved(engine, asked))
        note("previews", lambda: previews(engine, asked))

    note("on the device", lambda: with_engine(folder, on_device) or "ran")
    if resident:
        for name, settings in OFFLOADS.items():
            note(
                name,
                lambda given=settings: with_engine(
                    folder, lambda e: difference(draw(e, request(e, picture)), resident[0]), **given
                ),
            )
        note(
            "cuDNN attention, largest difference",
            lambda: with_engine(
                folder,
                lambda e: difference(draw(e, request(e, picture)), resident[0]),
                attention_backend="torch_cudnn_sdpa",
            ),
        )
    frames: list[Frames] = []
    for device in ("cuda", "cpu"):
        note(
            f"fp32 on {device}",
            lambda there=device: (
                frames.append(with_engine(folder, lambda e: draw(e, request(e, picture)), device=there, **FP32))
                or "ran"
            ),
        )
    if len(frames) == 2:
        found["fp32, largest difference to the CPU"] = difference(*frames)
    return found


def main() -> int:
    """Check every family, or those that are named, and store a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", default=list(tiny.FAMILIES))
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("needs a CUDA device")
    found = {}
    with tempfile.TemporaryDirectory() as place:
        picture = Path(place) / "picture.png"
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(picture)
        for family in given.families:
            found[family] = check(family, Path(place), picture)
            print(family, found[family], flush=True)
    store("device_check", {"families": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
