"""Input images, masks and previews; each output format with its settings."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from engine import media, recipe_file
from engine.errors import InputError, SgdiffError, UsageError
from engine.types import Request

RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)
FRAMES = np.random.default_rng(0).integers(0, 256, (1, 33, 47, 3), dtype=np.uint8)


def clip(count: int = 9, height: int = 48, width: int = 64) -> np.ndarray[Any, Any]:
    """Return frames that get brighter, each of one grey."""
    levels = np.linspace(20, 220, count).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def decoded(path: Path) -> tuple[str, bytes]:
    """Return what ffmpeg says about a video, and its frames as raw RGB."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    done = subprocess.run(command, capture_output=True, check=True)
    return done.stderr.decode().split("Output #0")[0], done.stdout


def stored(image: Image.Image, path: Path, **save: Any) -> str:
    image.save(path, **save)
    return str(path)


def message(action: Callable[[], Any], kind: type[SgdiffError] = InputError, code: str = "invalid_image") -> str:
    with pytest.raises(kind) as caught:
        action()
    assert caught.value.code == code
    assert caught.value.exit_status == 2
    return caught.value.message


# --- input images


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp"])
def test_every_kind_is_read_by_content_never_by_name(kind: str, tmp_path: Path) -> None:
    source = stored(Image.new("RGB", (8, 4), WHITE), tmp_path / "picture.txt", format=kind)
    image = media.open_image(source)
    assert (image.mode, image.size) == ("RGB", (8, 4))
    assert image.getpixel((0, 0)) == WHITE
    assert media.image_size(source) == (8, 4)


def test_a_data_uri_is_read_and_hashed_as_its_bytes(tmp_path: Path) -> None:
    source = stored(Image.new("RGB", (8, 4), RED), tmp_path / "a.png")
    data = Path(source).read_bytes()
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    assert media.open_image(uri).getpixel((0, 0)) == RED
    assert media.sha256_of(uri) == media.sha256_of(source) == hashlib.sha256(data).hexdigest()


def test_transparent_places_become_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (*RED, 255))
    image.putpixel((1, 0), (*BLACK, 0))
    read = media.open_image(stored(image, tmp_path / "a.png"))
    assert [read.getpixel((x, 0)) for x in (0, 1)] == [RED, WHITE]


def test_a_palette_with_a_transparent_colour_becomes_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*BLACK, *RED])
    image.putpixel((1, 0), 1)
    read = media.open_image(stored(image, tmp_path / "a.png", transparency=0))
    assert [read.getpixel((x, 0)) for x in (0, 1)] == [WHITE, RED]


def test_sixteen_bits_of_grey_are_scaled_not_clipped(tmp_path: Path) -> None:
    grey = Image.fromarray(np.array([[0, 128 * 256, 65535]], np.uint16))
    read = media.open_image(stored(grey, tmp_path / "a.png"))
    assert [read.getpixel((x, 0)) for x in range(3)] == [BLACK, (128, 128, 128), WHITE]


def test_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    image = Image.new("RGB", (8, 4), BLACK)
    image.paste(WHITE, (0, 0, 4, 4))
    source = stored(image, tmp_path / "a.png", exif=exif)
    read = media.open_image(source)
    assert read.size == media.image_size(source) == (4, 8)
    assert [read.getpixel((2, y)) for y in (1, 6)] == [WHITE, BLACK]


def test_of_a_gif_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLACK)]
    source = stored(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert media.open_image(source).getpixel((0, 0)) == RED


def test_what_is_no_image_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "a.png"
    text.write_text("hello")
    kinds = "is no image of a kind that can be read (png, jpeg, webp, gif, bmp)"
    assert message(lambda: media.open_image(str(text))) == f"image_path: {text}: {kinds}"
    tiff = stored(Image.new("RGB", (4, 4)), tmp_path / "b.png", format="TIFF")
    assert message(lambda: media.open_image(tiff)) == f"image_path: {tiff}: {kinds}"
    assert message(lambda: media.open_image("gone.png")) == "image_path: gone.png: no such file"
    assert message(lambda: media.sha256_of("gone.png", "video_path")) == "video_path: gone.png: no such file"
    assert message(lambda: media.open_image(str(tmp_path))) == f"image_path: {tmp_path}: is a folder"

    def denied(self: Path, mode: str) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert message(lambda: media.open_image(str(text))) == f"image_path: {text}: cannot be read: Permission denied"


def test_a_bad_data_uri_is_said_without_repeating_it() -> None:
    form = "image_path: data URI: must have the form data:image/...;base64,..."
    for uri in ("data:text/plain;base64,AAAA", "data:image/png,AAAA", "data:video/mp4;base64,AAAA", "data:", "DATA:x"):
        assert message(lambda uri=uri: media.open_image(uri), code="invalid_url") == form  # type: ignore[misc]
    assert message(lambda: media.open_image("data:image/png;base64,A!")) == "image_path: data URI: is no valid base64"


def test_data_uris_of_every_spelling(tmp_path: Path) -> None:
    source = stored(Image.fromarray(FRAMES[0]), tmp_path / "a.png")
    text = base64.b64encode(Path(source).read_bytes()).decode()
    assert "+" in text
    assert "/" in text
    for uri in (
        f"data:image/png;charset=utf-8;base64,{text}",
        f"DATA:IMAGE/PNG;BASE64,{text}",
        f"data:image/svg+xml;base64,{text}",  # what it is called does not count
        f"data:image/png;base64,{text.replace('+', '-').replace('/', '_').rstrip('=')}",
        f"data:image/png;base64,{quote(text, safe='')}",
        f"data:image/png;base64,{text[:60]}\r\n {text[60:]}",
    ):
        assert media.sha256_of(uri) == media.sha256_of(source)


def give(monkeypatch: pytest.MonkeyPatch, data: bytes) -> list[str]:
    """Let every URL lead to `data`; return the list of those that are fetched."""
    fetched: list[str] = []
    monkeypatch.setattr(media.fetch, "fetch", lambda url, *_, **__: fetched.append(url) or data)
    return fetched


def test_a_url_becomes_the_image_that_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = stored(Image.new("RGB", (8, 4), RED), tmp_path / "a.webp")
    fetched = give(monkeypatch, Path(source).read_bytes())
    uri = media.inlined("https://host/a.png")
    assert uri.startswith("data:image/webp;base64,")
    assert media.sha256_of(uri) == media.sha256_of(source)
    assert fetched == ["https://host/a.png"]
    assert [media.inlined(text) for text in (source, uri)] == [source, uri]
    assert fetched == ["https://host/a.png"]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"<html>", "is no image of a kind that can be read (png, jpeg, webp, gif, bmp)"),
        (b"", "is no image of a kind that can be read (png, jpeg, webp, gif, bmp)"),
        (b"\x89PNG\r\n\x1a\nx", "is no image of a kind that can be read (png, jpeg, webp, gif, bmp)"),
        (b"BM" + b"\0" * 80, "is a damaged image"),
    ],
)
def test_what_is_fetched_and_no_image_is_a_failed_fetch(
    data: bytes, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, data)
    found = message(lambda: media.inlined("https://host/a.png?sig=1", "mask_path"), code="image_fetch_failed")
    assert found == f"Failed to process image source: https://host/a.png: {problem}"


def test_other_schemes_are_no_files() -> None:
    expected = "image_path: file://localhost/a.png: must be a file, an http(s) URL or a data URI of an image"
    for read in (media.open_image, media.image_size, media.inlined, media.sha256_of):
        assert message(lambda read=read: read("file://localhost/a.png"), code="invalid_url") == expected  # type: ignore[misc]


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp"])
def test_a_damaged_image_is_said(kind: str, tmp_path: Path) -> None:
    source = stored(Image.fromarray(FRAMES[0]), tmp_path / "a", format=kind)
    data = Path(source).read_bytes()
    Path(source).write_bytes(data[: len(data) // 2])
    assert message(lambda: media.open_image(source)).startswith(f"image_path: {source}: is ")


def test_a_png_with_a_wrong_checksum_is_damaged(tmp_path: Path) -> None:
    source = stored(Image.fromarray(FRAMES[0]), tmp_path / "a.png")
    data = bytearray(Path(source).read_bytes())
    data[-14] ^= 1  # the checksum of the pixels, before the twelve bytes of IEND
    Path(source).write_bytes(data)
    assert message(lambda: media.open_image(source)) == f"image_path: {source}: is a damaged image"


def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = stored(Image.new("RGB", (20, 10)), tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "verify", lambda self: pytest.fail("decoded"))
    expected = f"image_path: {source}: has more than the 199 pixels allowed"
    assert message(lambda: media.open_image(source, max_pixels=199), code="image_too_large") == expected
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # Pillow's own bound, which raises while opening
    expected = f"image_path: {source}: has more than the 64000000 pixels allowed"
    assert message(lambda: media.open_image(source), code="image_too_large") == expected


def header(width: int, height: int) -> bytes:
    """Return the first bytes of a PNG of that size, and no pixel of it."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize("size", [(8000, 8001), (10_000, 9_000), (20_000, 20_000)])
def test_the_size_of_too_large_a_picture_is_refused_from_its_header(size: tuple[int, int], tmp_path: Path) -> None:
    """Below Pillow's own bounds, where it warns (an error in these tests), and where it raises."""
    source = tmp_path / "a.png"
    source.write_bytes(header(*size) + b"\0\0\0\x10IDAT")
    expected = f"image_path: {source}: has more than the 64000000 pixels allowed"
    for read in (media.image_size, media.open_image):
        assert message(lambda read=read: read(str(source)), code="image_too_large") == expected  # type: ignore[misc]


def test_the_size_of_a_truncated_picture_is_not_told(tmp_path: Path) -> None:
    source = stored(Image.fromarray(FRAMES[0]), tmp_path / "a.png")
    data = Path(source).read_bytes()
    Path(source).write_bytes(data[: len(data) // 2])
    assert message(lambda: media.image_size(source)) == f"image_path: {source}: is a damaged image"


def test_what_pillow_warns_of_stays_unsaid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = stored(Image.new("RGB", (20, 10)), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)  # it warns from here and raises at twice as many
    assert media.image_size(source) == media.open_image(source).size == (20, 10)
    with pytest.raises(InputError) as caught:
        media.read_recipe(source)
    assert caught.value.message == f"{source}: no recipe inside"


# --- masks


def test_white_changes_in_an_opaque_mask(tmp_path: Path) -> None:
    image = Image.new("L", (4, 2), 0)
    image.paste(255, (0, 0, 2, 2))
    for mode in ("L", "RGB", "RGBA"):
        mask = media.open_mask(stored(image.convert(mode), tmp_path / "m.png"), (4, 2))
        assert mask.mode == "L"
        assert np.asarray(mask).tolist() == [[255, 255, 0, 0]] * 2


def test_transparent_changes_in_a_mask_with_alpha(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 2), (*WHITE, 255))
    image.paste((*BLACK, 0), (0, 0, 1, 2))
    mask = media.open_mask(stored(image, tmp_path / "m.png"), (4, 2))
    assert np.asarray(mask).tolist() == [[255, 0, 0, 0]] * 2


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    source = stored(Image.new("L", (4, 2)), tmp_path / "m.png")
    assert message(lambda: media.open_mask(source, (8, 6))) == "mask_path: is 4x2, but the image is 8x6"
    assert message(lambda: media.open_mask("gone.png", (8, 6))) == "mask_path: gone.png: no such file"


# --- size and grid


def test_fit_resizes_and_repeats_the_lower_and_right_edge() -> None:
    pixels = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
    image = Image.fromarray(pixels)
    assert media.fit(image, (6, 4), (6, 4)) is image
    grown = np.asarray(media.fit(image, (6, 4), (8, 8)))
    assert np.array_equal(grown[:6, :4], pixels)
    assert np.array_equal(grown[7, :4], pixels[5])
    assert np.array_equal(grown[:6, 7], pixels[:, 3])
    resized = image.resize((10, 12), Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(media.fit(image, (12, 10), (16, 16)))[:12, :10], np.asarray(resized))
    assert media.fit(Image.new("L", (4, 6), 7), (6, 4), (8, 8)).size == (8, 8)


def test_a_preview_is_a_jpeg_of_at_most_256_pixels() -> None:
    for shape, size in (((600, 300, 3), (128, 256)), ((20, 40, 3), (40, 20))):
        with Image.open(io.BytesIO(media.jpeg_preview(np.full(shape, 90, np.uint8)))) as image:
            assert (image.format, image.size) == ("JPEG", size)


# --- output


def test_png_keeps_every_pixel(tmp_path: Path) -> None:
    media.encode(FRAMES, tmp_path / "a.part", "png", Request(), None)
    with Image.open(tmp_path / "a.part") as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), FRAMES[0])


@pytest.mark.parametrize("fmt", ["jpeg", "webp"])
def test_quality_of_pictures(fmt: str, tmp_path: Path) -> None:
    sizes = []
    for request in (
        Request(output_quality="low"),
        Request(output_quality="medium"),
        Request(),
        Request(output_quality="high"),
        Request(output_quality="low", output_compression=100),
    ):
        media.encode(FRAMES, tmp_path / "a", fmt, request, None)
        with Image.open(tmp_path / "a") as image:
            assert (image.format, image.size) == (fmt.upper(), (47, 33))
        sizes.append((tmp_path / "a").stat().st_size)
    assert sizes == sorted(set(sizes))


def test_quality_numbers() -> None:
    names = ("default", "low", "medium", "high", "maximum")
    assert [media.quality(Request(output_quality=name), "jpeg") for name in names] == [75, 35, 55, 90, 100]  # type: ignore[arg-type]
    assert media.quality(Request(), "mp4") == 50
    assert media.quality(Request(output_quality="low", output_compression=0), "mp4") == 0


def test_several_frames_are_no_picture(tmp_path: Path) -> None:
    action = lambda: media.encode(clip(3), tmp_path / "a", "png", Request(), None)  # noqa: E731
    assert message(action, UsageError, "invalid_value") == "png: holds one picture, got 3 frames"
    assert list(tmp_path.iterdir()) == []


def test_mp4_has_every_frame_at_its_size_rate_and_colour(tmp_path: Path) -> None:
    frames = clip()
    frames[..., 1] //= 2  # not grey, so that a wrong colour matrix shows
    for request, fps in ((Request(), 16), (Request(fps=24), 24)):
        media.encode(frames, tmp_path / "a.part", "mp4", request, None)
        described, pixels = decoded(tmp_path / "a.part")
        assert "Video: h264" in described
        assert "yuv420p(tv, bt709, progressive), 64x48" in described
        assert f" {fps} fps" in described
        read = np.frombuffer(pixels, np.uint8).reshape(-1, 48, 64, 3)
        assert len(read) == len(frames)
        assert np.abs(read.astype(int) - frames).max() < 12


def test_mp4_can_be_played_before_it_is_complete(tmp_path: Path) -> None:
    media.encode(clip(), tmp_path / "a", "mp4", Request(), {"request": {"prompt": "x"}})
    data, atoms, place = (tmp_path / "a").read_bytes(), {}, 0
    while place < len(data):
        size, name = struct.unpack_from(">I4s", data, place)
        atoms[name.decode()] = (place, size)
        place += size
    assert place == len(data)
    assert [name for name in atoms if name != "free"] == ["ftyp", "moov", "mdat"]
    start, size = atoms["moov"]
    assert start < data.index(b"sgdiff") < start + size  # the recipe comes first too


def test_odd_sizes_grow_by_one_pixel_in_mp4(tmp_path: Path) -> None:
    media.encode(clip(3, 33, 47), tmp_path / "a", "mp4", Request(), None)
    described, pixels = decoded(tmp_path / "a")
    assert " 48x34" in described
    assert len(pixels) == 3 * 48 * 34 * 3


def test_quality_and_preset_reach_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, str]] = []
    monkeypatch.setattr(media.video, "write_mp4", lambda *_, crf, preset, **__: seen.append((crf, preset)))
    for request in (
        Request(),
        Request(output_quality="high", x264_preset="slow"),
        Request(output_quality="maximum"),
        Request(output_compression=0),
    ):
        media.encode(clip(), tmp_path / "a", "mp4", request, None)
    assert seen == [(25, "fast"), (5, "slow"), (1, "fast"), (51, "fast")]


def test_gif_has_every_frame_and_its_length(tmp_path: Path) -> None:
    media.encode(clip(16), tmp_path / "a", "gif", Request(), None)
    with Image.open(tmp_path / "a") as image:
        assert (image.format, image.size, image.n_frames) == ("GIF", (64, 48), 16)  # type: ignore[attr-defined]
        assert image.info["loop"] == 0
        total = 0
        for index in range(16):
            image.seek(index)
            total += image.info["duration"]
    assert total == 1000


def test_the_recipe_can_be_left_out(tmp_path: Path) -> None:
    recipe = {"request": {"prompt": "a secret"}}
    for fmt, frames in (("png", FRAMES), ("jpeg", FRAMES), ("webp", FRAMES), ("gif", clip()), ("mp4", clip())):
        media.encode(frames, tmp_path / "a", fmt, Request(embed_recipe=False), recipe)
        data = (tmp_path / "a").read_bytes()
        assert b"secret" not in data
        assert b"sgdiff" not in data
        assert b"Exif" not in data
        assert b"EXIF" not in data
        media.encode(frames, tmp_path / "a", fmt, Request(), recipe)
        assert b"secret" in (tmp_path / "a").read_bytes()


def test_the_names_of_the_recipe_are_offered_here_too() -> None:
    assert media.read_recipe is recipe_file.read_recipe
    assert media.parameters_text is recipe_file.parameters_text


def test_a_file_that_never_ends_or_is_too_large_is_refused(tmp_path: Path) -> None:
    assert message(lambda: media.open_image("/dev/zero")) == "image_path: /dev/zero: is no regular file"
    os.mkfifo(tmp_path / "pipe")
    assert message(lambda: media.open_image(str(tmp_path / "pipe"))).endswith("pipe: is no regular file")
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(50_000_001)
    found = message(lambda: media.open_image(str(large)), code="image_too_large")
    assert found == f"image_path: {large}: is larger than 50 MB"
    with large.open("wb") as file:
        file.truncate(50_000_000)
    assert len(media.sha256_of(str(large))) == 64
