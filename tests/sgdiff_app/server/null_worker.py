"""A worker that draws flat colours without a model, for tests of the routes: `python null_worker.py FD`.

Prompts steer it: "slow" takes 20 steps of 50 ms, "very slow" of 250 ms, "FAULT" fails, "OOM" has too little memory,
"DIE" ends the process.
The colour depends on the seed and on the adapters that are set.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from engine import env, media
from engine.config import EngineConfig
from engine.errors import ModelError
from engine.runtime.channel import Channel
from engine.schema import plain, read


class Null:
    """Takes turns between its jobs, a step at a time, as the real one does."""

    def __init__(self, channel: Channel, scratch: Path) -> None:
        self.channel, self.scratch = channel, scratch
        self.jobs: list[dict[str, Any]] = []
        self.loras: list[dict[str, Any]] = []
        self.chosen: list[dict[str, Any]] = []
        self.cached: dict[str, str] = {}
        self.sets = 1

    def serve(self) -> None:
        while True:
            message = self.channel.receive(0 if self.jobs else None)
            while message is not None:
                if message[0]["op"] == "stop":
                    return
                self.take(message[0])
                message = self.channel.receive(0)
            if self.jobs:
                self.step(self.jobs.pop(0))

    def take(self, told: dict[str, Any]) -> None:
        found = [job for job in self.jobs if job["job"] == told.get("job")]
        if told["op"] == "submit":
            request = told["request"]
            slow = "slow" in request["prompt"]
            steps = min(request["num_inference_steps"], 20) if slow else 1
            self.jobs.append({**told, "step": 0, "steps": steps, "index": 0, "pause": 0.0})
            self.jobs[-1]["pause"] = 0.25 if "very slow" in request["prompt"] else 0.05 if slow else 0.0
        elif told["op"] == "cancel" and found:
            self.jobs.remove(found[0])
            self.fail(found[0], "cancelled", "cancelled")
        elif told["op"] == "watch" and found:
            found[0]["preview"] = told["on"]
        elif told["op"] == "call":
            self.call(told)

    def fail(self, job: dict[str, Any], code: str, message: str) -> None:
        error = {"code": code, "message": message, "param": None, "kind": ""}
        self.channel.send({"event": "failed", "job": job["job"], "error": error})

    def call(self, told: dict[str, Any]) -> None:
        name, given, answer = told["name"], told["arguments"], {"event": "reply", "call": told["call"]}
        result: Any = []
        if name == "set_lora":
            from engine.errors import SgdiffError
            from engine.lora import refs

            try:
                wanted = refs.of_call(
                    given["lora_nickname"],
                    given.get("lora_path"),
                    given.get("target", "all"),
                    given.get("strength", 1.0),
                )
                for ref in wanted:
                    if ref.path is None and ref.name not in self.cached:
                        raise SgdiffError(f"lora_nickname: '{ref.name}' is not loaded", code="lora_not_found")
                    self.cached[str(ref.name)] = ref.path or self.cached[str(ref.name)]
                self.loras = self.chosen = [plain(ref) for ref in wanted]
                lacking = [ref for ref in wanted if ref.target not in ("all", "transformer")]
                result = [f"{ref.name}: the model has no {ref.target}, skipped" for ref in lacking]
            except SgdiffError as error:
                kind = "model" if error.code == "lora_not_found" else "usage"
                answer["error"] = {"code": error.code, "message": error.message, "param": error.param, "kind": kind}
        elif name == "merge_lora" and not self.chosen:
            answer["error"] = {"code": "no_lora_set", "message": "no LoRA is set", "param": None, "kind": "usage"}
        elif name == "merge_lora":
            self.loras = [{**ref, "scale": given["strength"]} for ref in self.chosen]
        elif name == "unmerge_lora":
            self.loras = []
        elif name == "list_loras":
            entries = [{"nickname": ref["name"], "merged": True, "strength": ref["scale"]} for ref in self.loras]
            loaded = [{"nickname": name, "path": path} for name, path in self.cached.items()]
            result = {"loaded_adapters": loaded, "active": {"transformer": entries} if entries else {}}
        elif name == "memory":
            result = {"device": "cpu", "name": "cpu", "total_mb": 1000.0, "free_mb": 600.0, "allocated_mb": 250.0}
            result |= {"reserved_mb": 250.0, "peak_allocated_mb": 300.0, "peak_reserved_mb": 300.0}
        self.sets += 1
        self.channel.send({**answer, "result": result, "setting": self.sets, "loras": self.loras})

    def step(self, job: dict[str, Any]) -> None:
        request, prompt = job["request"], job["request"]["prompt"]
        time.sleep(job["pause"])
        if "DIE" in prompt:
            os._exit(3)
        if "OOM" in prompt or "FAULT" in prompt:
            self.fail(job, "out_of_memory" if "OOM" in prompt else "generation_failed", "a test asked for this error")
            return
        job["step"] += 1
        told = {"stage": "denoising", "step": job["step"], "steps": job["steps"], "elapsed_s": 0.1, "eta_s": 0.1}
        told |= {"event": "progress", "job": job["job"], "index": job["index"], "preview": None}
        self.channel.send(told, preview(job["step"]) if job["preview"] else b"")
        if job["step"] < job["steps"]:
            self.jobs.append(job)
            return
        count = request.get("num_outputs_per_prompt", 1)
        self.finish(job, request, last=job["index"] + 1 == count)
        if job["index"] + 1 < count:
            self.jobs.append({**job, "index": job["index"] + 1, "step": 0})

    def finish(self, job: dict[str, Any], request: dict[str, Any], last: bool) -> None:
        seeds = request["seed"]
        seed = seeds[job["index"]] if isinstance(seeds, list) else seeds + job["index"]
        loras = request.get("loras", job["loras"])
        colour = zlib.crc32(repr((seed, loras, request["prompt"])).encode()).to_bytes(4, "big")[:3]
        shape = (request.get("num_frames", 1), request["height"], request["width"], 3)
        path = self.scratch / f"{job['job']}-{job['index']}.raw"
        self.scratch.mkdir(exist_ok=True)
        np.broadcast_to(np.frombuffer(colour, np.uint8), shape).tofile(path)
        alone = {**request, "seed": seed, "num_outputs_per_prompt": 1}
        timings = {
            "total_ms": 1.0,
            "stages": [["denoising", 1.0]],
            "denoise_steps": [1.0],
            "memory": {},
            "peak_memory_mb": 10.0,
            "tokens": {"text": 3, "image": 0, "latents": 16},
        }
        told = {"event": "output", "job": job["job"], "index": job["index"], "last": last, "path": str(path)}
        recipe = {"sgdiff": 1, "request": alone, "engine": {"model": "null", "loras": loras}, "inputs": {}}
        self.channel.send({**told, "shape": shape, "recipe": recipe, "timings": timings})


def preview(step: int) -> bytes:
    """Return a picture that is another one at every step."""
    return media.jpeg_preview(np.full((16, 16, 3), 10 * step % 256, np.uint8))


def main(end: int) -> None:
    """Load at once, and serve."""
    channel = Channel(socket.socket(fileno=end))
    message = channel.receive()
    assert message is not None
    order = message[0]
    config = read(EngineConfig, order["config"])
    from engine.engine import spec_of

    try:
        _, spec = spec_of(config, env.read())
    except ModelError as error:
        told = {"code": error.code, "message": error.message, "param": error.param, "kind": "model"}
        channel.send({"event": "load_failed", "error": told})
        return
    null = Null(channel, Path(order["scratch"]))
    null.loras = order["loras"] or []
    described = {name: plain(getattr(spec, name)) for name in spec.__slots__}
    told = {"spec": described, "recipe": {"precisions": {"transformer": "fp32", "vae": "fp32"}}, "device": "cpu"}
    channel.send({"event": "loaded", **told, "exclusive": False, "loras": null.loras})
    channel.send({"event": "ready"})
    try:
        null.serve()
    except EOFError:
        return


if __name__ == "__main__":
    main(int(sys.argv[1]))
