"""Pictures and videos: input images and masks read safely, frames written to files, previews."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import re
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from engine import fetch, urls, video
from engine.errors import InputError, UsageError, listed
from engine.recipe_file import image_fields, parameters_text, read_recipe, video_tags
from engine.types import Request

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "check_image", "data_of", "encode", "fit", "image_size", "inlined", "is_data", "jpeg_preview", "open_image",
    "open_mask", "parameters_text", "quality", "read_recipe", "sha256_of",
]  # fmt: skip

KINDS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 64_000_000
DATA_URI = re.compile(r"data:image/[\w.+-]+(?:;[\w.+-]+=[^;,]*)*;base64,(.*)", re.DOTALL | re.IGNORECASE)
URL_SAFE = str.maketrans("-_", "+/", " \t\r\n")  # the other alphabet of base64; line ends mean nothing
QUALITIES = {"low": 35, "medium": 55, "high": 90, "maximum": 100}
IMAGE_QUALITY, VIDEO_QUALITY = 75, 50
FPS = 16
PREVIEW_SIDE = 256
MASK = "mask_path"


def open_image(source: str, max_pixels: float = MAX_PIXELS, field: str = "image_path") -> Image.Image:
    """Return an input image as RGB: upright, on white where it was transparent, the first frame of several.

    `source` is a file, a URL or a data URI, `field` the setting that messages name. Raises InputError.
    """
    return _on_white(_load(source, max_pixels, field))


def open_mask(source: str, size: tuple[int, int], max_pixels: float = MAX_PIXELS) -> Image.Image:
    """Return a mask (mode L, 255 = change) for an image of `size` (width, height). Raises InputError.

    Of a picture with transparent places these are what changes, of any other the white ones.
    """
    from PIL import Image

    mask = _load(source, max_pixels, MASK)
    if mask.size != size:
        found, wanted = ("x".join(map(str, entry)) for entry in (mask.size, size))
        raise InputError(f"{MASK}: is {found}, but the image is {wanted}", param=MASK)
    if mask.has_transparency_data:
        alpha = np.asarray(mask.convert("RGBA"))[..., 3]
        if alpha.min() < 255:
            return Image.fromarray(255 - alpha)
    return _on_white(mask).convert("L")


def image_size(source: str, field: str = "image_path") -> tuple[int, int]:
    """Return the (width, height) of an upright input image, which is decoded when its EXIF may come last (PNG).

    Raises InputError.
    """
    with _reading(source, field), _open(source, MAX_PIXELS, field) as image:
        width, height = image.size
        sideways = image.getexif().get(0x0112, 1) >= 5  # EXIF orientation: 5 to 8 lie on their side
    return (height, width) if sideways else (width, height)


def check_image(data: bytes, name: str, max_pixels: float = MAX_PIXELS, field: str = "image_path") -> str:
    """Return the kind of an input image (one of KINDS), which has been decoded; messages call it `name`.

    Raises InputError.
    """
    from PIL import Image

    with _reading(name, field, max_pixels):
        with Image.open(io.BytesIO(data), formats=KINDS) as image:
            if image.width * image.height > max_pixels:
                raise _too_large(field, name, max_pixels)
            image.verify()
        with Image.open(io.BytesIO(data), formats=KINDS) as image:
            image.load()
            return str(image.format)


def sha256_of(source: str, field: str = "image_path") -> str:
    """Return the sha256 of an input file's bytes. Raises InputError."""
    return hashlib.sha256(_bytes(source, field)).hexdigest()


def inlined(source: str, field: str = "image_path", rules: fetch.Rules | None = None) -> str:
    """Return a source; if it is a URL, the image that lies there as a data URI. Raises InputError.

    Whoever reads the result, however often, sees the same bytes, and nothing is fetched again.
    """
    if not urls.is_url(source):
        return source
    data = fetch.fetch(source, rules, field)
    uri = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
    try:
        _load(uri, MAX_PIXELS, field)
        with _open(uri, MAX_PIXELS, field) as image:
            kind = image.get_format_mimetype()
    except InputError as error:
        raise fetch.failure(source, error.message.partition("data URI: ")[2], field) from error
    return uri.replace("image/png", kind or "image/png", 1)


def fit(image: Image.Image, size: tuple[int, int], grid: tuple[int, int]) -> Image.Image:
    """Resize to `size` and extend to `grid`, both (height, width), by repeating the right and lower edge.

    The output is cut to `size` from the same corner, so input and output lie on each other.
    """
    from PIL import Image

    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    if grid == size:
        return image
    pixels = np.asarray(image)
    margins = [(0, grid[0] - height), (0, grid[1] - width), (0, 0)][: pixels.ndim]
    return Image.fromarray(np.pad(pixels, margins, mode="edge"))


def encode(
    frames: np.ndarray[Any, Any], path: Path, fmt: str, request: Request, recipe: Mapping[str, Any] | None
) -> None:
    """Write uint8 frames (F, H, W, 3) to exactly `path` in format `fmt`, with the recipe when the request wants it.

    Raises UsageError for several frames in a picture format, OutputError when ffmpeg fails, OSError from the disk.
    """
    assert frames.dtype == np.uint8
    assert frames.ndim == 4
    recipe = recipe if request.embed_recipe else None
    fps = request.fps or FPS
    if fmt == "mp4":
        # crf as SGLang Diffusion computes it; 0 would be lossless, in a profile that browsers do not play.
        crf = max(1, int((1 - quality(request, fmt) / 100) * 51))
        tags = video_tags(recipe) if recipe is not None else {}
        video.write_mp4(frames, path, fps=fps, crf=crf, preset=request.x264_preset, tags=tags)
        return
    from PIL import Image

    fields = image_fields(fmt, recipe) if recipe is not None else {}
    images = [Image.fromarray(frame) for frame in frames]
    if fmt == "gif":
        # Durations are whole hundredths of a second: rounded along the clip, so that its length stays right.
        ends = [round(i * 100 / fps) * 10 for i in range(len(frames) + 1)]
        durations = [end - begin for begin, end in itertools.pairwise(ends)]
        images[0].save(
            path, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=False, **fields
        )
        return
    if len(frames) != 1:
        raise UsageError(f"{fmt}: holds one picture, got {len(frames)} frames", param="output_format")
    if fmt != "png":
        fields["quality"] = quality(request, fmt)
    images[0].save(path, fmt.upper(), **fields)


def quality(request: Request, fmt: str) -> int:
    """Return the encoder quality of a request, 0 to 100, higher is better."""
    if request.output_compression is not None:
        return request.output_compression
    return QUALITIES.get(request.output_quality, VIDEO_QUALITY if fmt == "mp4" else IMAGE_QUALITY)


def jpeg_preview(rgb: np.ndarray[Any, Any]) -> bytes:
    """Return uint8 pixels (H, W, 3) as a JPEG whose longer side has at most 256 pixels."""
    from PIL import Image

    image = Image.fromarray(rgb)
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return stream.getvalue()


def _name(source: str) -> str:
    return "data URI" if is_data(source) else urls.shown(source) if urls.is_url(source) else source


def _fail(field: str, source: str, problem: str, code: str | None = None) -> InputError:
    return InputError(f"{field}: {_name(source)}: {problem}", code=code, param=field)


def _bytes(source: str, field: str) -> bytes:
    if urls.is_url(source):
        return fetch.fetch(source, field=field)
    if is_data(source):
        return data_of(source, field)
    path = Path(source).expanduser()
    if not path.exists():
        raise _fail(field, source, "no such file")
    if path.is_dir():
        raise _fail(field, source, "is a folder")
    if not path.is_file():  # a device or a pipe, which may never end
        raise _fail(field, source, "is no regular file")
    bound = fetch.Rules().max_bytes
    try:
        with path.open("rb") as file:
            data = file.read(bound + 1)
    except OSError as error:
        raise _fail(field, source, f"cannot be read: {error.strerror}") from error
    if len(data) > bound:
        raise _fail(field, source, f"is larger than {bound / 1e6:g} MB", "image_too_large")
    return data


def is_data(source: str) -> bool:
    """Say whether an input is meant as a data URI."""
    return source[:5].lower() == "data:"


def data_of(source: str, field: str) -> bytes:
    """Return the bytes of a data URI, in either alphabet of base64, percent-encoded or not, padded or not."""
    found = DATA_URI.fullmatch(source)
    if found is None:
        raise _fail(field, source, "must have the form data:image/...;base64,...", "invalid_url")
    text = (unquote(found[1]) if "%" in found[1] else found[1]).translate(URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise _fail(field, source, "is no valid base64") from error


@contextmanager
def _reading(source: str, field: str, max_pixels: float = MAX_PIXELS) -> Iterator[None]:
    """Put what Pillow raises into words; its warnings are left out, for what is too large is refused here."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UnidentifiedImageError as error:
        kinds = listed(kind.lower() for kind in KINDS)
        raise _fail(field, source, f"is no image of a kind that can be read ({kinds})") from error
    except Image.DecompressionBombError as error:
        raise _too_large(field, source, max_pixels) from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise _fail(field, source, "is a damaged image") from error


def _open(source: str, max_pixels: float, field: str) -> Image.Image:
    """Open a picture, of which only the header is read, and bound its size."""
    from PIL import Image

    image = Image.open(io.BytesIO(_bytes(source, field)), formats=KINDS)
    if image.width * image.height > max_pixels:
        raise _too_large(field, source, max_pixels)
    return image


def _too_large(field: str, source: str, bound: float) -> InputError:
    return _fail(field, source, f"has more than the {bound:.0f} pixels allowed", "image_too_large")


def _load(source: str, max_pixels: float, field: str) -> Image.Image:
    """Open, bound, verify, reopen, decode and turn upright."""
    from PIL import ImageOps

    with _reading(source, field, max_pixels):
        with _open(source, max_pixels, field) as image:
            image.verify()
        image = _open(source, max_pixels, field)
        image.load()
        return ImageOps.exif_transpose(image)


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit grey, which `convert` would clip
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    colours = image.convert("RGBA")
    white = Image.new("RGBA", colours.size, "white")
    return Image.alpha_composite(white, colours).convert("RGB")
