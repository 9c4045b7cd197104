"""Writes the tables of README.md from the stored results; `--check` only says whether they are current."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
README, RESULTS = ROOT / "README.md", Path(__file__).parent / "results"


def _row(label: str, spread: Mapping[str, float]) -> str:
    return f"| {label} | {spread['median_s']:.2f} s | {spread['min_s']:.2f} s | {spread['max_s']:.2f} s |"


def first_picture(result: Mapping[str, Any]) -> list[str]:
    """The bundled model on a CPU."""
    versions = result["versions"]
    made = f"{result['date']}, {result['cpu']}, torch {versions['torch']}, diffusers {versions['diffusers']}"
    return [
        f"| tiny-scenes, 256x256, {result['cpu_cores']} cores, fp32 | median | least | largest |",
        "| --- | --- | --- | --- |",
        _row("from typing the command to the file", result["from_typing"]),
        _row("warm", result["warm"]),
        _row("stock diffusers, warm, taking turns with ours", result["stock_diffusers_warm"]),
        "",
        f"Peak memory of the command: {result['peak_memory_mb']} MB. {made}.",
    ]


TABLES = {"first_picture": first_picture}


def current(text: str) -> str:
    """Return the README with every table made from its result."""
    for name, table in TABLES.items():
        result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        block = "\n".join([f"<!-- {name} -->", *table(result), f"<!-- /{name} -->"])
        pattern = rf"<!-- {name} -->.*?<!-- /{name} -->"
        assert re.search(pattern, text, re.DOTALL), f"README.md has no place for {name}"
        text = re.sub(pattern, lambda _, block=block: block, text, flags=re.DOTALL)
    return text


def main() -> int:
    """Write the tables, or check them."""
    text = README.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        return int(current(text) != text)
    README.write_text(current(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
