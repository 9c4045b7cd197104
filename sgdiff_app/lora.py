"""`sgdiff-app lora`: which LoRA files are here, and what one of them is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine import hub
from engine.config import EngineConfig
from engine.downloads import size
from engine.env import Environment
from engine.errors import UsageError, listed, suggest
from engine.lora import files, shelf
from engine.lora.facts import facts
from engine.lora.header import printable
from sgdiff_app.config import Settings
from sgdiff_app.options import CommandOptions

VERBS = ("inspect",)
LONGEST_PHRASE = 500  # characters of trigger words that are shown
HEADINGS = ("name", "from", "made for", "layout", "rank", "size", "trigger words")


def run(words: Sequence[str], settings: Settings, environment: Environment) -> int:
    """List the LoRA files, or inspect one; return the exit status. Raises SgdiffError."""
    as_json = settings.noun(CommandOptions).json
    verb, *names = words or [""]
    if not verb:
        print(*_list(as_json), sep="\n")
        return 0
    if verb not in VERBS:
        hint = f"; did you mean 'lora inspect {verb}'?" if Path(verb).exists() else suggest(verb, VERBS)
        raise UsageError(f"lora: must be followed by {listed(VERBS)} or by nothing, got '{verb}'{hint}")
    if len(names) != 1:
        raise UsageError(f"lora inspect: needs one file, got {len(names)}", code="missing_parameter")
    config = settings.noun(EngineConfig)
    weight_name = config.lora_weight_name[0] if config.lora_weight_name else None
    path = files.locate(names[0], weight_name, hub.access_of(config, environment))
    told = facts(path)
    print(json.dumps(told, ensure_ascii=False) if as_json else "\n".join(_shown(told)))
    return 0


def _list(as_json: bool) -> Iterator[str]:
    found = [(entry, facts(entry.path, digest=as_json)) for entry in shelf.entries()]
    if as_json:
        rows = [
            {"reference": entry.reference, "weight_name": entry.weight_name, "origin": entry.origin, **told}
            for entry, told in found
        ]
        yield json.dumps({"loras": rows}, ensure_ascii=False)
        return
    if not found:
        yield "no LoRA files: none is bundled, and the hub cache has none"
        return
    table = [HEADINGS, *(_row(entry, told) for entry, told in found)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADINGS))]
    for row in table:
        yield "  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip()


def _row(entry: shelf.Entry, told: Mapping[str, Any]) -> tuple[str, ...]:
    name = entry.reference + (f" {entry.weight_name}" if entry.weight_name else "")
    made_for = printable(told["base_model"] or told["looks_like"] or "-")
    ranks = ",".join(map(str, told["ranks"])) or "-"
    return name, entry.origin, made_for, told["layout"], ranks, size(told["bytes"]), _words(told["trigger_words"])


def _shown(told: Mapping[str, Any]) -> Iterator[str]:
    yield f"file: {told['file']} ({size(told['bytes'])})"
    yield f"sha256: {told['sha256']}"
    if told["name"]:
        yield f"name: {printable(told['name'])}"
    kind = "" if told["kind"] == "LoRA" else f", {told['kind']} (not supported)"
    yield f"format: {told['layout']}{kind}, {_words(told['dtypes'])}"
    said = f"{printable(told['base_model'])} (as the file says)" if told["base_model"] else None
    guessed = f"{told['looks_like']} (by its names)" if told["looks_like"] else None
    yield f"made for: {listed(filter(None, (said, guessed))) or 'unknown'}"
    yield f"rank: {listed(told['ranks']) or '-'}"
    stabilized = ", rank-stabilized" if told["rank_stabilized"] else ""
    yield f"alpha: {listed(f'{alpha:g}' for alpha in told['alphas']) or 'as the rank'}{stabilized}"
    counts = (("low-rank", "layers"), ("full", "full_differences"), ("bias", "bias_differences"))
    yield f"changes: {listed(f'{told[key]} {word}' for word, key in counts if told[key]) or 'nothing that is known'}"
    others = {name: count for name, count in told["components"].items() if name.startswith("text_encoder")}
    if others:
        yield f"other parts: {listed(f'{name} ({count} tensors)' for name, count in others.items())}"
    yield f"trigger words: {_words(told['trigger_words'])}"
    if told["training_tags"]:
        yield f"most frequent in training: {_words(told['training_tags'])}"
    yield "targets:"
    yield from (f"  {count:>4}  {printable(name)}" for name, count in told["targets"].items())


def _words(words: Iterable[str]) -> str:
    return listed(printable(word, LONGEST_PHRASE) for word in words) or "-"
