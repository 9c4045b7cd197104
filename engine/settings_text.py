"""Settings out of whatever a user drops or pastes: our recipes, settings files, and what other programs write."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import comfy, hub, infotext, recipe, recipe_file, schema, yaml_text
from engine.errors import InputError, UsageError, listed, shown
from engine.types import LoraRef, Request

LONGEST = 2**20  # characters of a text; a recipe with the longest prompts has a tenth of it
LONGEST_YAML = 2**16  # likewise; reading a megabyte takes half a minute
DEEPEST = 50  # mappings and lists inside each other
READABLE = (
    "a PNG, JPEG, WebP, GIF or MP4 file of this program, a picture with settings of AUTOMATIC1111, Forge, ComfyUI, "
    "InvokeAI, SwarmUI or Fooocus, their settings text, or JSON or YAML with settings"
)
TEXT_SUFFIXES = (".json", ".yaml", ".yml", ".txt", ".text")
OURS, CONFIG = "sgdiff-app", "settings"
INPUTS = (*recipe.INPUTS, "frame_interpolation_model_path", "upscaling_model_path")  # never taken from a stranger
MODELS = ("model_path", "model")
# Names of other programs -> request fields; what is left out has the same name.
INVOKE = {"positive_prompt": "prompt", "negative_prompt": "negative_prompt", "cfg_scale": "guidance_scale",
          "steps": "num_inference_steps"}  # fmt: skip
SWARM = {"negativeprompt": "negative_prompt", "cfgscale": "guidance_scale", "steps": "num_inference_steps",
         "initimagecreativity": "strength"}  # fmt: skip
FOOOCUS = {"steps": "num_inference_steps", "resolution": "size", "base_model": "model"}
SILENT = (
    "sgdiff", "metadata_version", "app_version", "generation_mode", "version", "created_by", "metadata_scheme",
    "swarm_version", "full_prompt", "full_negative_prompt", "raw_prompt",
)  # fmt: skip
SIZE = re.compile(r"\(?\s*(\d{1,6})\s*[x×,*]\s*(\d{1,6})\s*\)?")


@dataclass(frozen=True, slots=True)
class Settings:
    """What was found: checked values of request fields as JSON-able data, and what has no counterpart here.

    `source` names the program, `model` is the name that it gives its model. `ignored` has a line for each setting that
    was left out, and why where that is known.
    """

    request: Mapping[str, Any]
    source: str
    model: str | None = None
    ignored: tuple[str, ...] = ()


def of_file(path: str | Path) -> Settings:
    """Return the settings inside a picture, a clip, or a JSON, YAML or text file. Raises UsageError."""
    path = Path(path)
    if path.suffix.lower() in TEXT_SUFFIXES:
        try:
            with path.open("rb") as file:
                data = file.read(4 * LONGEST + 1)
        except OSError as error:
            raise InputError(f"{path.name}: cannot be read: {error.strerror or error}") from error
        return of_text(data.decode("utf-8-sig", errors="replace"))
    try:
        texts = recipe_file.read_texts(path)
    except InputError as error:
        raise UsageError(f"{error.message.replace(str(path), path.name)}; what can be read: {READABLE}") from error
    if recipe_file.KEY in texts:
        return _of_mapping(recipe_file.parsed(texts[recipe_file.KEY], path.name), OURS)
    for name in ("invokeai_metadata", "parameters", "prompt", "comment"):
        if name in texts:
            found = _of_text(texts[name])
            if found is not None:
                return found
    raise UsageError(f"{path.name}: no settings inside; what can be read: {READABLE}", code="recipe_not_found")


def of_text(text: str) -> Settings:
    """Return the settings that a text holds. Raises UsageError."""
    found = _of_text(text)
    if found is None:
        raise UsageError(f"no settings in '{shown(text.strip())}'; what can be read: {READABLE}")
    return found


def _of_text(text: str) -> Settings | None:
    if len(text) > LONGEST:
        raise UsageError(f"settings: must have at most {LONGEST} characters, got {len(text)}")
    text = text.strip()
    if text.startswith("{"):
        try:
            value = json.loads(text, parse_int=schema.whole)
        except (ValueError, RecursionError) as error:
            spot = f": line {error.lineno} column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            raise UsageError(f"settings: JSON that cannot be read{spot}") from error
        return _of_mapping(value)
    parsed = infotext.parse(text)
    if parsed is not None:
        return _made(*parsed, source=OURS if "Version: sgdiff-app" in text else "AUTOMATIC1111")
    value = _yaml(text) if len(text) <= LONGEST_YAML else None
    return _of_mapping(value) if isinstance(value, dict) and value else None


def _yaml(text: str) -> Any:
    """Return what YAML says without anchors, by which a few lines could stand for gigabytes; None when it is none."""
    import yaml  # only when a text may be YAML

    try:
        for token in yaml.scan(text):
            if isinstance(token, yaml.AliasToken):
                return None
        value = yaml.load(text, yaml_text.loader())
    except (yaml.YAMLError, RecursionError):
        return None
    return value


def _require_shallow(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        inner = [entry for entry in level if isinstance(entry, dict | list)]
        level = [entry for outer in inner for entry in (outer.values() if isinstance(outer, dict) else outer)]
        if not level:
            return
    raise UsageError("settings: nested too deeply")


def _of_mapping(given: Mapping[str, Any], source: str = CONFIG) -> Settings:
    """Tell a mapping's format by the names in it."""
    _require_shallow(given)
    if "sgdiff" in given and "request" in given:
        return _of_recipe(given)
    if "sui_image_params" in given and isinstance(given["sui_image_params"], dict):
        return _translated(given["sui_image_params"], SWARM, "SwarmUI")
    if "positive_prompt" in given:
        return _translated(given, INVOKE, "InvokeAI")
    if "base_model" in given or "resolution" in given:
        return _translated(given, FOOOCUS, "Fooocus")
    graph = given["prompt"] if isinstance(given.get("prompt"), dict) else given
    parsed = comfy.parse(graph)
    if parsed is not None:
        return _made(*parsed, source="ComfyUI")
    if isinstance(given.get("request"), dict):
        given = {**{key: value for key, value in given.items() if key in MODELS}, **given["request"]}
    return _translated(given, {}, source)


def _of_recipe(given: Mapping[str, Any]) -> Settings:
    """Read a recipe of ours; its input images must be given again, and adapters that it does not name well left out."""
    engine = given["engine"] if isinstance(given.get("engine"), dict) else {}
    entries: Any = engine.get(recipe.ADAPTERS)
    recipe.check({**given, "engine": {**engine, recipe.ADAPTERS: []}} if isinstance(entries, list) else given)
    loras, wrong = list[Any](), list[str]()
    for i, entry in enumerate(entries):
        try:
            loras.append(schema.plain(recipe.lora(entry, i)))
        except InputError as error:
            wrong.append(f"LoRA {i + 1}: left out; {error.message}")
    # Those of the recipe, and not those of the server: also when none of them is left.
    kept, ignored = _checked({**given["request"], **({"loras": loras} if entries else {})})
    inputs = [f"{name}: give it again; a recipe holds no pictures" for name in given["inputs"]]
    return Settings(kept, OURS, str(given["engine"]["model_path"]), (*inputs, *wrong, *ignored))


def _translated(given: Mapping[str, Any], names: Mapping[str, str], source: str) -> Settings:
    """Read a flat mapping, whose names are ours or translated. Raises UsageError when none is known."""
    fields, model, ignored = dict[str, Any](), None, list[str]()
    known = {name for field in schema.fields(Request).values() for name in field.names}
    for key, value in given.items():
        name = names.get(str(key), str(key).replace("-", "_"))
        if name in MODELS:
            model = model or _model(value)
        elif name == "size" and isinstance(value, str) and (sides := SIZE.fullmatch(value)):
            fields |= {"width": int(sides[1]), "height": int(sides[2])}
        elif name in known:
            fields[schema.find(Request, name).name] = value
        elif str(key) not in SILENT and value is not None:
            ignored.append(f"{shown(key)}: {shown(value)}")
    if not fields:
        found = f"got {listed(shown(key) for key in list(given)[:5])}" if given else "got nothing"
        raise UsageError(f"settings: no name that is known, {found}; what can be read: {READABLE}")
    return _made(fields, model, ignored, [], source=source)


def _model(value: Any) -> str | None:
    """Return the name of a model, which some programs describe at length."""
    if isinstance(value, dict):
        value = value.get("name") or value.get("model_name")
    return str(value) if value else None


def _made(
    fields: Mapping[str, Any],
    model: str | None,
    ignored: Iterable[str],
    loras: Iterable[tuple[str, float]],
    *,
    source: str,
) -> Settings:
    here = hub.bundled_loras()
    loras = list(loras)
    refs = [{"name": name, "path": name, "scale": scale} for name, scale in loras if name in here]
    missing = [f"LoRA {shown(name)}, strength {scale:g}: not here" for name, scale in loras if name not in here]
    kept, wrong = _checked({**fields, **({"loras": refs} if refs else {})})
    return Settings(kept, source, model and shown(model), tuple(shown(line) for line in (*ignored, *missing, *wrong)))


def _checked(fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the values that a request may have, and a line for each that it may not."""
    kept, wrong = dict[str, Any](), list[str]()
    for name, value in fields.items():
        if name == "seed" and value == -1:
            continue  # any seed
        if name == recipe.ADAPTERS and isinstance(value, list) and len(value) > 1:  # one that is wrong is one alone
            each = [_checked({name: [entry]}) for entry in value]
            kept[name] = [entry for found, _ in each for entry in found.get(name, ())]
            wrong += [line for _, lines in each for line in lines]
            continue
        try:
            if name in INPUTS:
                raise UsageError(f"{name}: give it again; files are not taken from settings")
            checked = schema.check(Request, name, _as_whole(value))
            schema.require_available(Request, name, checked)
            _require_portable(checked if name == "loras" else ())
        except UsageError as error:
            wrong.append(error.message)
            continue
        if checked is not None:
            kept[name] = schema.plain(checked)
    return kept, wrong


def _as_whole(value: Any) -> Any:
    """Return 20.0 as 20, which other programs write for one another."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _require_portable(loras: Iterable[LoraRef] | None) -> None:
    for ref in loras or ():
        if ref.path is not None and not hub.is_portable(ref.path):
            raise UsageError(f"loras: '{shown(ref.path)}': a LoRA of this machine; choose it again")
