"""`sgdiff-app doctor`: what this machine has, what it lacks, and what to do about it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import platform
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine import env, hub, storage, video
from engine.errors import OutputError

if TYPE_CHECKING:
    from sgdiff_app.options import CommandOptions

Status = Literal["ok", "warn", "missing"]
OK: Status = "ok"
WARN: Status = "warn"
MISSING: Status = "missing"

PORT = 30000
OUTPUTS = Path("outputs")
LOW_DISK = 10 * 10**9
REQUIRED = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface_hub", "pydantic", "pillow")
OPTIONAL = ("gradio", "fastapi", "peft", "cache-dit", "torchao", "modelscope")
ATTENTION_PACKAGES = ("flash_attn", "flash_attn_interface", "sageattention")


@dataclass(frozen=True, slots=True)
class Row:
    """One answer: `missing` means that the program does not work without it."""

    name: str
    status: Status
    detail: str


def main(options: CommandOptions) -> int:
    """Print every check as a table, or as JSON, and return 1 when something required is missing."""
    rows = [row for check in CHECKS for row in check()]
    failed = any(row.status == MISSING for row in rows)
    if options.json:
        print(json.dumps({"ok": not failed, "checks": [asdict(row) for row in rows]}, ensure_ascii=False))
    else:
        print(table(rows))
    return 1 if failed else 0


def table(rows: list[Row]) -> str:
    """Return the rows in columns."""
    width = max(len(row.name) for row in rows)
    return "\n".join(f"{row.status:7}  {row.name:{width}}  {row.detail}" for row in rows)


def python() -> Iterator[Row]:
    yield Row("python", OK, f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def packages() -> Iterator[Row]:
    """Look at versions without importing anything."""
    for name in REQUIRED:
        version = _version(name)
        yield Row(name, OK, version) if version else Row(name, MISSING, "not installed")
    found = [f"{name} {version}" for name in OPTIONAL if (version := _version(name))]
    yield Row("optional packages", OK, ", ".join(found) or "none")


def device() -> Iterator[Row]:
    """Say where models would run, and how torch was built."""
    torch = _torch()
    if isinstance(torch, str):
        yield Row("torch build", MISSING, f"torch cannot be imported: {torch}")
        return
    kind = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    kind = f"ROCm {torch.version.hip}" if torch.version.hip else kind
    yield Row("torch build", OK, f"{torch.__version__} ({kind})")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = f"{properties.total_memory / 2**30:.0f} GiB"
            name = f"device cuda:{index}"
            yield Row(name, OK, f"{properties.name}, {memory}, compute {properties.major}.{properties.minor}")
    elif torch.backends.mps.is_available():
        yield Row("device", OK, "mps (Apple GPU)")
    else:
        yield Row("device", WARN, f"cpu with {torch.get_num_threads()} threads; no GPU, so only small models are fast")


def driver() -> Iterator[Row]:
    """Ask the NVIDIA driver for its version; a driver that torch cannot use is worth a warning."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        yield Row("driver", OK, "no NVIDIA driver")
        return
    try:
        command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        yield Row("driver", WARN, f"nvidia-smi does not answer ({type(error).__name__})")
        return
    versions = ", ".join(sorted(set(done.stdout.split())))
    torch = _torch()
    if not isinstance(torch, str) and not torch.cuda.is_available():
        yield Row("driver", WARN, f"NVIDIA {versions}, but this torch cannot use it; install a CUDA build of torch")
        return
    yield Row("driver", OK, f"NVIDIA {versions}")


def attention() -> Iterator[Row]:
    """List the backends that `--attention-backend` takes here."""
    torch = _torch()
    if isinstance(torch, str):
        return
    usable = ["torch_sdpa", *(["torch_cudnn_sdpa"] if torch.cuda.is_available() else [])]
    found = [name for name in ATTENTION_PACKAGES if importlib.util.find_spec(name) is not None]
    yield Row("attention backends", OK, ", ".join(usable) + (f"; installed: {', '.join(found)}" if found else ""))


def ffmpeg() -> Iterator[Row]:
    """Look for ffmpeg and the H.264 encoder that mp4 files need."""
    try:
        path = video.executable()
        done = subprocess.run(
            [path, "-hide_banner", "-encoders"], capture_output=True, text=True, timeout=60, check=True
        )
    except OutputError as error:
        yield Row("ffmpeg", MISSING, error.message)
        return
    except ImportError:
        yield Row("ffmpeg", MISSING, "install the package imageio-ffmpeg")
        return
    except (OSError, subprocess.SubprocessError) as error:
        yield Row("ffmpeg", MISSING, f"does not run ({type(error).__name__})")
        return
    words = set(done.stdout.split())
    found = [name for name in ("libx264", "libx265", "libsvtav1", "h264_nvenc") if name in words]
    if "libx264" not in found:
        yield Row("ffmpeg", MISSING, f"{path} has no encoder libx264, which mp4 files need")
        return
    yield Row("ffmpeg", OK, f"encoders {', '.join(found)}")


def pictures() -> Iterator[Row]:
    """Look for the picture formats that Pillow was built with."""
    if importlib.util.find_spec("PIL") is None:
        return
    from PIL import features

    lacking = [
        name for name, feature in (("jpeg", "jpg"), ("webp", "webp"), ("png", "zlib")) if not features.check(feature)
    ]
    yield (
        Row("picture formats", MISSING, f"Pillow lacks {', '.join(lacking)}")
        if lacking
        else Row("picture formats", OK, "png, jpeg, webp, gif")
    )


def folders() -> Iterator[Row]:
    """Look at the space left and the rights of the folders that are written to."""
    for name, folder in (("output folder", OUTPUTS), ("program cache", env.read().cache_root), *_hub_cache()):
        place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
        free = shutil.disk_usage(place).free
        detail = f"{folder}, {_size(free)} free"
        if name != "output folder" and folder.is_dir():
            detail += f", {_size(_bytes(folder))} used"
        try:
            storage.probe(place)
        except OutputError as error:
            yield Row(name, WARN, error.message)
            continue
        yield Row(name, WARN, f"{detail}: little space") if free < LOW_DISK else Row(name, OK, detail)


def models() -> Iterator[Row]:
    names = ", ".join(hub.bundled_names())
    yield Row("bundled models", OK, names) if names else Row("bundled models", WARN, "none in this installation")


def token() -> Iterator[Row]:
    """Say whether there is an access token; the token itself is never shown."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return
    import huggingface_hub

    found = huggingface_hub.get_token() is not None
    detail = "present" if found else "none; gated models need one: `hf auth login`"
    yield Row("hub token", OK, detail)


def port() -> Iterator[Row]:
    """Try the port that `serve` takes by default."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", PORT))
        except OSError:
            yield Row("port", WARN, f"{PORT} is taken; serve on another one with --port")
            return
    yield Row("port", OK, f"{PORT} is free")


CHECKS: tuple[Callable[[], Iterator[Row]], ...] = (
    python, packages, device, driver, attention, ffmpeg, pictures, folders, models, token, port,
)  # fmt: skip


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch() -> Any:
    """Return the module, or as a text why it cannot be imported."""
    try:
        return importlib.import_module("torch")
    except (ImportError, OSError) as error:  # OSError: a library of the build is missing
        return str(error)


def _hub_cache() -> Iterator[tuple[str, Path]]:
    if importlib.util.find_spec("huggingface_hub") is not None:
        from huggingface_hub import constants

        yield "hub cache", Path(constants.HF_HUB_CACHE)


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
