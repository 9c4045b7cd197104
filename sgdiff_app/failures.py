"""How the end of a command that failed is told: one line, a traceback at debug level, an object with --json."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress

from engine.errors import Cancelled, SgdiffError, UsageError
from sgdiff_app.layers import merge

WISHES = ("json", "log_level")


def tell(error: Exception, words: Sequence[str]) -> int:
    """Report an error and return the exit status; `words` are those of the command line, the command first."""
    known = error if isinstance(error, SgdiffError) else SgdiffError(f"{type(error).__name__}: {error}")
    as_json, verbose = wishes(words)
    if verbose and not words[0].startswith("-"):  # without a command there is nothing to trace
        import traceback

        traceback.print_exception(error)
    complain(known.message)
    if as_json:
        print_object(known)
    return known.exit_status


def cancelled(words: Sequence[str]) -> int:
    """Report that the command was stopped before its own handling of signals began."""
    if wishes(words)[0]:
        print_object(Cancelled("cancelled"))
    return Cancelled.exit_status


def complain(message: str) -> None:
    """Write an error as one line on stderr."""
    print("error: " + " ".join(message.splitlines()), file=sys.stderr, flush=True)


def print_object(error: SgdiffError) -> None:
    """Write an error as the object that stands for a result on stdout."""
    report = {"status": "failed", "error": {"code": error.code, "message": error.message}}
    print(json.dumps(report, ensure_ascii=False), flush=True)


def wishes(argv: Sequence[str]) -> tuple[bool, bool]:
    """Return whether JSON and whether the debug level is wanted, from every source of settings.

    The settings may be what is wrong: what cannot be read of them is passed over.
    """
    from sgdiff_app import config, flags, variables

    names = (*WISHES, "config")
    layers = [variables.pick(names), flags.pick(argv, names)]
    named = merge(layers).get(("config",))
    if named is not None:
        with suppress(UsageError):
            layers.insert(1, config.read_file(named.value, named.where, "generate", only=WISHES))
    entries = merge(layers)
    as_json, level = entries.get(("json",)), entries.get(("log_level",))
    return as_json is not None and as_json.value is True, level is not None and level.value == "debug"
