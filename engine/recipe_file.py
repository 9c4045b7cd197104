"""The recipe inside a file: what is written for PNG, JPEG, WebP, GIF and MP4, and how it is found again."""

from __future__ import annotations

import base64
import html
import json
import re
import struct
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine import log, schema, video
from engine.errors import InputError

logger = log.get(__name__)

KEY = "sgdiff"
SEGMENT = 65_000  # JPEG keeps EXIF and XMP in one segment of 64 KiB each
EXIF_FOLDER, USER_COMMENT, MODEL = 0x8769, 0x9286, 0x0110
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:sgdiff="urn:sgdiff:recipe" sgdiff:recipe="{}"/></rdf:RDF></x:xmpmeta>'
)
PACKED = "zlib:"


def parameters_text(recipe: Mapping[str, Any]) -> str:
    """Return a recipe as the text that other programs read: prompt, negative prompt, one line of settings."""
    request, engine = recipe.get("request", {}), recipe.get("engine", {})
    true_cfg, guidance = request.get("true_cfg_scale"), request.get("guidance_scale")
    size = f"{request['width']}x{request['height']}" if request.get("width") and request.get("height") else None
    version = engine.get("versions", {}).get("sgdiff-app")
    settings = {
        "Steps": request.get("num_inference_steps"),
        "CFG scale": guidance if true_cfg is None else true_cfg,
        "Distilled CFG Scale": None if true_cfg is None else guidance,
        "Seed": request.get("seed"),
        "Size": size,
        "Model hash": (engine.get("folder_hash") or "")[:10] or None,
        "Model": engine.get("model"),
        "Denoising strength": request.get("strength"),
        "Version": f"sgdiff-app {version}" if version else None,
    }
    lines = [request.get("prompt") or ""]
    if request.get("negative_prompt"):
        lines.append(f"Negative prompt: {request['negative_prompt']}")
    lines.append(", ".join(f"{name}: {_number(value)}" for name, value in settings.items() if value is not None))
    return "\n".join(lines)


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def image_fields(fmt: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of Pillow's `save` that put a recipe into a picture of format `fmt`."""
    if fmt == "png":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt(KEY, _json(recipe))
        info.add_itxt("parameters", parameters_text(recipe))
        return {"pnginfo": info}
    if fmt == "gif":
        return {"comment": json.dumps({KEY: recipe}).encode()}
    text = parameters_text(recipe)
    packet = XMP.format(html.escape(_json(recipe))).encode()
    if fmt == "jpeg":
        text = text.encode("utf-16-be")[: SEGMENT - 200].decode("utf-16-be", errors="ignore")
        if len(packet) > SEGMENT:
            packed = PACKED + base64.b64encode(zlib.compress(_json(recipe).encode(), 9)).decode()
            packet = XMP.format(packed).encode()
        if len(packet) > SEGMENT:
            logger.warning("the recipe is too long for a JPEG file and is left out; PNG and WebP hold it")
            return {"exif": _exif(text)}
    return {"exif": _exif(text), "xmp": packet}


def video_tags(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags that put a recipe into an MP4 file."""
    return {KEY: _json(recipe), "comment": parameters_text(recipe)}


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Return the recipe inside a PNG, JPEG, WebP, GIF or MP4 file. Raises InputError.

    What is inside counts, not the file's name; nothing of it is executed.
    """
    text = read_texts(path).get(KEY)
    if text is None:
        raise InputError(f"{path}: no recipe inside", code="recipe_not_found")
    return parsed(text, str(path))


def parsed(text: str, path: str) -> dict[str, Any]:
    """Return the recipe that stands in a file as this text; messages name the file. Raises InputError."""
    try:
        if text.startswith(PACKED):
            text = _unpack(text.removeprefix(PACKED))
        recipe = json.loads(text, parse_int=schema.whole)
    except (ValueError, zlib.error, RecursionError) as error:
        raise InputError(f"{path}: the recipe inside is damaged", code="invalid_recipe") from error
    if not isinstance(recipe, dict) or not isinstance(recipe.get("request"), dict):
        raise InputError(f"{path}: the recipe inside is damaged", code="invalid_recipe")
    return recipe


def read_texts(path: str | Path) -> dict[str, str]:
    """Return what is written inside a picture or clip, by name: the recipe, and the settings of other programs.

    Raises InputError.
    """
    from PIL import Image, UnidentifiedImageError

    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            head = file.read(12)
        if head[4:8] == b"ftyp":
            return video.read_tags(path.resolve())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow thinks of the pixels, which are not read
            with Image.open(path, formats=("PNG", "JPEG", "WEBP", "GIF")) as image:
                info, exif = dict(image.info), image.getexif()
                comment, model = exif.get_ifd(EXIF_FOLDER).get(USER_COMMENT), exif.get(MODEL)
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: is no PNG, JPEG, WebP, GIF or MP4 file") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    texts = {str(key): str(value) for key, value in info.items() if isinstance(value, str)}
    if isinstance(info.get("comment"), bytes):
        own = _of_comment(info["comment"])
        texts |= {"comment": info["comment"].decode(errors="replace")} if own is None else {KEY: own}
    packet = info.get("xmp")
    found = re.search(rb'sgdiff:recipe="([^"]*)"', packet) if isinstance(packet, bytes) else None
    if found and KEY not in texts:
        texts[KEY] = html.unescape(found[1].decode(errors="replace"))
    if isinstance(comment, bytes):
        texts.setdefault("parameters", _of_user_comment(comment))
    if isinstance(model, str) and model.startswith("prompt:"):  # where ComfyUI puts its graph
        texts.setdefault("prompt", model.removeprefix("prompt:"))
    return texts


def _of_user_comment(comment: bytes) -> str:
    """Return the text of an EXIF comment, whose first eight bytes name its encoding."""
    kind, text = comment[:8], comment[8:]
    if kind.startswith(b"UNICODE"):
        return text.decode("utf-16-be", errors="replace")
    return (text if kind.startswith((b"ASCII", b"\0")) else comment).decode(errors="replace").strip("\0")


def _of_comment(comment: bytes) -> str | None:
    """Return the recipe of a GIF comment, which other programs use for plain text."""
    try:
        value = json.loads(comment)
    except (ValueError, RecursionError):
        return None
    return json.dumps(value[KEY]) if isinstance(value, dict) and KEY in value else None


def _unpack(text: str) -> str:
    decoder = zlib.decompressobj()
    unpacked = decoder.decompress(base64.b64decode(text, validate=True), 2**22)
    if decoder.unconsumed_tail:
        raise ValueError("longer than any recipe")
    return unpacked.decode()


def _exif(text: str) -> Any:
    from PIL import Image

    exif = Image.Exif()
    exif.get_ifd(EXIF_FOLDER)[USER_COMMENT] = b"UNICODE\0" + text.encode("utf-16-be")
    return exif


def _json(recipe: Mapping[str, Any]) -> str:
    return json.dumps(recipe, ensure_ascii=False, separators=(",", ":"))
