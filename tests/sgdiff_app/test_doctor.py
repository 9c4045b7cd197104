"""Each check of the doctor, healthy and ill, and what the command prints and returns."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from PIL import features

from engine import hub, storage, video
from engine.errors import OutputError
from sgdiff_app import commands, doctor
from sgdiff_app.doctor import Row

GB = 10**9


def torch(*, cuda: int = 0, mps: bool = False, built: str | None = None, hip: str | None = None) -> SimpleNamespace:
    card = SimpleNamespace(name="H200", total_memory=139 * 2**30, major=9, minor=0)
    return SimpleNamespace(
        __version__="2.13.0",
        version=SimpleNamespace(cuda=built, hip=hip),
        cuda=SimpleNamespace(
            is_available=lambda: cuda > 0, device_count=lambda: cuda, get_device_properties=lambda _: card
        ),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
        get_num_threads=lambda: 2,
    )


def answers(check: Callable[[], Iterator[Row]]) -> list[tuple[str, str, str]]:
    return [(row.name, row.status, row.detail) for row in check()]


def give(monkeypatch: pytest.MonkeyPatch, found: Any) -> None:
    monkeypatch.setattr(doctor, "_torch", lambda: found)


def fail(error: BaseException) -> Callable[..., Any]:
    def action(*_: Any, **__: Any) -> Any:
        raise error

    return action


def says(text: str) -> Callable[..., Any]:
    return lambda *_, **__: SimpleNamespace(stdout=text)


# --- the command


def test_this_machine_has_what_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run("doctor", ["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    names = [check["name"] for check in report["checks"]]
    assert {"python", "torch", "torch build", "driver", "attention backends", "ffmpeg", "picture formats"} <= set(names)
    assert {"output folder", "program cache", "hub cache", "bundled models", "hub token", "port"} <= set(names)
    assert all(check.keys() == {"name", "status", "detail"} for check in report["checks"])


def test_something_required_that_is_missing_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Row("one", "ok", "fine"), Row("longer name", "warn", "so so")]
    monkeypatch.setattr(doctor, "CHECKS", (lambda: iter(rows),))
    assert commands.run("doctor", []) == 0
    assert capsys.readouterr().out == "ok       one          fine\nwarn     longer name  so so\n"
    rows.append(Row("x", "missing", "not installed"))
    assert commands.run("doctor", []) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "missing  x            not installed"
    assert commands.run("doctor", ["--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert report["checks"][2] == {"name": "x", "status": "missing", "detail": "not installed"}


# --- packages, torch, device


def test_a_required_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {name: "1.0" for name in doctor.REQUIRED if name != "diffusers"} | {"peft": "2.0"}
    monkeypatch.setattr(doctor, "_version", versions.get)
    found = answers(doctor.packages)
    assert ("diffusers", "missing", "not installed") in found
    assert ("torch", "ok", "1.0") in found
    assert found[-1] == ("optional packages", "ok", "peft 2.0")
    versions.pop("peft")
    assert answers(doctor.packages)[-1] == ("optional packages", "ok", "none")


def test_versions_are_those_of_the_installation() -> None:
    assert doctor._version("torch") == importlib.import_module("torch").__version__
    assert doctor._version("no-such-package") is None


@pytest.mark.parametrize("error", [ImportError("libcudart.so is missing"), OSError("libcudart.so is missing")])
def test_a_torch_that_cannot_be_imported(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib, "import_module", fail(error))
    expected = "torch cannot be imported: libcudart.so is missing"
    assert answers(doctor.device) == [("torch build", "missing", expected)]
    assert answers(doctor.attention) == []


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, torch(cuda=2, built="12.8"))
    assert answers(doctor.device) == [
        ("torch build", "ok", "2.13.0 (CUDA 12.8)"),
        ("device cuda:0", "ok", "H200, 139 GiB, compute 9.0"),
        ("device cuda:1", "ok", "H200, 139 GiB, compute 9.0"),
    ]
    give(monkeypatch, torch(cuda=1, hip="6.4"))
    assert answers(doctor.device)[0] == ("torch build", "ok", "2.13.0 (ROCm 6.4)")
    give(monkeypatch, torch(mps=True))
    assert answers(doctor.device)[1] == ("device", "ok", "mps (Apple GPU)")
    give(monkeypatch, torch())
    assert answers(doctor.device) == [
        ("torch build", "ok", "2.13.0 (CPU)"),
        ("device", "warn", "cpu with 2 threads; no GPU, so only small models are fast"),
    ]


def test_attention_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if name == "flash_attn" else None)
    give(monkeypatch, torch(cuda=1))
    expected = "torch_sdpa, torch_cudnn_sdpa; installed: flash_attn"
    assert answers(doctor.attention) == [("attention backends", "ok", expected)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    give(monkeypatch, torch())
    assert answers(doctor.attention) == [("attention backends", "ok", "torch_sdpa")]


def test_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert answers(doctor.driver) == [("driver", "ok", "no NVIDIA driver")]
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(subprocess, "run", says("570.1\n570.1\n"))
    give(monkeypatch, torch(cuda=2))
    assert answers(doctor.driver) == [("driver", "ok", "NVIDIA 570.1")]
    give(monkeypatch, torch())
    expected = "NVIDIA 570.1, but this torch cannot use it; install a CUDA build of torch"
    assert answers(doctor.driver) == [("driver", "warn", expected)]
    monkeypatch.setattr(subprocess, "run", fail(subprocess.TimeoutExpired("x", 1)))
    assert answers(doctor.driver) == [("driver", "warn", "nvidia-smi does not answer (TimeoutExpired)")]


# --- ffmpeg and pictures


def test_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "executable", lambda: "/bin/ffmpeg")
    monkeypatch.setattr(subprocess, "run", says(" V..... libx264 H.264\n V..... h264_nvenc NVENC\n"))
    assert answers(doctor.ffmpeg) == [("ffmpeg", "ok", "encoders libx264, h264_nvenc")]
    monkeypatch.setattr(subprocess, "run", says(" V..... libx265\n"))
    expected = "/bin/ffmpeg has no encoder libx264, which mp4 files need"
    assert answers(doctor.ffmpeg) == [("ffmpeg", "missing", expected)]
    monkeypatch.setattr(subprocess, "run", fail(PermissionError()))
    assert answers(doctor.ffmpeg) == [("ffmpeg", "missing", "does not run (PermissionError)")]
    monkeypatch.setattr(video, "executable", fail(OutputError("ffmpeg is missing")))
    assert answers(doctor.ffmpeg) == [("ffmpeg", "missing", "ffmpeg is missing")]
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert answers(doctor.ffmpeg) == [("ffmpeg", "missing", "install the package imageio-ffmpeg")]


def test_picture_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    assert answers(doctor.pictures) == [("picture formats", "ok", "png, jpeg, webp, gif")]
    monkeypatch.setattr(features, "check", lambda name: name != "webp")
    assert answers(doctor.pictures) == [("picture formats", "missing", "Pillow lacks webp")]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert answers(doctor.pictures) == []


# --- folders, models, token, port


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, outputs = tmp_path / "cache", tmp_path / "new" / "outputs"
    (cache / "deep").mkdir(parents=True)
    (cache / "deep" / "file").write_bytes(b"x" * 2500)
    monkeypatch.setenv("SGDIFF_CACHE_ROOT", str(cache))
    monkeypatch.setattr(doctor, "OUTPUTS", outputs)
    monkeypatch.setattr(doctor, "_hub_cache", lambda: iter([("hub cache", tmp_path / "hub")]))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=50 * GB))
    assert answers(doctor.folders) == [
        ("output folder", "ok", f"{outputs}, 50 GB free"),
        ("program cache", "ok", f"{cache}, 50 GB free, 2 kB used"),
        ("hub cache", "ok", f"{tmp_path}/hub, 50 GB free"),
    ]
    assert not outputs.parent.exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * GB))
    assert answers(doctor.folders)[0] == ("output folder", "warn", f"{outputs}, 5 GB free: little space")
    monkeypatch.setattr(storage, "probe", fail(OutputError("x: cannot be written: permission denied")))
    assert answers(doctor.folders)[0] == ("output folder", "warn", "x: cannot be written: permission denied")


def test_the_hub_cache_is_that_of_the_hub_client(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(doctor._hub_cache()) == [("hub cache", Path(huggingface_hub.constants.HF_HUB_CACHE))]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert list(doctor._hub_cache()) == []
    assert answers(doctor.token) == []


def test_bundled_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "bundled_names", lambda: ("tiny-motion", "tiny-scenes"))
    assert answers(doctor.models) == [("bundled models", "ok", "tiny-motion, tiny-scenes")]
    monkeypatch.setattr(hub, "bundled_names", lambda: ())
    assert answers(doctor.models) == [("bundled models", "warn", "none in this installation")]


def test_the_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "not-a-real-token")
    assert answers(doctor.token) == [("hub token", "ok", "present")]
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert answers(doctor.token) == [("hub token", "ok", "none; gated models need one: `hf auth login`")]


def test_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        monkeypatch.setattr(doctor, "PORT", taken)
        assert answers(doctor.port) == [("port", "warn", f"{taken} is taken; serve on another one with --port")]
    assert answers(doctor.port) == [("port", "ok", f"{taken} is free")]


def test_sizes_are_short() -> None:
    shown = [doctor._size(count) for count in (0, 999, 1500, 2.5 * GB, 3.25e12)]
    assert shown == ["0 B", "999 B", "2 kB", "2 GB", "3.2 TB"]
