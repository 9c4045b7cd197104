"""The commands of the program: picks one, answers --help and --version, turns errors into exit codes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from sgdiff_app import __version__

COMMANDS = {
    "generate": "Draw: one or more prompts, one or more outputs each; writes files and exits.",
    "serve": "Keep a model loaded behind an HTTP API and a web UI.",
    "desktop": "The same in a window of its own.",
    "models": "List known models; 'show ID', 'pull ID'.",
    "lora": "List LoRA files; 'inspect FILE'.",
    "doctor": "Check this machine: device, torch, attention, ffmpeg, disk, caches.",
    "bench": "Repeat one request and print the times.",
    "compare-perf": "Compare files of --perf-dump-path: BASE NEW [NEW2 ...].",
}
BUILT = ("generate", "serve", "desktop", "models", "lora", "doctor")
FLAGS = ("generate", "serve", "desktop", "bench")  # commands whose flags are the settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status; every error becomes one line on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    _open_streams()
    try:
        status = _told(words)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader of our output has left: nobody is there to be told
        return 1
    lost = isinstance(sys.stdout, _Lost) and sys.stdout.tell() > 0
    return status or int(lost)


def _told(words: list[str]) -> int:
    try:
        return _run(words)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        from sgdiff_app import failures

        return failures.cancelled(words)
    except Exception as error:  # noqa: BLE001 - the last place that can still say it in one line
        from sgdiff_app import failures

        return failures.tell(error, words)


class _Lost(io.StringIO):
    """Stands for an output that the caller has closed, and knows whether something was written."""


def _open_streams() -> None:
    """Let a closed stdout or stderr swallow what is written, and no other file take its number."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            while os.open(os.devnull, os.O_RDWR) < number:
                pass  # stdin is closed too, and comes first
            setattr(sys, name, _Lost())


def _run(words: list[str]) -> int:
    if "--version" in words:
        print(f"sgdiff-app {__version__}")
        return 0
    if not words or words[0] in ("--help", "-h"):
        print(_overview(), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    command, rest = words[0], words[1:]
    if command not in COMMANDS:
        from engine.errors import UsageError, suggest

        raise UsageError(f"unknown command '{command}'{suggest(command, COMMANDS)}")
    if "--help" in rest or _asks_for_help(rest):
        print(_help(command))
        return 0
    if command in FLAGS or command in BUILT:
        from sgdiff_app import commands

        return commands.run(command, rest)
    _refuse(command)
    return 2


def _asks_for_help(rest: Sequence[str]) -> bool:
    """Say whether there is a `-h` that stands for itself, and not where the value of a flag is missing."""
    if "-h" not in rest:
        return False
    from sgdiff_app import flags

    return any(word == "-h" and not flags.needs_value(before) for before, word in zip(["", *rest], rest, strict=False))


def _refuse(command: str) -> None:
    from engine.errors import NotAvailable

    raise NotAvailable(f"{command}: not available yet")


def _help(command: str) -> str:
    if command in FLAGS or command in BUILT:
        from sgdiff_app import help as texts

        return texts.page(command, COMMANDS[command] + ("" if command in BUILT else f" {texts.LATER}"))
    return f"sgdiff-app {command}: {COMMANDS[command]} (not available yet)"


def _overview() -> str:
    lines = ["Draw pictures and videos with diffusion models.", "", "usage: sgdiff-app COMMAND [--flag value ...]", ""]
    for name, text in COMMANDS.items():
        lines.append(f"  {name:<14}{text}" + ("" if name in BUILT else " (not available yet)"))
    lines += ["", "  sgdiff-app COMMAND --help lists the flags of a command.", "  --version prints the version."]
    return "\n".join(lines)
