"""What the key of a tensor in a LoRA file says: which module, which part of its change, who wrote the file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

Part = Literal["down", "up", "up_bias", "alpha", "diff", "diff_b"]

# `.lora_A.default.weight`, `.lora_down.weight`, `.lora.down.weight`, `_lora.down.weight`, `_lora1.down.weight`; the
# word before `weight` is the name that a trainer gave to its adapter.
LOW_RANK = re.compile(
    r"(?:\.lora_(?P<letter>[AB])|\.lora_(?P<kohya>down|up)|\.lora(?:_linear_layer)?\.(?P<old>down|up)"
    r"|(?<=_lora)\.(?P<processor>down|up)|(?<=_lora[12])\.(?P<xlabs>down|up))"
    r"(?:\.(?!weight$|bias$)[\w-]+)?\.(?P<kind>weight|bias)$"
)
ALPHA = re.compile(r"(?:\.lora)?(?:[._](?:lora_)?(?:down|up)\.weight)?\.alpha$")
DIRECT: dict[str, Part] = {
    ".diff": "diff", ".w_norm": "diff", ".diff_b": "diff_b", ".b_norm": "diff_b",
}  # fmt: skip
TABLE = ".diff_m"  # of a block's modulation table
SIDES: dict[str, Part] = {"A": "down", "B": "up", "down": "down", "up": "up"}
# Kinds of adapters that are no sum of a low-rank product and differences.
OTHER_KINDS = {
    "DoRA": re.compile(r"\.dora_scale$|\.lora_magnitude_vector\b"),
    "LoHa": re.compile(r"\.hada_[wt]\d"),
    "LoKr": re.compile(r"\.lokr_[wt]\d"),
    "OFT": re.compile(r"\.b?oft_"),
    "Tucker (lora_mid)": re.compile(r"\.lora_mid\."),
    "GLoRA": re.compile(r"\.[ab][12]\.weight$"),
}
TEXT_ENCODERS = {
    "text_encoder": re.compile(r"lora_te1?_|text_encoder\.|text_encoders\.clip_l\.(transformer\.)?|te1?\.|clip_l\."),
    "text_encoder_2": re.compile(r"lora_te2_|text_encoder_2\.|text_encoders\.clip_g\.(transformer\.)?|te2\.|clip_g\."),
    "text_encoder_3": re.compile(r"lora_te3_|text_encoder_3\.|text_encoders\.|te3\.|conditioner\.|cond_stage_model\."),
}
DENOISERS = ("transformer", "transformer_2", "unet", "critic")
PREFIX = re.compile(
    r"base_model\.model\.|(?:model\.)?diffusion_model\.|(?:pipe\.)?dit\.|transformer(?:_2)?\.|unet\.|critic\.|model\."
    r"|lora_(?:unet|transformer)_|lycoris_"
)
TEXT_PREFIX = re.compile(r"base_model\.model\.|text_model[._]")
OLD_NAMES = {"to_out_lora": "to_out.0", "_lora": ""}  # of the attention processors that held LoRA layers themselves


class Key(NamedTuple):
    """One tensor of a file."""

    module: str  # as the file calls it, with its prefixes
    part: Part


def parse(key: str) -> Key | None:
    """Return what a key says; None for one of another form."""
    match = LOW_RANK.search(key)
    if match is not None:
        side = SIDES[next(text for name, text in match.groupdict().items() if name != "kind" and text)]
        if match["kind"] == "weight":
            return Key(key[: match.start()], side)
        return Key(key[: match.start()], "up_bias") if side == "up" else None
    if key.endswith(TABLE):
        return Key(f"{key.removesuffix(TABLE)}.modulation", "diff")
    for ending, part in DIRECT.items():
        if key.endswith(ending):
            return Key(key.removesuffix(ending), part)
    match = ALPHA.search(key)
    return Key(key[: match.start()], "alpha") if match is not None else None


def other_kind(keys: Iterable[str]) -> str | None:
    """Return the name of a kind of adapter that is no plain LoRA, if the keys show one."""
    names = list(keys)
    return next((kind for kind, form in OTHER_KINDS.items() if any(form.search(key) for key in names)), None)


def owner(key: str) -> str | None:
    """Return the component whose prefix a key has; None where it may be any denoiser."""
    name = key.removeprefix("base_model.model.")
    encoder = next((encoder for encoder, form in TEXT_ENCODERS.items() if form.match(name)), None)
    if encoder is not None:
        return encoder
    first = name.partition(".")[0]
    return first if first in DENOISERS else None


def candidates(module: str, target: str) -> Iterator[str]:
    """Yield what a module's name in a file may mean inside the component `target`, likeliest first."""
    own = TEXT_ENCODERS.get(target)
    prefix = PREFIX
    if own is not None:
        module, prefix = own.sub("", module.removeprefix("base_model.model."), count=1), TEXT_PREFIX
    while True:
        yield module
        plain = module.replace(".processor.", ".")
        for old, new in OLD_NAMES.items():
            if plain.endswith(old):
                yield plain.removesuffix(old) + new
                break
        match = prefix.match(module)
        if match is None:
            return
        module = module[match.end() :]


def layout(keys: Iterable[str]) -> str:
    """Name what most keys look like: kohya, xlabs, comfyui, peft, diffusers, bare."""
    counts = Counter(_writer(key) for key in keys)
    return counts.most_common(1)[0][0] if counts else "bare"


def _writer(key: str) -> str:
    if key.startswith(("lora_", "lycoris_")):
        return "kohya"
    if re.search(r"(double|single)_blocks\.\d+\.processor\.", key):
        return "xlabs"
    if key.startswith(("diffusion_model.", "model.diffusion_model.")):
        return "comfyui"
    if key.startswith("base_model.model."):
        return "peft"
    return "diffusers" if owner(key) else "bare"
