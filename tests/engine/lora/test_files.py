"""Which file a LoRA reference means, without network: the hub client is replaced."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import save_file

from engine import hub
from engine.errors import ModelError, UsageError
from engine.lora.files import is_allowed, is_lora, is_remote, locate, parted

REPO = "someone/styles"


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"a.lora_A.weight": torch.zeros(2, 4), "a.lora_B.weight": torch.zeros(4, 2)}, path)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "bundled_loras", dict)
    return tmp_path


@pytest.fixture
def online(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository as a folder; what is downloaded from it is copied nowhere."""
    place = folder / "remote"
    asked: list[list[str]] = []

    def download(repo: str, *, dry_run: bool = False, **given: Any) -> Any:
        assert repo == REPO
        names = [path.relative_to(place).as_posix() for path in sorted(place.rglob("*")) if path.is_file()]
        patterns = given["allow_patterns"], given["ignore_patterns"]
        wanted = list(filter_repo_objects(names, allow_patterns=patterns[0], ignore_patterns=patterns[1]))
        if dry_run:
            return [SimpleNamespace(filename=name) for name in wanted]
        asked.append(wanted)
        return str(place)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(download, "asked", asked, raising=False)
    return place


def downloads() -> list[list[str]]:
    return list(vars(huggingface_hub.snapshot_download)["asked"])


def missing(reference: str, *options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        locate(reference, *options)
    assert caught.value.code == "lora_file_not_found"
    return caught.value.message


def test_a_file_and_a_folder_of_one_file(folder: Path) -> None:
    path = write(folder / "styles" / "a.safetensors")
    assert locate(str(path)) == path
    assert locate("styles/a.safetensors") == Path("styles/a.safetensors")
    assert locate("styles") == Path("styles/a.safetensors")


def test_a_folder_of_several_files_needs_a_name(folder: Path) -> None:
    for name in ("high.safetensors", "low.safetensors"):
        write(folder / "styles" / name)
    with pytest.raises(UsageError, match=r"has 2 LoRA files; choose one with --lora-weight-name: high\.saf") as caught:
        locate("styles")
    assert caught.value.param == "lora_weight_name"
    assert locate("styles", "low.safetensors") == locate("styles", "low") == Path("styles/low.safetensors")
    assert missing("styles", "lov.safetensors") == (
        "styles: has no file 'lov.safetensors'; did you mean 'low.safetensors'?; "
        "it has high.safetensors, low.safetensors"
    )
    assert "has no file '../styles/low'" in missing("styles", "../styles/low")


def test_the_file_that_diffusers_writes_is_the_one_meant(folder: Path) -> None:
    for name in ("checkpoint-1.safetensors", "pytorch_lora_weights.safetensors"):
        write(folder / "styles" / name)
    assert locate("styles").name == "pytorch_lora_weights.safetensors"


def test_bundled_adapters_go_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder / "shelf" / "pixel-art.safetensors")
    monkeypatch.setattr(hub, "bundled_loras", lambda: {"pixel-art": path})
    assert locate("pixel-art") == locate("pixel-art.safetensors") == path
    assert missing("pixel-atr") == (
        "pixel-atr: no such file or folder, and neither a bundled LoRA nor a hub id (owner/name); "
        "did you mean 'pixel-art'?; bundled: pixel-art"
    )


def test_of_a_repository_the_chosen_file_alone_is_downloaded(online: Path) -> None:
    for name in ("high.bf16.safetensors", "low.safetensors", "sub/other.safetensors"):
        write(online / name)
    with pytest.raises(UsageError, match="has 2 LoRA files"):
        locate(REPO)
    assert downloads() == []
    assert locate(REPO, "high.bf16") == online / "high.bf16.safetensors"
    assert downloads() == [["high.bf16.safetensors"]]
    assert locate(REPO, "sub/other.safetensors") == online / "sub/other.safetensors"


def test_a_file_in_a_folder_of_a_repository(online: Path) -> None:
    for name in (
        "a.safetensors",
        "sub/b.safetensors",
        "sub/c.safetensors",
        "two/c.safetensors",
        "sub/adapter_config.json",
    ):
        write(online / name)
    for given in ((f"{REPO}/sub/b.safetensors",), (REPO, "sub/b.safetensors"), (REPO, "sub/b"), (REPO, "b")):
        assert locate(*given) == online / "sub/b.safetensors"
    assert downloads() == [["sub/adapter_config.json", "sub/b.safetensors"]] * 4, "what PEFT says of it comes along"
    assert locate(f"{REPO}/a.safetensors") == online / "a.safetensors"
    assert missing(REPO, "c") == (
        f"{REPO}: has no file 'c'; it has a.safetensors, sub/b.safetensors, sub/c.safetensors, two/c.safetensors"
    )
    assert missing(f"{REPO}/sub/d.safetensors").startswith(
        f"{REPO}/sub/d.safetensors: no such file here; of the hub: {REPO}: has no file 'sub/d.safetensors'; did you"
    )
    assert missing(f"{REPO}/../secret.safetensors").startswith(
        f"{REPO}/../secret.safetensors: no such file here; of the"
    )


def test_a_file_here_comes_before_one_of_the_hub(online: Path, folder: Path) -> None:
    own = write(folder / REPO / "sub/b.safetensors")
    write(online / "sub/b.safetensors")
    reference = f"{REPO}/sub/b.safetensors"
    assert (locate(reference), parted(reference), is_remote(reference)) == (Path(reference), (reference, None), False)
    own.unlink()
    assert parted(reference) == (REPO, "sub/b.safetensors") and is_remote(reference)
    assert parted(reference, "c") == (reference, "c")
    for other in (REPO, "sub/b.safetensors", f"./{reference}", f"/{reference}", f"{REPO}/sub", "a//b.safetensors", ""):
        assert parted(other) == (other, None)


def test_what_a_folder_leads_out_of_is_not_allowed(folder: Path) -> None:
    write(folder / "in/a.safetensors")
    (folder / "in/b.safetensors").symlink_to(write(folder / "out/b.safetensors"))
    assert is_allowed("in", "a", [folder / "in"]) and is_allowed(f"{REPO}/sub/a.safetensors", None, [])
    for name in ("b", "b.safetensors", "../out/b"):
        assert not is_allowed("in", name, [folder / "in"]), name


def test_pickled_files_are_refused_wherever_they_are(online: Path, folder: Path) -> None:
    (online / "lora.bin").parent.mkdir(parents=True)
    (online / "lora.bin").write_bytes(b"\x80\x02")
    for reference, words in ((REPO, "holds lora.bin"), ("remote", "holds lora.bin"), ("remote/lora.bin", "is pickled")):
        with pytest.raises(UsageError, match=words) as caught:
            locate(reference)
        assert caught.value.code == "lora_incompatible"


def test_what_is_not_there_says_so(folder: Path) -> None:
    (folder / "empty").mkdir()
    assert missing("empty") == "empty: holds no safetensors file"
    assert "./a.safetensors: no such file or folder" in missing("./a.safetensors")
    assert missing("a" * 5000).endswith("File name too long)")


def test_weights_of_a_model_are_refused_as_adapter(folder: Path) -> None:
    save_file({"a.weight": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(UsageError, match="holds weights of a model, not of a LoRA"):
        locate("model.safetensors")
    assert not is_lora(folder / "model.safetensors") and is_lora(write(folder / "a.safetensors"))


def test_what_has_to_be_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_remote("owner/style")
    assert not any(is_remote(name) for name in ("style.safetensors", "./owner/style", str(tmp_path)))
    (tmp_path / "owner/style").mkdir(parents=True)
    assert not is_remote("owner/style")
