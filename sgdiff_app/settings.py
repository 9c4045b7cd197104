"""All settings of the program by name: which nouns have them, which command uses them, what a name stands for."""

from __future__ import annotations

import difflib
import functools
from dataclasses import dataclass

from engine import schema
from engine.config import EngineConfig
from engine.errors import UsageError
from engine.schema import Field
from engine.types import Request
from sgdiff_app.options import (
    SHORTHANDS,
    BenchOptions,
    CommandOptions,
    LogOptions,
    OutputOptions,
    PromptOptions,
    ReplayOptions,
    ServerOptions,
    Shorthand,
)

Path = tuple[str, ...]

GENERATE = (EngineConfig, PromptOptions, Request, OutputOptions, LogOptions, CommandOptions, ReplayOptions)
NOUNS: dict[str, tuple[type, ...]] = {
    "generate": GENERATE,
    "serve": (EngineConfig, ServerOptions, LogOptions, CommandOptions),
    "desktop": (EngineConfig, ServerOptions, LogOptions, CommandOptions),
    "bench": (*GENERATE, BenchOptions),
    "models": (LogOptions,),
    "lora": (LogOptions,),
    "doctor": (LogOptions,),
}
SHARED = {"serve": ("output_path",), "desktop": ("output_path",), "doctor": ("json",),
          "models": ("json", "revision", "offline", "trust_remote_code"),
          "lora": ("json", "offline", "lora_weight_name")}  # fmt: skip
# Fields of a request that the HTTP and Python doors fill: a prompt comes from PromptOptions, one request for each.
NOT_FLAGS = ("prompt", "loras", "attention_backend_override")
COMPONENT_MAPS = ("component_paths", "component_weights_paths")
# Names that end in `_path` and are no component of any model.
RESERVED = (
    "model", "lora", "config", "output", "output_file", "image", "video", "mask", "prompt", "perf_dump", "input_save",
    "mask_strategy_file", "prompt_file", "upscaling_model", "frame_interpolation_model",
)  # fmt: skip
RETIRED = {
    "server_warmup": "was replaced; use warmup_mode: server",
    "decoder_tp": "was replaced; use vae_sp",
    "text_encoder_configs": "not supported; use text_encoder_precisions",
    "pe_server_url": "not supported",
}
NOT_SUPPORTED = ("minimax_h3_", "ltx2_", "sr_", "disagg_", "kv_cache_quant", "srt_encoder_")


@dataclass(frozen=True, slots=True)
class Setting:
    """One field and the nouns that have it: a value given for it goes to all of them."""

    field: Field
    owners: tuple[type, ...]

    @property
    def name(self) -> str:
        return self.field.name


@dataclass(frozen=True, slots=True)
class Target:
    """What a typed name stands for: a place inside a setting, and how precisely it was named.

    `rank` orders values given side by side: a whole map < one key of it < a component's own flag.
    """

    setting: Setting
    path: Path
    field: Field | None  # None: a key of a free map
    rank: int = 0
    shorthand: Shorthand | None = None


@functools.cache
def table() -> dict[str, Setting]:
    """Return every setting of every command by its field name."""
    found: dict[str, Setting] = {}
    for cls in (EngineConfig, PromptOptions, Request, OutputOptions, ServerOptions, LogOptions, CommandOptions,
                ReplayOptions, BenchOptions):  # fmt: skip
        for name, field in schema.fields(cls).items():
            if cls is Request and name in NOT_FLAGS:
                continue
            owners = (*found[name].owners, cls) if name in found else (cls,)
            found[name] = Setting(found[name].field if name in found else field, owners)
    return found


@functools.cache
def _by_any_name() -> dict[str, Setting]:
    return {name: setting for setting in table().values() for name in setting.field.names}


@functools.cache
def known_names() -> tuple[str, ...]:
    """Return every name that a flag or key may have, nested ones dotted."""
    nested = [
        f"{setting.name}.{inner}"
        for setting in table().values()
        if setting.field.group is not None
        for inner in schema.fields(setting.field.group)
    ]
    return (*_by_any_name(), *SHORTHANDS, *nested)


def used_by(command: str, setting: Setting) -> bool:
    """Say whether a command acts on a setting."""
    nouns = NOUNS.get(command, ())
    return any(owner in nouns for owner in setting.owners) or setting.name in SHARED.get(command, ())


def find(name: str, where: str, noun: str) -> Target:
    """Return what a name stands for; `-` equals `_`.

    `where` starts the message of the UsageError for an unknown name; `noun` says what it is (flag, key).
    """
    found = lookup(name)
    if found is not None:
        return found
    key = name.replace("-", "_")
    head = key.split(".")[0]
    if head in RETIRED:
        raise UsageError(f"{where}: {RETIRED[head]}", code="unknown_parameter", param=name)
    if head.startswith(NOT_SUPPORTED):
        raise UsageError(f"{where}: not supported", code="unknown_parameter", param=name)
    raise UsageError(f"{where}: unknown {noun}{closest(key, noun)}", code="unknown_parameter", param=name)


def closest(key: str, noun: str) -> str:
    """Return a hint at the known name nearest to `key`; the beginning of a name counts as near."""
    near = sorted((name for name in known_names() if name.startswith(key)), key=len)
    near = near or difflib.get_close_matches(key, known_names(), n=1, cutoff=0.4)
    if not near:
        return ""
    name = "--" + near[0].replace("_", "-") if noun == "flag" else near[0]
    return f"; did you mean '{name}'?"


def lookup(name: str) -> Target | None:
    """Return what a name stands for; None when it stands for nothing."""
    key = name.replace("-", "_")
    setting = _by_any_name().get(key)
    if setting is not None:
        return Target(setting, (setting.name,), setting.field)
    if key in SHORTHANDS:
        setting = table()[SHORTHANDS[key].target]
        return Target(setting, (setting.name,), setting.field, shorthand=SHORTHANDS[key])
    if "." in key:
        return _dotted(name)
    return _component(key)


def _dotted(name: str) -> Target | None:
    head, *rest = name.split(".")
    setting = _by_any_name().get(head.replace("-", "_"))
    if setting is None or not all(rest):
        return None
    return inside(setting, rest)


def inside(setting: Setting, rest: list[str]) -> Target | None:
    """Return the place `rest` inside a group or map; None when there is no such place."""
    if setting.field.kind == "map":
        component = setting.name in COMPONENT_MAPS
        keys = [key.replace("-", "_") for key in rest] if component else rest
        return Target(setting, (setting.name, *keys), None, rank=1)
    if setting.field.group is None:
        return None
    known = {name: field for field in schema.fields(setting.field.group).values() for name in field.names}
    field = known.get(rest[0].replace("-", "_"))
    if field is None or (len(rest) > 1 and field.kind != "map"):
        return None
    if len(rest) == 1:
        return Target(setting, (setting.name, field.name), field, rank=1)
    twin = known.get(rest[1].replace("-", "_"))  # a map inside a group holds the group's own keys once more
    return Target(setting, (setting.name, field.name, twin.name), twin, rank=1) if twin and len(rest) == 2 else None


def _component(key: str) -> Target | None:
    for ending, name in (("_weights_path", "component_weights_paths"), ("_path", "component_paths")):
        component = key.removesuffix(ending)
        if component and component != key and component not in RESERVED:
            return Target(table()[name], (name, component), None, rank=2)
    return None
