"""The curl lines that users of SGLang Diffusion know, as written but for host and paths."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine.models import tiny
from tests.sgdiff_app.server.conftest import Starter
from tests.sgdiff_app.server.serving import Running

KEY = ("-H", "Authorization: Bearer sk-proj-1234567890")
JSON = ("-H", "Content-Type: application/json")
PROMPT = "A calico cat playing a piano on stage"


def curl(server: Running, *words: str, folder: Path | None = None) -> Any:
    """Run curl with the server's address in place of HOST; return the JSON that it prints."""
    command = ["curl", *(word.replace("HOST", server.url) for word in words)]
    done = subprocess.run(command, capture_output=True, check=True, cwd=folder)
    return json.loads(done.stdout) if done.stdout else None


def test_models(server: Running) -> None:
    answer = curl(server, "-sS", "-X", "GET", "HOST/models")
    wanted = {
        "model_path",
        "task_type",
        "pipeline_name",
        "pipeline_class",
        "num_gpus",
        "dit_precision",
        "vae_precision",
    }
    assert wanted <= answer.keys()


def test_an_image(server: Running) -> None:
    body = {"prompt": PROMPT, "size": "1024x1024", "n": 1, "response_format": "b64_json"}
    answer = curl(server, "-sS", "-X", "POST", "HOST/v1/images/generations", *JSON, *KEY, "-d", json.dumps(body))
    assert base64.b64decode(answer["data"][0]["b64_json"]).startswith(b"\x89PNG")


@pytest.mark.parametrize("form", ["b64_json", "url"])
def test_an_edit(start: Starter, tmp_path: Path, form: str) -> None:
    server = start("--model-path", str(tiny.make("qwen-image-edit", tmp_path / "model")))
    Image.new("RGB", (64, 64), "red").save(tmp_path / "local_input_image.png")
    words = ["-sS", "-X", "POST", "HOST/v1/images/edits", *KEY, "-F", "image=@local_input_image.png"]
    rest = ["-F", f"prompt={PROMPT}", "-F", "size=1024x1024", "-F", f"response_format={form}"]
    refused = curl(server, *words, "-F", "url=image_url.jpg", *rest, folder=tmp_path)  # a placeholder, no URL
    assert refused["error"]["code"] == "invalid_url"
    answer = curl(server, *words, *rest, folder=tmp_path)
    if form == "b64_json":
        assert base64.b64decode(answer["data"][0]["b64_json"]).startswith(b"\x89PNG")
        return
    path = answer["data"][0]["url"]
    assert path == f"/v1/images/{answer['id']}/content"
    curl(server, "-sS", "-L", f"HOST{path}", *KEY, "-o", "output.png", folder=tmp_path)
    with Image.open(tmp_path / "output.png") as picture:
        assert picture.size == (1024, 1024)


def test_a_video(start: Starter, tmp_path: Path) -> None:
    server = start("--model-path", str(tiny.make("wan", tmp_path / "model")))
    body = json.dumps({"prompt": PROMPT, "size": "1280x720"})
    made = curl(server, "-sS", "-X", "POST", "HOST/v1/videos", *JSON, *KEY, "-d", body)
    assert made["object"] == "video"
    end = time.monotonic() + 60
    while (video := curl(server, "-sS", "-X", "GET", "HOST/v1/videos", *KEY)["data"][0])["status"] != "completed":
        assert time.monotonic() < end, video
        time.sleep(0.2)
    curl(server, "-sS", "-L", f"HOST/v1/videos/{made['id']}/content", *KEY, "-o", "output.mp4", folder=tmp_path)
    assert (tmp_path / "output.mp4").read_bytes()[4:8] == b"ftyp"


def test_adapters(server: Running) -> None:
    form = "HOST/v1/set_lora"
    one = {"lora_nickname": "lora_name", "lora_path": "pixel-art", "target": "all", "strength": 0.8}
    assert curl(server, "-X", "POST", form, *JSON, "-d", json.dumps(one))["status"] == "ok"
    several = {
        "lora_nickname": ["style_lora", "character_lora"],
        "lora_path": ["pixel-art", "neon-night"],
        "target": "all",
        "strength": [0.7, 0.9],
    }
    assert curl(server, "-X", "POST", form, *JSON, "-d", json.dumps(several))["status"] == "ok"
    listed = curl(server, "-sS", "-X", "GET", "HOST/v1/list_loras")
    assert [entry["strength"] for entry in listed["active"]["transformer"]] == [0.7, 0.9]
    merge = curl(server, "-X", "POST", "HOST/v1/merge_lora_weights", *JSON, "-d", '{"strength": 0.8}')
    assert merge["status"] == "ok"
    assert curl(server, "-X", "POST", "HOST/v1/unmerge_lora_weights", *JSON)["status"] == "ok"
    assert curl(server, "-sS", "-X", "GET", "HOST/v1/list_loras")["active"] == {}


def test_switching_without_a_content_type(server: Running) -> None:
    first = '{"lora_nickname": "lora_a", "lora_path": "pixel-art"}'
    assert curl(server, "-X", "POST", "HOST/v1/set_lora", "-d", first)["status"] == "ok"
    assert curl(server, "-X", "POST", "HOST/v1/unmerge_lora_weights")["status"] == "ok"
    second = '{"lora_nickname": "lora_b", "lora_path": "neon-night"}'
    assert curl(server, "-X", "POST", "HOST/v1/set_lora", "-d", second)["status"] == "ok"
    assert curl(server, "-X", "POST", "HOST/v1/set_lora", "-d", '{"lora_nickname": "lora_a"}')["status"] == "ok"
