"""What is written inside a picture or clip taken out of it, with its pixels left as they are, byte for byte."""

from __future__ import annotations

import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from engine import video
from engine.errors import OutputError

PNG = b"\x89PNG\r\n\x1a\n"
PNG_TEXTS = (b"tEXt", b"iTXt", b"zTXt", b"eXIf", b"tIME")
JPEG_TEXTS = (0xE1, 0xED, 0xFE)  # EXIF and XMP, IPTC, comments
SCAN = 0xDA  # what follows is pixels
WEBP_TEXTS = (b"EXIF", b"XMP ")
WEBP_FLAGS = 0x08 | 0x04  # of the extended header: there is EXIF, there is XMP
GIF_COMMENT, GIF_APPLICATION = 0xFE, 0xFF
GIF_LOOPS = b"NETSCAPE2.0"


def stripped(data: bytes, name: str = "file") -> bytes:
    """Return a PNG, JPEG, WebP, GIF or MP4 file without recipe, comments and camera data; messages call it `name`.

    Raises OutputError.
    """
    if data[4:8] == b"ftyp":
        return _mp4(data, name)
    kinds: Mapping[bytes, Callable[[bytes], Iterator[bytes]]]
    kinds = {PNG: _png, b"\xff\xd8": _jpeg, b"RIFF": _webp, b"GIF8": _gif}
    parts = next((parts for start, parts in kinds.items() if data.startswith(start)), None)
    if parts is None:
        raise OutputError(f"{name}: is no PNG, JPEG, WebP, GIF or MP4 file")
    try:
        return b"".join(parts(data))
    except (struct.error, IndexError) as error:
        raise OutputError(f"{name}: is damaged") from error


def _png(data: bytes) -> Iterator[bytes]:
    yield PNG
    place = len(PNG)
    while place < len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + size
        if kind not in PNG_TEXTS:
            yield data[place:end]
        place = end


def _jpeg(data: bytes) -> Iterator[bytes]:
    yield data[:2]
    place = 2
    while place < len(data) and data[place + 1] != SCAN:
        (size,) = struct.unpack_from(">H", data, place + 2)
        end = place + 2 + size
        if data[place + 1] not in JPEG_TEXTS:
            yield data[place:end]
        place = end
    yield data[place:]


def _webp(data: bytes) -> Iterator[bytes]:
    kept, place = list[bytes](), 12
    while place < len(data):
        kind, size = struct.unpack_from("<4sI", data, place)
        end = place + 8 + size + size % 2
        chunk = data[place:end]
        if kind == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~WEBP_FLAGS]) + chunk[9:]
        if kind not in WEBP_TEXTS:
            kept.append(chunk)
        place = end
    yield struct.pack("<4sI4s", b"RIFF", 4 + sum(map(len, kept)), b"WEBP")
    yield from kept


def _gif(data: bytes) -> Iterator[bytes]:
    place = 13 + _table(data[10])
    yield data[:place]
    while data[place] != 0x3B:
        start, label = place, data[place + 1]
        if data[place] == 0x2C:  # a frame: its place, its own colours, the width of its codes
            place += 10 + _table(data[place + 9]) + 1
        else:
            place += 2
        first = data[place + 1 : place + 1 + data[place]]
        while data[place]:
            place += 1 + data[place]
        place += 1
        is_text = label == GIF_COMMENT or (label == GIF_APPLICATION and first != GIF_LOOPS)
        if data[start] == 0x2C or not is_text:
            yield data[start:place]
    yield b"\x3b"


def _table(flags: int) -> int:
    """Return the bytes of a table of colours."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _mp4(data: bytes, name: str) -> bytes:
    """Return a clip whose streams are copied."""
    with tempfile.TemporaryDirectory() as place:
        source, target = Path(place) / "source.mp4", Path(place) / "target.mp4"
        source.write_bytes(data)
        command = [
            video.executable(), "-hide_banner", "-loglevel", "error", "-nostdin", "-protocol_whitelist", "file,pipe",
            "-f", "mov", "-i", f"file:{source}", "-map", "0", "-map_metadata", "-1", "-c", "copy",
            "-fflags", "+bitexact", "-movflags", "+faststart", "-f", "mp4", f"file:{target}",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise OutputError(f"{name}: ffmpeg failed: {said[-1] if said else 'nothing was written'}")
        return target.read_bytes()
