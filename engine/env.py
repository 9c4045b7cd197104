"""The environment, read in this module alone and passed on as data."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import NotAvailable, UsageError

TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
PREFIXES = ("SGLANG_DIFFUSION_", "SGLANG_")
S3 = {
    "BUCKET_NAME": "bucket", "ACCESS_KEY_ID": "access_key_id", "SECRET_ACCESS_KEY": "secret_access_key",
    "ENDPOINT_URL": "endpoint_url", "REGION_NAME": "region",
}  # fmt: skip
REMOTE = ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY")
MAX_PRESIGN_S = 7 * 24 * 3600  # what a signature may be valid for


def spellings(name: str) -> tuple[str, ...]:
    """Return the names under which a variable works, strongest first.

    `SGLANG_DIFFUSION_X` is known as `SGDIFF_X`, then `SGDIFF_DIFFUSION_X`, then its own name; a name of this project
    has one spelling.
    """
    for prefix in PREFIXES:
        if name.startswith(prefix):
            short = "SGDIFF_" + name.removeprefix(prefix)
            return tuple(dict.fromkeys((short, name.replace("SGLANG_", "SGDIFF_", 1), name)))
    return (name,)


def lookup(name: str, environ: Mapping[str, str] | None = None) -> tuple[str, str] | None:
    """Return the spelling found and its value; empty counts as unset."""
    environ = os.environ if environ is None else environ
    return next(((key, environ[key]) for key in spellings(name) if environ.get(key)), None)


def boolean(name: str, value: str) -> bool:
    """Read a truth value; raises UsageError naming the variable."""
    if value.lower() not in TRUE + FALSE:
        raise UsageError(f"{name}: must be one of {', '.join(TRUE + FALSE)}, got '{value}'")
    return value.lower() in TRUE


def project_names(environ: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield the variables that carry this project's prefix."""
    return (name for name in (os.environ if environ is None else environ) if name.startswith("SGDIFF_"))


@dataclass(frozen=True, slots=True)
class Environment:
    """Settings that exist only as variables."""

    cache_root: Path
    use_modelscope: bool = False
    overlay_registry: str | None = None
    profiler_dir: Path = Path("logs")
    stage_logging: bool = False
    perf_log_dir: Path | None = None
    sync_stage_profiling: bool = False
    git_commit: str | None = None
    hub_offline: bool = False
    no_color: bool = False
    test_step_delay_ms: float = 0.0
    test_fault: str | None = None


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """Where outputs are uploaded to; without keys, the client library looks for some."""

    bucket: str
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    endpoint_url: str | None = None
    region: str = "us-east-1"
    prefix: str = ""
    public_base_url: str | None = None
    presign_seconds: int = 3600


# Variables without a flag, for the check of unknown names: also those that later parts of the program read.
ENVIRONMENT_ONLY = (
    "SGLANG_USE_MODELSCOPE", "SGLANG_DIFFUSION_MODEL_OVERLAY_REGISTRY", "SGLANG_DIFFUSION_CACHE_ROOT",
    "SGLANG_DIFFUSION_TORCH_PROFILER_DIR", "SGLANG_TORCH_PROFILER_DIR", "SGLANG_DIFFUSION_STAGE_LOGGING",
    "SGLANG_PERF_LOG_DIR", "SGLANG_DIFFUSION_SYNC_STAGE_PROFILING", "SGLANG_VAE_TORCH_COMPILE_MODE",
    "SGLANG_GIT_COMMIT", "SGDIFF_API_KEY", "SGDIFF_WEBHOOK_SECRET", "SGDIFF_TEST_STEP_DELAY_MS", "SGDIFF_TEST_FAULT",
    "SGLANG_CLOUD_STORAGE_TYPE", "SGLANG_S3_BUCKET_NAME", "SGLANG_S3_ACCESS_KEY_ID", "SGLANG_S3_SECRET_ACCESS_KEY",
    "SGLANG_S3_ENDPOINT_URL", "SGLANG_S3_REGION_NAME", "SGDIFF_S3_PREFIX", "SGDIFF_S3_PUBLIC_BASE_URL",
    "SGDIFF_S3_PRESIGN_SECONDS",
    *(f"SGLANG_CACHE_DIT_SECONDARY_{key}" for key in ("FN", "BN", "WARMUP", "RDT", "MC", "TAYLORSEER", "TS_ORDER")),
)  # fmt: skip


# Of these, what asks for something that is not built yet.
UNBUILT = (
    "SGLANG_DIFFUSION_MODEL_OVERLAY_REGISTRY", "SGLANG_DIFFUSION_STAGE_LOGGING", "SGLANG_VAE_TORCH_COMPILE_MODE",
)  # fmt: skip


def require_available(environ: Mapping[str, str] | None = None) -> None:
    """Raise NotAvailable for a variable that asks for something that is not built yet."""
    for name in UNBUILT:
        found = lookup(name, environ)
        if found is not None and found[1].lower() not in FALSE:
            raise NotAvailable(f"{found[0]}: not available yet")


def prepare_page(folder: Path) -> None:
    """Tell Gradio, before it is imported, where its files go, and to report to nobody."""
    os.environ.update(GRADIO_TEMP_DIR=str(folder.resolve()), GRADIO_ANALYTICS_ENABLED="False")


def space_host(environ: Mapping[str, str] | None = None) -> str | None:
    """Return the host name of the Hugging Face Space that this process is; None elsewhere."""
    return (os.environ if environ is None else environ).get("SPACE_HOST") or None


def is_zero_gpu(environ: Mapping[str, str] | None = None) -> bool:
    """Say whether this process has no GPU and is lent one for each request, as Spaces on ZeroGPU are."""
    value = (os.environ if environ is None else environ).get("SPACES_ZERO_GPU", "").lower()
    return bool(value) and value not in FALSE


def has_display(environ: Mapping[str, str] | None = None, platform: str = sys.platform) -> bool:
    """Say whether this process can show a window."""
    environ = os.environ if environ is None else environ
    return platform in ("darwin", "win32") or bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def is_remote(environ: Mapping[str, str] | None = None) -> bool:
    """Say whether nobody looks at the screen of this machine: it was called over a network, or by a build."""
    environ = os.environ if environ is None else environ
    ci = environ.get("CI", "").lower()
    return bool(ci and ci not in FALSE) or any(environ.get(name) for name in REMOTE)


def read(environ: Mapping[str, str] | None = None) -> Environment:
    """Read the settings that exist only as variables. Raises UsageError naming variable and value."""
    environ = os.environ if environ is None else environ

    def text(*names: str) -> str | None:
        return next((found[1] for name in names if (found := lookup(name, environ))), None)

    def folder(*names: str) -> Path | None:
        found = next((found for name in names if (found := lookup(name, environ))), None)
        try:
            return Path(found[1]).expanduser() if found else None
        except RuntimeError:
            assert found is not None
            raise UsageError(f"{found[0]}: {found[1]}: no such home folder") from None

    def flag(name: str) -> bool:
        found = lookup(name, environ)
        return boolean(*found) if found else False

    def number(name: str) -> float:
        found = lookup(name, environ)
        try:
            return float(found[1]) if found else 0.0
        except ValueError:
            raise UsageError(f"{name}: must be a number, got '{text(name)}'") from None

    return Environment(
        cache_root=folder("SGLANG_DIFFUSION_CACHE_ROOT") or _cache(folder("XDG_CACHE_HOME")),
        use_modelscope=flag("SGLANG_USE_MODELSCOPE"),
        overlay_registry=text("SGLANG_DIFFUSION_MODEL_OVERLAY_REGISTRY"),
        profiler_dir=folder("SGLANG_DIFFUSION_TORCH_PROFILER_DIR", "SGLANG_TORCH_PROFILER_DIR") or Path("logs"),
        stage_logging=flag("SGLANG_DIFFUSION_STAGE_LOGGING"),
        perf_log_dir=folder("SGLANG_PERF_LOG_DIR"),
        sync_stage_profiling=flag("SGLANG_DIFFUSION_SYNC_STAGE_PROFILING"),
        git_commit=text("SGLANG_GIT_COMMIT"),
        hub_offline=flag("HF_HUB_OFFLINE"),
        no_color=bool(environ.get("NO_COLOR")),
        test_step_delay_ms=number("SGDIFF_TEST_STEP_DELAY_MS"),
        test_fault=text("SGDIFF_TEST_FAULT"),
    )


def cloud(environ: Mapping[str, str] | None = None) -> CloudSettings | None:
    """Read where outputs are uploaded to; None when nowhere. Raises UsageError, with no secret in its message."""
    environ = os.environ if environ is None else environ
    kind = lookup("SGLANG_CLOUD_STORAGE_TYPE", environ)
    if kind is None or kind[1].lower() in FALSE:
        return None
    if kind[1].lower() != "s3":
        raise UsageError(f"{kind[0]}: must be s3, got '{kind[1]}'")
    found = {name: lookup(f"SGLANG_S3_{name}", environ) for name in S3}
    given = {S3[name]: value[1] for name, value in found.items() if value is not None}
    if "bucket" not in given:
        raise UsageError(f"SGLANG_S3_BUCKET_NAME: required with {kind[0]}=s3")
    if ("access_key_id" in given) != ("secret_access_key" in given):
        raise UsageError("SGLANG_S3_ACCESS_KEY_ID and SGLANG_S3_SECRET_ACCESS_KEY: give both or none")
    own = {"prefix": "SGDIFF_S3_PREFIX", "public_base_url": "SGDIFF_S3_PUBLIC_BASE_URL"}
    given |= {name: value[1] for name, variable in own.items() if (value := lookup(variable, environ))}
    seconds = lookup("SGDIFF_S3_PRESIGN_SECONDS", environ)
    if seconds is not None and not (seconds[1].isdecimal() and 1 <= int(seconds[1]) <= MAX_PRESIGN_S):
        raise UsageError(f"{seconds[0]}: must be an integer from 1 to {MAX_PRESIGN_S}, got '{seconds[1]}'")
    return CloudSettings(**given, presign_seconds=int(seconds[1]) if seconds else 3600)


def _cache(home: Path | None) -> Path:
    """Return the cache folder below `home`, else where this system keeps caches."""
    if home is not None:
        return home / "sgdiff"
    import platformdirs

    return platformdirs.user_cache_path("sgdiff", appauthor=False)
