"""Conformance over HTTP with a text-to-image model that really draws. Numbers are those of the contract's cases."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image

from sgdiff_app import cli
from tests.conformance.program import SMALL, Program, adapter, model, pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def program(folder: Path) -> Iterator[Program]:
    made = model("flux", folder)
    for name, seed in (("a", 1), ("b", 2), ("gone", 1)):
        adapter(folder / f"{name}.safetensors", seed, made)
    flags = ("--lora-path", str(folder / "a.safetensors"), "--lora-scale", "0.5", "--served-model-name", "tiny/flux")
    running = Program(folder / "server", made, *flags, SGDIFF_TEST_FAULT="oom@3")
    assert running.client.get("/liveness").status_code == 200  # case 1
    running.until_healthy()
    yield running
    assert running.stop() == 0


def difference(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def test_case_02_to_05_models(program: Program) -> None:
    (card,) = program.client.get("/v1/models").json()["data"]
    assert card["id"] == "tiny/flux"
    assert {"object", "num_gpus", "task_type", "dit_precision", "vae_precision"} <= card.keys()
    for path in ("/v1/models/tiny/flux", "/v1/models/tiny%2Fflux"):
        assert program.client.get(path).json() == card
    missing = program.client.get("/v1/models/nope")
    error = missing.json()["error"]
    assert missing.status_code == 404
    assert (error["code"], error["type"], error["param"]) == ("model_not_found", "invalid_request_error", "model")
    assert program.image(model=card["root"])["model"] == "tiny/flux"


def test_case_06_a_picture_through_the_sdk(program: Program) -> None:
    answer = program.sdk.images.generate(prompt="a boat", size="64x64", extra_body={"num_inference_steps": 2})  # type: ignore[call-overload]
    assert pixels(answer.data[0].b64_json).shape == (64, 64, 3)
    assert answer.data[0].url is None


def test_case_07_several_outputs_are_those_of_their_seeds(program: Program) -> None:
    answer = program.image(n=2, response_format="url")
    first, second = (entry["seed"] for entry in answer["data"])
    assert second == first + 1
    contents = [program.client.get(f"/v1/images/{answer['id']}/content?variant={i}").content for i in (0, 1)]
    assert contents[0] != contents[1]
    for seed, content in zip((first, second), contents, strict=True):
        alone = program.image(seed=seed, response_format="url")
        assert program.client.get(alone["data"][0]["url"]).content == content


def test_case_28_unmerge_merge_set_list(program: Program) -> None:
    assert program.post("/v1/unmerge_lora_weights").status_code == 200
    program.image()
    assert program.post("/v1/merge_lora_weights").status_code == 200
    program.image()
    assert program.post("/v1/set_lora", {"lora_nickname": "default"}).status_code == 200
    program.image()
    listed = program.client.get("/v1/list_loras").json()
    assert "default" in [entry["nickname"] for entry in listed["loaded_adapters"]]


def test_case_29_a_cached_adapter_needs_no_file(program: Program, folder: Path) -> None:
    gone = folder / "gone.safetensors"
    assert program.post("/v1/set_lora", {"lora_nickname": "g", "lora_path": str(gone)}).status_code == 200
    before = program.pixels()
    other = {"lora_nickname": "b", "lora_path": str(folder / "b.safetensors")}
    assert program.post("/v1/set_lora", other).status_code == 200
    assert difference(program.pixels(), before) > 0
    gone.unlink()
    assert program.post("/v1/set_lora", {"lora_nickname": "g"}).status_code == 200
    assert (program.pixels() == before).all()


def test_case_30_a_target_that_is_not_there_is_skipped(program: Program, folder: Path) -> None:
    body = {
        "lora_nickname": ["x", "y"],
        "lora_path": [str(folder / "a.safetensors"), str(folder / "b.safetensors")],
        "strength": [0.5, 0.5],
        "target": ["transformer", "transformer_2"],
    }
    answer = program.post("/v1/set_lora", body)
    assert answer.status_code == 200
    assert len(answer.json()["warnings"]) == 1


def test_case_31_the_weights_come_back_exactly(program: Program, folder: Path) -> None:
    program.post("/v1/unmerge_lora_weights")
    base = program.pixels()
    program.post("/v1/set_lora", {"lora_nickname": "b", "lora_path": str(folder / "b.safetensors")})
    assert difference(program.pixels(), base) >= 1
    program.post("/v1/unmerge_lora_weights")
    assert (program.pixels() == base).all()


def test_case_32_lists_of_unequal_length(program: Program) -> None:
    before = program.client.get("/v1/list_loras").json()
    answer = program.post("/v1/set_lora", {"lora_nickname": ["a", "b"], "strength": [1, 1, 1]})
    body = answer.json()
    assert answer.status_code == 400
    assert body["detail"] == body["error"]["message"]
    assert program.client.get("/v1/list_loras").json() == before


def test_case_35_partial_pictures_through_the_sdk(program: Program) -> None:
    stream = program.sdk.images.generate(
        prompt="a boat", size="64x64", stream=True, partial_images=2, extra_body={"num_inference_steps": 6, "seed": 7}
    )  # type: ignore[call-overload]
    events = list(stream)
    assert [event.type.rpartition(".")[2] for event in events] == ["partial_image", "partial_image", "completed"]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert events[2].usage.total_tokens > 0
    assert (pixels(events[2].b64_json) == program.pixels(num_inference_steps=6)).all()


def test_case_37_too_little_memory_fails_one_stream(program: Program) -> None:
    stream = program.sdk.images.generate(
        prompt="FAULT", size="64x64", stream=True, partial_images=1, extra_body={"num_inference_steps": 6}
    )  # type: ignore[call-overload]
    with pytest.raises(openai.APIError) as error:
        list(stream)
    assert error.value.code == "out_of_memory"
    program.image()


def test_case_48_adapters_of_one_request(program: Program, folder: Path) -> None:
    program.post("/v1/unmerge_lora_weights")
    path = str(folder / "b.safetensors")
    before = program.client.get("/v1/list_loras").json()["active"]
    first, own, third = (program.pixels(**fields) for fields in ({}, {"loras": [{"path": path, "name": "own"}]}, {}))
    assert (first == third).all()
    assert program.client.get("/v1/list_loras").json()["active"] == before
    program.post("/v1/set_lora", {"lora_nickname": "b", "lora_path": path})
    assert (program.pixels() == own).all()
    program.post("/v1/unmerge_lora_weights")


def test_case_56_what_runs_beside_changes_nothing(program: Program, folder: Path) -> None:
    own = [[{"path": str(folder / f"{name}.safetensors"), "name": name}] for name in "ab"]
    wanted: list[dict[str, Any]] = [{"num_inference_steps": 40}, {"seed": 5}, {"loras": own[0]}, {"loras": own[1]}]
    alone = [program.pixels(**fields) for fields in wanted]
    order: list[int] = []
    started = threading.Event()

    def draw(index: int) -> np.ndarray[Any, Any]:
        if index:
            started.wait()
        else:
            threading.Timer(0.2, started.set).start()
        drawn = program.pixels(**wanted[index])
        order.append(index)
        return drawn

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(draw, range(4)))
    assert all((one == other).all() for one, other in zip(together, alone, strict=True))
    assert order[-1] == 0, "the long one is not waited for"


def test_a_replay_draws_the_same(program: Program, folder: Path) -> None:
    """The same request from the command line, in this process: identical pixels."""
    program.post("/v1/unmerge_lora_weights")
    drawn = program.pixels()
    size = ["--size", str(SMALL["size"]), "--seed", str(SMALL["seed"]), "--num-inference-steps", "4"]
    out = folder / "cli.png"
    words = ["generate", "--model-path", str(folder / "flux"), "--prompt", "a boat", "--output-file-path", str(out)]
    assert cli.main([*words, *size]) == 0
    assert (np.asarray(Image.open(out)) == drawn).all()
