"""Draws the pictures of the example row into assets/examples: each as the row asks for it, by the bundled model."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.engine import Engine  # noqa: E402  (from the checkout, wherever this is started)
from ui.generate import EXAMPLES, MODEL, picture_of  # noqa: E402

SIDE = 128  # pixels; the row shows half of it, sharp on dense screens
QUALITY = 82


def main() -> None:
    """Draw every example, and say how large its file is."""
    folder = ROOT / "assets" / "examples"
    with Engine.from_pretrained(MODEL) as engine:
        for example in EXAMPLES:
            (output,) = engine.generate(example.prompt, seed=example.seed)
            picture = Image.fromarray(output.frames[0]).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            path = folder / picture_of(example).name
            picture.save(path, quality=QUALITY, method=6)
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
