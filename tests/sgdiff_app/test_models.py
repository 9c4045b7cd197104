"""`models`: what is listed and shown, without network or torch, and a download with all that can go wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from engine import catalog, downloads, hub, remote
from sgdiff_app import models

Cli = Callable[..., Any]
ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
VERB = "models: must be followed by one of show, pull or by nothing, got "
DEV = "black-forest-labs/FLUX.1-dev"
FILES = {
    "model_index.json": '{"_class_name": "FluxPipeline", "vae": ["diffusers", "AutoencoderKL"]}',
    "vae/config.json": "{}",
    "vae/diffusion_pytorch_model.safetensors": "w" * 2000,
}


class Hub:
    """A hub cache in a folder, and a hub client that fills it."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.downloads: list[dict[str, Any]] = []

    def keep(self, repo: str, names: tuple[str, ...] = tuple(FILES)) -> Path:
        """Put files of a repository into the cache, as the client lays them out."""
        place = self.cache / f"models--{repo.replace('/', '--')}"
        snapshot = place / "snapshots" / COMMIT
        for name in names:
            blob, link = place / "blobs" / name.replace("/", "-"), snapshot / name
            for path in (blob, link):
                path.parent.mkdir(parents=True, exist_ok=True)
            blob.write_text(FILES[name])
            link.unlink(missing_ok=True)
            link.symlink_to(blob)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / "main").write_text(COMMIT)
        return snapshot

    def snapshot_download(self, repo: str, *, dry_run: bool = False, **given: Any) -> Any:
        snapshot = self.cache / f"models--{repo.replace('/', '--')}" / "snapshots" / COMMIT
        if given.get("local_files_only"):
            if not snapshot.is_dir():
                raise errors.LocalEntryNotFoundError("not here")
            return str(snapshot)
        if dry_run:
            return [
                SimpleNamespace(
                    filename=name, file_size=len(text), is_cached=(snapshot / name).exists(), commit_hash=COMMIT,
                    will_download=not (snapshot / name).exists(), local_path=str(snapshot / name),
                )
                for name, text in FILES.items()
            ]  # fmt: skip
        self.downloads.append({"repo": repo, **given})
        whole = len(given["allow_patterns"]) > 1
        return str(self.keep(repo, tuple(FILES) if whole else ("model_index.json",)))

    def hf_hub_download(self, repo: str, name: str, *, cache_dir: str, **_: Any) -> str:
        (Path(cache_dir) / name).write_text(FILES[name])
        return str(Path(cache_dir) / name)


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    fake = Hub(tmp_path / "hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(fake.cache))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake.hf_hub_download)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    return fake


# --- list


def test_every_known_model_is_listed_and_those_that_ship_come_first(cli: Cli, online: Hub) -> None:
    online.keep(DEV)
    online.keep("Qwen/Qwen-Image", ("model_index.json",))
    answer = cli("models")
    assert (answer.status, answer.err) == (0, "")
    heading, *rows = answer.out.splitlines()
    assert heading.split() == ["family", "model", "tasks", "size", "frames", "steps", "on", "disk"]
    listed = {row.split()[1]: row for row in rows}
    assert set(listed) == {spec.id for spec in catalog.MODELS}
    assert len(rows) == len(catalog.MODELS)
    assert next(iter(listed)) == "tiny-scenes"
    assert "  bundled, " in listed["tiny-scenes"]
    assert listed[DEV].split() == ["flux", DEV, "T2I", "1024x1024", "-", "50", "2.1", "kB"]
    assert listed["Qwen/Qwen-Image"].endswith("  in part, 70 B")
    video = listed["Wan-AI/Wan2.1-T2V-1.3B-Diffusers"].split()
    assert video[2:] == ["T2V", "832x480", "81", "50", "no"]
    assert len({row.index("x", 60) for row in rows if "1024x1024" in row}) == 1


def test_the_list_as_json(cli: Cli, online: Hub) -> None:
    online.keep(DEV)
    found = {entry["id"]: entry for entry in json.loads(cli("models", "--json").out)["models"]}
    assert next(iter(found)) == "tiny-scenes"
    dev = found[DEV]
    assert (dev["state"], dev["tasks"], dev["defaults"]["num_inference_steps"]) == ("cached", ["T2I"], 50)
    assert dev["disk_bytes"] == sum(map(len, FILES.values()))
    assert Path(dev["folder"]).name == COMMIT
    assert {entry["state"] for name, entry in found.items() if name not in (DEV, "tiny-scenes", "tiny-motion")} == {
        "absent"
    }


def test_a_machine_without_a_cache_lists_too(cli: Cli, online: Hub) -> None:
    assert not online.cache.exists()
    assert f"  {DEV}  " in cli("models").out


def test_modelscope_keeps_its_own_counsel(cli: Cli, online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_USE_MODELSCOPE", "1")
    states = {entry["id"]: entry["state"] for entry in json.loads(cli("models", "--json").out)["models"]}
    assert (states["tiny-scenes"], states[DEV]) == ("bundled", "unknown")


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from sgdiff_app.cli import main\n"
        "for words in (['models'], ['models', 'show', 'FLUX.1-dev'], ['models', 'pull', 'tiny-scenes']): main(words)\n"
        "print(*(m for m in ('torch', 'diffusers', 'transformers', 'gradio', 'numpy') if m in sys.modules),"
        " file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr.splitlines() == ["tiny-scenes ships with the program", ""]


# --- show


def test_one_model_is_shown(cli: Cli, online: Hub) -> None:
    online.keep("black-forest-labs/FLUX.1-schnell")
    for name in ("black-forest-labs/FLUX.1-schnell", "flux.1-SCHNELL"):
        lines = cli("models", "show", name).out.splitlines()
        assert lines[:4] == [
            "model: black-forest-labs/FLUX.1-schnell",
            "family: flux (FluxPipeline)",
            "tasks: T2I",
            "features: img2img, inpaint",
        ]
        assert lines[4].startswith(f"on disk: 2.1 kB, {online.cache}")
        for line in (
            "precisions: default bf16",
            "sizes: multiples of 16, at most 16777216 pixels",
            "  num_inference_steps: 4",
            "  guidance_scale: no effect: it has no guidance embedding",
            "  max_sequence_length: at most 512",
        ):
            assert line in lines
        uses = next(line for line in lines if line.startswith("optional settings that it uses: "))
        assert "true_cfg_scale" in uses
        assert "guidance_scale" not in uses.replace("true_cfg_scale", "")


def test_a_video_model_tells_its_frames(cli: Cli, online: Hub) -> None:
    lines = cli("models", "show", "Wan2.1-T2V-1.3B").out.splitlines()
    assert lines[:2] == ["model: Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "also called: Wan2.1-T2V-1.3B"]
    assert "frames: 4k + 1" in lines
    assert "on disk: no" in lines
    assert any(line.startswith("precisions: default bf16, ") and "vae fp32" in line for line in lines)


def test_what_the_stock_pipeline_runs_is_said(cli: Cli, online: Hub) -> None:
    lines = cli("models", "show", "stable-diffusion-xl-base-1.0").out.splitlines()
    stock = "family: passthrough (StableDiffusionXLPipeline, run by the stock diffusers pipeline)"
    assert stock in lines
    assert "optional settings that it uses: those of the stock pipeline" in lines
    assert json.loads(cli("models", "show", "stable-diffusion-xl-base-1.0", "--json").out)["uses"] is None
    assert json.loads(cli("models", "show", "FLUX.1-dev", "--json").out)["native"] is True


def test_a_local_folder_is_shown_by_its_configs(cli: Cli, online: Hub, schnell_folder: Path) -> None:
    lines = cli("models", "show", schnell_folder).out.splitlines()
    assert lines[0] == f"model: {schnell_folder} (black-forest-labs/FLUX.1-schnell)"
    assert "  num_inference_steps: 4" in lines
    index = json.loads((schnell_folder / "model_index.json").read_text())
    other = shutil.copytree(schnell_folder, Path("mine"))
    (other / "model_index.json").write_text(json.dumps({**index, "_class_name": "OtherPipeline"}))
    lines = cli("models", "show", "mine").out.splitlines()
    assert lines[1:3] == ["family: passthrough (OtherPipeline, run by the stock diffusers pipeline)", "tasks: unknown"]
    Path("empty").mkdir()
    assert cli("models", "show", "empty").err.startswith("error: empty: is no diffusers model; ")


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (["show", "FLUX.1-def"], "models show: 'FLUX.1-def' is not known; did you mean 'FLUX.1-dev'?; known: "),
        (["show", "x/y"], "models show: 'x/y' is not known; known: tiny-scenes, black-forest-labs/FLUX.1-dev, "),
        (["pull", "tiny-scene"], "models pull: 'tiny-scene' is not known; did you mean 'tiny-scenes'?; known: "),
        (["show"], "models show: needs one model, got 0"),
        (["pull", "a/b", "c/d"], "models pull: needs one model, got 2"),
        (["shwo", "x"], f"{VERB}'shwo'; did you mean 'show'?"),
        (["FLUX.1-dev"], f"{VERB}'FLUX.1-dev'; did you mean 'models show FLUX.1-dev'?"),
        (["--prompt", "x"], "--prompt: a flag of 'generate', not of 'models'"),
    ],
)  # fmt: skip
def test_mistakes(refused: Callable[..., str], online: Hub, words: list[str], start: str) -> None:
    message = refused("models", *words)
    assert message.startswith(start)
    if "known: " in start:
        assert message.endswith(catalog.MODELS[-1].id)


def test_a_mistake_as_json(cli: Cli, online: Hub) -> None:
    answer = cli("models", "show", "x/y", "--json")
    assert json.loads(answer.out)["error"]["code"] == "model_not_found"


# --- pull


def test_a_model_is_downloaded_and_its_folder_printed(cli: Cli, online: Hub) -> None:
    answer = cli("models", "pull", "--revision", "v1", "FLUX.1-dev")
    folder = online.cache / "models--black-forest-labs--FLUX.1-dev" / "snapshots" / COMMIT
    assert (answer.status, answer.out) == (0, f"{folder}\n")
    assert answer.err.splitlines()[0] == f"{DEV}: downloading 2.1 kB"
    assert [call["repo"] for call in online.downloads] == [DEV, DEV]
    assert online.downloads[0]["revision"] == "v1"
    assert set(FILES) == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_is_here_is_not_downloaded(cli: Cli, online: Hub) -> None:
    folder = online.keep("someone/pictures")
    answer = cli("models", "pull", "someone/pictures")
    assert (answer.out, answer.err) == (f"{folder}\n", "someone/pictures is on this machine already\n")
    answer = cli("models", "pull", "tiny-scenes", "--json")
    assert answer.err == "tiny-scenes ships with the program\n"
    assert json.loads(answer.out) == {
        "model": "tiny-scenes", "folder": str(hub.bundled("tiny-scenes")), "revision": None, "was_cached": True,
        "download_bytes": 0,
    }  # fmt: skip
    assert cli("models", "pull", "tiny-scenes", "-q").err == ""


def test_a_local_folder_is_here_already(cli: Cli, online: Hub, flux_folder: Path) -> None:
    answer = cli("models", "pull", flux_folder)
    assert (answer.status, answer.out) == (0, f"{flux_folder}\n")
    assert answer.err == f"{flux_folder} is on this machine already\n"


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_offline_forbids_a_download(cli: Cli, online: Hub, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "variable":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    answer = cli("models", "pull", "FLUX.1-dev", *(["--offline"] if how == "flag" else []))
    message = f"{DEV}: is not in the cache, and --offline (or HF_HUB_OFFLINE) forbids to download it"
    assert answer == (1, "", f"error: {message}\n")
    assert online.downloads == []


def test_a_full_disk_is_noticed_before(cli: Cli, online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    answer = cli("models", "pull", "FLUX.1-dev", "--json")
    message = f"{DEV}: needs 2.1 kB, but {online.cache} has 1.0 kB left; HF_HOME names another place"
    assert answer.status == 1
    assert answer.err == f"error: {message}\n"
    assert json.loads(answer.out)["error"] == {"code": "disk_full", "message": message}
    assert online.downloads == []


def test_progress_is_told_while_it_downloads(cli: Cli, online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an interrupted download left counts as done, and files that are still growing count as far as they are."""
    blobs = online.cache / f"models--{DEV.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "w.incomplete").write_text("w" * 600)
    seen: list[tuple[int, float | None]] = []

    class Bar:
        def __call__(self, told: Any) -> None:
            seen.append((told.step, told.eta_s))

        def clear(self) -> None:
            pass

    whole = online.snapshot_download

    def slow(repo: str, **given: Any) -> Any:
        if not given.get("dry_run") and len(given["allow_patterns"]) > 1:
            for size in (600, 1200):
                (blobs / "w.incomplete").write_text("w" * size)
                count = len(seen)
                while len(seen) < count + 2:
                    pass
            (blobs / "w.incomplete").unlink()
        return whole(repo, **given)

    monkeypatch.setattr(models, "Bar", Bar)
    monkeypatch.setattr(downloads, "WAIT_S", 0.01)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", slow)
    assert cli("models", "pull", DEV).status == 0
    steps = [step for step, _ in seen]
    total = sum(map(len, FILES.values()))
    index = len(FILES["model_index.json"])
    assert {100 * (600 + index) // total, 100 * (1200 + index) // total} <= set(steps)
    assert steps == sorted(steps)
    assert seen[-1][1] is not None and seen[-1][1] >= 0


def test_a_stopped_download_says_how_to_go_on(cli: Cli, online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = online.snapshot_download

    def stop(repo: str, **given: Any) -> Any:
        if given.get("dry_run"):
            return whole(repo, **given)
        raise KeyboardInterrupt

    monkeypatch.setattr(huggingface_hub, "snapshot_download", stop)
    answer = cli("models", "pull", DEV)
    assert (answer.status, answer.out) == (130, "")
    assert answer.err.splitlines()[1] == f"warning: {DEV}: stopped; the same command goes on where this one was"


def test_input_images_and_small_sizes_are_told(cli: Cli, online: Hub) -> None:
    assert "  image_path: at most 10" in cli("models", "show", "FLUX.2-dev").out.splitlines()
    assert json.loads(cli("models", "show", "Wan2.1-T2V-1.3B", "--json").out)["max_images"] == 0
    small = next(spec for spec in catalog.MODELS if spec.small_defaults)
    assert f"defaults up to {catalog.SMALL_AREA} pixels: " in cli("models", "show", small.id).out


def test_sizes_in_the_cache(online: Hub) -> None:
    assert remote.cached_bytes() == {}
    assert remote.bytes_here(DEV) == 0
    online.keep(DEV)
    total = sum(map(len, FILES.values()))
    assert remote.cached_bytes() == {DEV: total}
    blobs = online.cache / "models--black-forest-labs--FLUX.1-dev/blobs"
    with (blobs / "x.incomplete").open("wb") as file:
        file.truncate(1_000_000)  # a hole: nothing of it is written yet
    assert remote.bytes_here(DEV) == remote.bytes_here(DEV, whole_files=True) == total
