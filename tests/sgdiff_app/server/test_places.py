"""Names that clients give of models and adapters: what is allowed, and that nothing leads elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgdiff_app.server import places
from sgdiff_app.server.errors import ApiError


def refused(code: str, name: str, data: Path) -> None:
    with pytest.raises(ApiError) as caught:
        places.model_path(name, data)
    assert caught.value.code == code
    assert str(data) not in caught.value.message.replace(name, "")


def test_models(tmp_path: Path) -> None:
    assert places.model_path("owner/name", tmp_path) == "owner/name"
    assert places.model_path("tiny-scenes", tmp_path) == "tiny-scenes"
    assert places.model_path("Z-Image-Turbo", tmp_path) == "Tongyi-MAI/Z-Image-Turbo"
    own = tmp_path / "models" / "mine"
    own.mkdir(parents=True)
    assert places.model_path("mine", tmp_path) == places.model_path(str(own), tmp_path) == str(own)
    refused("model_not_found", "unheard-of", tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "models" / "link").symlink_to(outside)
    for name in (str(outside), "../outside", "~/x", "file://x", "s3://bucket/x", "", ".", "a\0b", "\udcff"):
        refused("invalid_model_path", name, tmp_path)
    refused("model_not_found", "link", tmp_path)


def test_a_folder_of_the_server_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    refused("invalid_model_path", "owner/name", tmp_path / "data")


def test_files_of_weights(tmp_path: Path) -> None:
    own = tmp_path / "models" / "up.safetensors"
    own.parent.mkdir()
    own.touch()
    assert places.file_path("up.safetensors", tmp_path, "upscaling_model_path") == str(own)
    assert places.file_path("owner/name:file.pth", tmp_path, "upscaling_model_path") == "owner/name:file.pth"
    for name in ("http://localhost/x", "/etc/passwd", "other.pth", ""):
        with pytest.raises(ApiError, match="upscaling_model_path: must be"):
            places.file_path(name, tmp_path, "upscaling_model_path")


def test_adapters(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.safetensors").touch()
    (inside / "link.safetensors").symlink_to(outside / "a.safetensors")
    allowed = (str(inside),)
    places.check_lora(str(outside / "a.safetensors"), None, None)
    for path, weight_name in ((str(inside / "a.safetensors"), None), (str(inside), "a.safetensors"), ("o/hub", None)):
        places.check_lora(path, weight_name, allowed)
    wrong: list[tuple[str, str | None]] = [
        (str(outside / "a.safetensors"), None),
        (str(inside / ".." / "out"), None),
        (str(inside / "link.safetensors"), None),
        (str(inside), "link.safetensors"),
        (str(inside), None),  # where the link is among those that could be chosen
        (str(inside), "../out/a.safetensors"),
        ("a\0b", None),
        ("~no-such-user/a.safetensors", None),
        ("x" * 5000, None),
        ("nowhere.safetensors", None),
    ]
    for path, weight_name in wrong:
        with pytest.raises(ApiError) as caught:
            places.check_lora(path, weight_name, allowed)
        assert caught.value.code == "invalid_lora_path", path
