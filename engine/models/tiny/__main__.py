"""The command behind scripts/make_tiny_model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.errors import SgdiffError, listed
from engine.models import tiny


def main(argv: Sequence[str] | None = None) -> int:
    """Write the model that a command line asks for, print its folder and return the exit status."""
    parser = argparse.ArgumentParser(prog="make_tiny_model", description=tiny.__doc__)
    parser.add_argument("family", help=listed(tiny.FAMILIES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    try:
        sys.stdout.write(f"{tiny.make(given.family, given.folder, given.seed)}\n")
    except SgdiffError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
