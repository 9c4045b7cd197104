"""Where models are on this machine, and their downloads: what one takes, how far it is, and to go on with it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from engine import catalog, hub, log, remote
from engine.config import EngineConfig
from engine.env import Environment
from engine.errors import ModelError, SgdiffError, UsageError, shown
from engine.profiler import monotonic
from engine.types import Progress

logger = log.get(__name__)

State = Literal["bundled", "cached", "local", "partial", "absent", "unknown"]
WAIT_S = 0.5  # between two looks at how far a download is


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model is on this machine, and what it takes there."""

    state: State
    folder: Path | None = None
    disk_bytes: int | None = None


def place(name: str, config: EngineConfig, environment: Environment, sizes: Mapping[str, int]) -> Place:
    """Say where a model is, without the network. `sizes` are those of the repositories in the hub cache."""
    folder = hub.bundled(name)
    if folder is not None:
        return Place("bundled", folder, _folder_bytes(folder))
    if Path(name).is_dir():
        return Place("local", Path(name), _folder_bytes(Path(name)))
    if environment.use_modelscope:
        return Place("unknown")
    if name not in sizes:
        return Place("absent")
    try:
        source = hub.locate(replace(config, model_path=name, offline=True), environment)
    except ModelError:
        return Place("partial", None, sizes[name])
    return Place("cached", source.folder, sizes[name])


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def size(count: int | None) -> str:
    """Return a number of bytes for people."""
    if not count:
        return "unknown" if count is None else "nothing"
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def room() -> tuple[Path, int]:
    """Return the folder that downloads go to, and the bytes that are free there."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    return cache, shutil.disk_usage(existing).free


def require_room(model: str, needed: int | None) -> None:
    """Raise ModelError `disk_full` for a download that does not fit."""
    cache, free = room()
    if needed is not None and needed > free:
        message = f"{model}: needs {size(needed)}, but {cache} has {size(free)} left; HF_HOME names another place"
        raise ModelError(message, code="disk_full")


@contextmanager
def watched(model: str, total: int | None, tell: Callable[[Progress], None]) -> Iterator[None]:
    """Tell how far a download is meanwhile, in per cent; ModelScope, which does not tell its size, shows its own."""
    if not total:
        yield
        return
    from huggingface_hub.utils.tqdm import disable_progress_bars  # one bar is enough

    done = threading.Event()
    start, began = remote.bytes_here(model, whole_files=True), monotonic()
    already = remote.bytes_here(model) - start

    def look() -> None:
        have = already
        while not done.wait(WAIT_S):
            have = max(have, remote.bytes_here(model) - start)  # a try that begins anew does not move the bar back
            tell(progress(have, have - already, total, monotonic() - began))

    watcher = threading.Thread(target=look, daemon=True)
    with disable_progress_bars():
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def progress(have: int, fetched: int, total: int, elapsed_s: float) -> Progress:
    """Return how far a download is: `have` of `total` bytes, `fetched` of them in this run."""
    left = max(0, total - have)
    eta = left * elapsed_s / fetched if fetched > 0 else None
    return Progress("downloading", min(100, 100 * have // total), 100, elapsed_s, eta)


@dataclass(slots=True)
class Download:
    """One download of this process. The thread that does it alone changes it."""

    model: str
    total: int | None  # bytes; None when the hub does not tell
    percent: int = 0
    eta_s: float | None = None
    state: Literal["running", "done", "failed"] = "running"
    error: str = ""


class Downloads:
    """Downloads in the background, one per model; starting one again goes on where it stopped. Safe in threads."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.lock = threading.Lock()
        self.known: dict[str, Download] = {}  # by model, in the order of their start

    def plan(self, name: str, config: EngineConfig) -> hub.Plan:
        """Say what the download of a model takes. Raises ModelError, and UsageError for what is no hub id."""
        spec = catalog.by_name(name)
        model = spec.id if spec is not None else name
        if hub.bundled(model) is None and not remote.is_repo_id(model):
            raise UsageError(f"model: must be a hub id (owner/name), got '{shown(name)}'", param="model")
        return hub.plan(_of(model, config), self.environment)

    def start(self, name: str, config: EngineConfig) -> Download:
        """Download what is missing of a model. Raises as `plan` does, and ModelError when there is no room for it."""
        found = self.plan(name, config)
        with self.lock:
            running = self.known.get(found.name)
            if running is not None and running.state == "running":
                return running
            download = Download(found.name, found.download_bytes)
            if found.cached:
                download.percent, download.state = 100, "done"
            else:
                require_room(found.name, found.download_bytes)
            self.known.pop(found.name, None)
            self.known[found.name] = download
        if not found.cached:
            threading.Thread(target=self._fetch, args=(download, _of(found.name, config)), daemon=True).start()
        return download

    def all(self) -> list[Download]:
        """Return the downloads of this process, the oldest first."""
        with self.lock:
            return list(self.known.values())

    def _fetch(self, download: Download, config: EngineConfig) -> None:
        def tell(told: Progress) -> None:
            download.percent, download.eta_s = told.step, told.eta_s

        try:
            with watched(download.model, download.total, tell):
                hub.locate(config, self.environment)
        except SgdiffError as error:
            download.error, download.state = error.message, "failed"
            logger.warning("%s", error.message)
        else:
            download.percent, download.state = 100, "done"


def _of(model: str, config: EngineConfig) -> EngineConfig:
    """Return settings for the download of a model, with what was chosen about access."""
    return EngineConfig(model_path=model, offline=config.offline, trust_remote_code=config.trust_remote_code)
