"""Settles how strongly a trained adapter acts at strength 1: as strongly as what was asked for stays readable."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from evaluate import FIRST_SEED
from style_page import KEYS
from style_report import Readers, Rows
from styles import Style

CALIBRATION = FIRST_SEED + 1_000_000  # prompts and seeds that the report never draws
LOSS = 0.04  # what the worst attribute may fall by, and
READ = 0.92  # how often the style must be read: each a little better than what is asked of the files


def worst(base: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """What the attribute that falls most falls by, for the reader that knows styles."""
    key = "attributes, adapted reader"
    return max(float(base[key][k] - row[key][k]) for k in KEYS)


def choose(tried: Mapping[float, tuple[float, float]]) -> float:
    """Of strengths with their loss and how often the style is read: the strongest that keeps to both bounds.

    Where none does: of those with the style the one that loses least, or where that fails too, the strongest.
    """
    good = [g for g, (loss, read) in tried.items() if loss <= LOSS + 1e-9 and read >= READ - 1e-9]
    styled = [g for g, (_, read) in tried.items() if read >= READ - 1e-9]
    if good:
        return max(good)
    return min(styled, key=lambda g: tried[g][0]) if styled else max(tried)


def settle(frozen: Any, lora: Any, style: Style, readers: Readers, args: argparse.Namespace) -> dict[str, Any]:
    """Reads the adapter at every strength of --gains, and says which was chosen and why."""
    rows = Rows(frozen, readers, args, CALIBRATION, [args.state / f"{style.name}.pt"])
    rows.add("base", args.prompts, ())
    tried = {}
    for g in args.gains:
        rows.add(f"{style.name} {g}", args.prompts, ((lora, g),))
        row = rows.rows[f"{style.name} {g}"]
        tried[g] = (round(worst(rows.rows["base"], row), 4), row["style read"][style.name])
    gain = choose(tried)
    for g, (loss, read) in tried.items():
        print(f"{style.name} at {g:g}: worst attribute -{loss * 100:.1f}, style read {read:.0%}", flush=True)
    print(f"{style.name}: a file's strength 1 is {gain:g}", flush=True)
    return {"gain": gain, "prompts": args.prompts, "tried": {f"{g:g}": t for g, t in tried.items()}}
