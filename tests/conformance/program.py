"""The program as users run it, a process that serves a tiny model; what the conformance cases share."""

from __future__ import annotations

import base64
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from openai import OpenAI
from PIL import Image
from safetensors.torch import save_file

from engine.models import tiny

SMALL = {"size": "64x64", "num_inference_steps": 4, "seed": 7}


class Program:
    """`sgdiff-app serve --headless` on a free port."""

    def __init__(self, folder: Path, model: str, *flags: str, **variables: str) -> None:
        self.folder, self.errors = folder, folder / "stderr"
        folder.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "sgdiff_app", "serve", "--headless", "--port", "0", "--model-path", model]
        argv += ["--data-dir", str(folder / "data"), "--output-path", str(folder / "outputs")]
        argv += ["--input-save-path", str(folder / "inputs"), "--log-format", "text", *flags]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        with self.errors.open("w") as file:
            self.process = subprocess.Popen(argv, stderr=file, env=environment)
        while (found := re.search(r"http://[^:\s]+:(\d+)", self.log)) is None:
            assert self.process.poll() is None, self.log
            time.sleep(0.05)
        self.url = f"http://127.0.0.1:{found[1]}"
        self.client = httpx.Client(base_url=self.url, timeout=120)
        self.sdk = OpenAI(base_url=f"{self.url}/v1", api_key="sk-proj-1234567890", max_retries=0, timeout=120)

    @property
    def log(self) -> str:
        return self.errors.read_text()

    def until_healthy(self, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while self.client.get("/health").status_code != 200:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.1)

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return self.client.post(path, json=body, **more)

    def image(self, prompt: str = "a boat", **fields: Any) -> dict[str, Any]:
        """Draw, and return the response."""
        answer = self.post("/v1/images/generations", {"prompt": prompt, **SMALL, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def pixels(self, prompt: str = "a boat", **fields: Any) -> np.ndarray[Any, Any]:
        return pixels(self.image(prompt, **fields)["data"][0]["b64_json"])

    def ended(self, video: str, seconds: float = 60) -> dict[str, Any]:
        """Wait for the end of a video job."""
        end = time.monotonic() + seconds
        while (found := self.client.get(f"/v1/videos/{video}").json())["status"] in ("queued", "in_progress"):
            assert time.monotonic() < end, found
            time.sleep(0.05)
        return found

    def job(self, job: str) -> dict[str, Any]:
        return self.client.get(f"/v1/jobs/{job}").json()

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        """Send a signal and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.client.close()
        self.sdk.close()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def pixels(b64: str) -> np.ndarray[Any, Any]:
    """Decode a picture of a response."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(b64))).convert("RGB"))


def png(side: int = 64, colour: str = "red") -> bytes:
    """Return a picture as a file."""
    stream = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(stream, "PNG")
    return stream.getvalue()


def data_uri(side: int = 64) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(side)).decode()}"


def model(family: str, folder: Path) -> str:
    """Make a tiny model; return its folder."""
    return str(tiny.make(family, folder / family))


def adapter(path: Path, seed: int, folder: str, networks: tuple[str, ...] = ("transformer",)) -> str:
    """Write an adapter for the attention of a model's denoisers, strong enough to be seen."""
    from safetensors import safe_open

    generator, found = torch.Generator().manual_seed(seed), {}
    for network in networks:
        for file in (Path(folder) / network).glob("*.safetensors"):
            with safe_open(file, "pt") as weights:
                for key in weights.keys():  # noqa: SIM118 - a handle of safetensors is no mapping
                    shape = weights.get_slice(key).get_shape()
                    if key.endswith((".to_q.weight", ".to_v.weight", ".to_out.0.weight")) and len(shape) == 2:
                        stem = f"{network}.{key.removesuffix('.weight')}"
                        found[f"{stem}.lora_A.weight"] = torch.randn(4, shape[1], generator=generator)
                        found[f"{stem}.lora_B.weight"] = 4 * torch.randn(shape[0], 4, generator=generator)
    assert found
    save_file(found, path)
    return str(path)
