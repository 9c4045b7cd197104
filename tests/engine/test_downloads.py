"""Downloads: sizes before, progress meanwhile, failures in words, and going on where one stopped."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from engine import downloads, env
from engine.config import EngineConfig
from engine.downloads import Download, Downloads
from engine.errors import ModelError, UsageError
from tests.sgdiff_app.test_models import DEV, FILES, Hub

TOTAL = sum(map(len, FILES.values()))


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    fake = Hub(tmp_path / "hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(fake.cache))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake.hf_hub_download)
    monkeypatch.setattr(downloads, "WAIT_S", 0.01)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return fake


@pytest.fixture
def background(online: Hub) -> Downloads:
    return Downloads(env.read())


def ended(download: Download) -> Download:
    for _ in range(1000):
        if download.state != "running":
            return download
        threading.Event().wait(0.01)
    raise AssertionError(download)


def test_the_size_is_known_before_and_the_download_ends(background: Downloads, online: Hub) -> None:
    assert background.plan("FLUX.1-dev", EngineConfig()).download_bytes == TOTAL
    assert online.downloads == []
    started = background.start("FLUX.1-dev", EngineConfig())
    assert (started.model, started.total) == (DEV, TOTAL)
    assert (ended(started).state, started.percent, started.error) == ("done", 100, "")
    assert background.all() == [started]
    again = background.start(DEV, EngineConfig())  # nothing is missing
    assert (again.state, again.total, background.all()) == ("done", 0, [again])


def test_progress_and_one_download_per_model(
    background: Downloads, online: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, go = online.snapshot_download, threading.Event()
    blobs = online.cache / f"models--{DEV.replace('/', '--')}" / "blobs"

    def slow(repo: str, **given: Any) -> Any:
        if not given.get("dry_run") and len(given["allow_patterns"]) > 1:
            (blobs / "w.incomplete").write_text("w" * 1000)
            go.wait(10)
            (blobs / "w.incomplete").unlink()
        return whole(repo, **given)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", slow)
    started = background.start(DEV, EngineConfig())
    assert background.start(DEV, EngineConfig()) is started
    for _ in range(500):
        if started.percent:
            break
        threading.Event().wait(0.01)
    assert 40 < started.percent < 60
    go.set()
    assert ended(started).percent == 100


def test_a_download_that_fails_says_why_and_can_go_on(
    background: Downloads, online: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = online.snapshot_download

    def lost(repo: str, **given: Any) -> Any:
        if given.get("dry_run"):
            return whole(repo, **given)
        raise errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lost)
    failed = ended(background.start(DEV, EngineConfig()))
    assert failed.state == "failed"
    assert failed.error.startswith(f"{DEV}: is not in the cache, and the hub cannot be reached; check the network")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", whole)
    assert ended(background.start(DEV, EngineConfig())).state == "done"


def test_what_cannot_be_downloaded_is_refused_at_once(
    background: Downloads, online: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"model: must be a hub id \(owner/name\), got '/etc'"):
        background.start("/etc", EngineConfig())
    with pytest.raises(ModelError, match=r"--offline \(or HF_HUB_OFFLINE\) forbids to download it"):
        background.start(DEV, EngineConfig(offline=True))
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ModelError, match=r"needs 2\.1 kB, but .* has 1\.0 kB left"):
        background.start(DEV, EngineConfig())
    assert background.all() == []


def test_how_far_a_download_is() -> None:
    half = downloads.progress(50, 25, 100, 10.0)
    assert (half.stage, half.step, half.steps, half.eta_s) == ("downloading", 50, 100, 20.0)
    assert downloads.progress(0, 0, 100, 1.0).eta_s is None
    assert downloads.progress(120, 120, 100, 1.0).step == 100
