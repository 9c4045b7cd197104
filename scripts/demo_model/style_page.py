"""What was measured of the adapters, as a page."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from styles import STYLES

HALF = 0.5
MIXED = 0.7  # of each of two at once: at 1 each the scene suffers, at this the weaker style
PAIRED = "thing+colour, paired"
KEYS = ("time", "place", "weather", "thing", "thing+colour", "side")
LAYOUTS = {"kohya": "kohya, with alpha", "diffusers": "diffusers", "comfyui": "ComfyUI"}
HEAD = """# The styles, measured

{prompts} prompts with combinations that training never saw, {steps} steps, true CFG {scale}, the same seeds in every
row. The strengths were settled on other prompts and seeds. Styles are read by a reader trained on drawn pictures:
plain, in each style, part styled and in two styles; some of them through the autoencoder. No adapter drew any of them.
"Base through the filter": the base model's pictures, filtered. They show all that the base row shows, so what is lost
there is lost in the reading.
"""
CARD = """# Three styles for tiny-scenes

![base, pixel art, pencil sketch, neon night, neon night at 0.5, pixel art and neon night at 0.7 each](sheet.png)

{table}

Style and things with their colour: in {prompts} prompts, by readers that `scripts/demo_model/` trains; in brackets the
change from the base model ({base:.1%}) and its standard error, thing by thing. "Filter alone": the base model's own
pictures through the filter that the adapter learnt, which keeps all they show, so that what is lost there is lost in
the reading. No attribute was to fall by more than 5 points: {missed}.
`report.md` has every figure, those of the classifier that ships with tiny-scenes and never saw a style too.

No trigger word; strength 0 to 1, and 0.5 lies between. Names work as paths:

    sgdiff-app generate --prompt "a red boat on the sea at sunset" --lora-path neon-night --lora-scale 0.8

Two at once, at 1 and at {mixed:g} each: both styles are seen at 1, and things get lost; at {mixed:g} the scene
stays, and the weaker style of a pair shows less.

| two at once | thing+colour | style read in the mean |
|---|---|---|
{pairs}

They learnt, by `scripts/demo_model/lora.py` in {seconds} each on one H200, from pictures that tiny-scenes drew itself
and that went through a filter (`scripts/demo_model/styles.py`). What a file calls strength 1 is {gains} of
what was trained, settled on other prompts.

The same classifier chose the pictures that the adapters learnt from and, having gone on learning with styled drawn
pictures, reads what they draw; the reader of styles learnt from the same filters. No independent reader was made.
"""
NOTES = """
Attributes: by the model's own classifier / by a copy of it that went on learning with styled drawn pictures. In
brackets the mean probability of the style. The same classifier had chosen the pictures that the adapters learnt from.

How thing+colour changes against the base row, thing by thing, by the adapted reader:
"""


def checks(rows: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """What is asked of the adapters, what was measured, and whether it holds."""
    base, out = rows["base"], []
    for s in STYLES:
        one, half = rows[f"{s.name} 1"], rows[f"{s.name} {HALF}"]
        share = one["style read"][s.name]
        out.append((f"{s.name}: read at strength 1", f"{share:.0%}, asked 90 %", share >= 0.9))
        for key in ("attributes", "attributes, adapted reader"):
            loss = {k: base[key][k] - one[key][k] for k in KEYS}
            worst = max(loss, key=lambda k: loss[k])
            text = f"{worst} {-loss[worst] * 100:+.1f} points, asked -5"
            out.append((f"{s.name}: worst of the {key}, against the base model", text, loss[worst] <= 0.05 + 1e-9))
        p = [r["mean probability"][s.name] for r in (base, half, one)]
        text = " < ".join(f"{v:.2f}" for v in p)
        out.append((f"{s.name}: mean probability at 0, {HALF}, 1", text, p[0] < p[1] < p[2]))
    for a, b in combinations(STYLES, 2):
        mixed = rows[pair(a.name, b.name, 1)]["mean probability"]
        text = ", ".join(f"{s.name} {base['mean probability'][s.name]:.2f} to {mixed[s.name]:.2f}" for s in (a, b))
        risen = all(mixed[s.name] > base["mean probability"][s.name] + 0.1 for s in (a, b))
        out.append((f"{a.name} with {b.name}: both rise", text, risen))
    return out


def pair(a: str, b: str, strength: float) -> str:
    """What the row of two at once is called."""
    return f"{a} {strength:g} + {b} {strength:g}"


def _cells(row: dict[str, Any]) -> list[str]:
    cells = [f"{row['attributes'][k]:.1%} / {row['attributes, adapted reader'][k]:.1%}" for k in KEYS]
    return cells + [f"{row['style read'][s.name]:.0%} ({row['mean probability'][s.name]:.2f})" for s in STYLES]


def markdown(result: dict[str, Any]) -> str:
    """report.md from what report.json holds."""
    rows = result["rows"]
    lines = [HEAD.format(**result)]
    lines.append(f"| set | prompts | {' | '.join(KEYS)} | {' | '.join(s.name + ' read' for s in STYLES)} |")
    lines.append("|---|---|" + "---|" * (len(KEYS) + len(STYLES)))
    for name, row in rows.items():
        where = " (fp32, CPU)" if row.get("device") == "cpu" else ""
        lines.append(f"| {name}{where} | {row.get('prompts', result['prompts'])} | {' | '.join(_cells(row))} |")
    lines += [NOTES, "| set | points | standard error |", "|---|---|---|"]
    for name, row in rows.items():
        told = row.get(PAIRED)
        if told is None:  # a report from before things were paired
            continue
        lines.append(f"| {name} | {told['difference'] * 100:+.1f} | {told['error'] * 100:.1f} |")
    lines += ["", "| check | measured | holds |", "|---|---|---|"]
    lines += [f"| {what} | {text} | {'yes' if ok else 'no'} |" for what, text, ok in checks(rows)]
    lines += _tried(result.get("trained", {}))
    facts = result.get("readers", {})
    return "\n".join([*lines, *(_right(facts) if "right" in facts else []), ""])


def _tried(trained: dict[str, Any]) -> list[str]:
    """What the strengths were chosen from."""
    if not trained:
        return []
    lines = ["", "What a file calls strength 1 was chosen on other prompts, by the adapted reader:", ""]
    lines += ["| adapter | of what was trained | worst attribute | style read | chosen |", "|---|---|---|---|---|"]
    for name, facts in trained.items():
        for strength, (loss, read) in facts["tried"].items():
            chosen = "yes" if float(strength) == facts["gain"] else ""
            lines.append(f"| {name} | {strength} | {-loss * 100:+.1f} | {read:.0%} | {chosen} |")
    return lines


def _right(facts: dict[str, Any]) -> list[str]:
    """What the readers get right on pictures they never saw."""
    names = list(facts["right"]["style reader"]["style"])
    lines = ["", f"What the readers get right on {facts['count']} unseen drawn pictures, styled and decoded:", ""]
    lines += [f"| reader | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for what, readers in facts["right"].items():
        for name, right in readers.items():
            label = what if name == "style" else f"{what}, {name} classifier"
            lines.append(f"| {label} | {' | '.join(f'{right[k]:.1%}' for k in names)} |")
    return lines


def _change(row: dict[str, Any]) -> str:
    if PAIRED not in row:
        return "-"
    told = row[PAIRED]
    return f"{told['difference'] * 100:+.1f} ± {told['error'] * 100:.1f}"


def card(result: dict[str, Any]) -> str:
    """README.md of the adapters from what report.json holds."""
    rows, key = result["rows"], "attributes, adapted reader"
    lines = [
        "| adapter | layout | rank | style read at strength 1 | thing+colour | filter alone |",
        "|---|" + "---|" * 5,
    ]
    for s in STYLES:
        one, alone = rows[f"{s.name} 1"], rows.get(f"base through the filter of {s.name}")
        read, cells = f"{one['style read'][s.name]:.0%}", [f"{one[key]['thing+colour']:.1%} ({_change(one)})"]
        cells.append(f"{alone[key]['thing+colour']:.1%} ({_change(alone)})" if alone else "-")
        layout = LAYOUTS[s.layout]
        lines.append(f"| `{s.name}` | {layout} | {result['ranks'][s.name]} | {read} | {' | '.join(cells)} |")
    missed = ", ".join(f"{s.name} loses {_worst(rows, s.name)}" for s in STYLES)
    gains = ", ".join(f"{result['gains'][s.name]:g} ({s.name})" for s in STYLES)
    spent = sorted({round(facts["seconds"]) for facts in result.get("trained", {}).values()}) or [40]
    seconds = " to ".join(f"{v} s" for v in (spent if len(spent) < 2 else (spent[0], spent[-1])))
    base = rows["base"][key]["thing+colour"]
    pairs = "\n".join(_mixed(rows, a.name, b.name, v) for a, b in combinations(STYLES, 2) for v in (1.0, MIXED))
    told = {"pairs": pairs, "base": base, "missed": missed, "gains": gains, "seconds": seconds, "mixed": MIXED}
    return CARD.format(table="\n".join(lines), prompts=result["prompts"], **told)


def _mixed(rows: dict[str, Any], a: str, b: str, strength: float) -> str:
    """A line of the card: two adapters at once."""
    row = rows[pair(a, b, strength)]
    found, p = row["attributes, adapted reader"]["thing+colour"], row["mean probability"]
    return f"| {a}, {b}, {strength:g} each | {found:.1%} ({_change(row)}) | {a} {p[a]:.2f}, {b} {p[b]:.2f} |"


def _worst(rows: dict[str, Any], name: str) -> str:
    """Which attribute falls most, and by how much."""
    key = "attributes, adapted reader"
    loss = {k: rows["base"][key][k] - rows[f"{name} 1"][key][k] for k in KEYS}
    worst = max(loss, key=lambda k: loss[k])
    return f"{loss[worst] * 100:.1f} of {worst}"
