"""Images over HTTP: answers, what is refused before anything is drawn, clients that leave, requests sent twice."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError

from engine import media
from tests.sgdiff_app.server.conftest import Sdk, Starter
from tests.sgdiff_app.server.pictures import SMALL, changed, data_uri, decoded, error_of, picture
from tests.sgdiff_app.server.serving import Running, Server

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with a model that draws over up to three images, and nothing else."""
    flags = ("--model-path", "Qwen/Qwen-Image-Edit-2509", "--load-format", "dummy", "--offline")
    with Server(*flags, folder=tmp_path_factory.mktemp("editor")) as running:
        yield running


def draw(server: Running, **values: Any) -> dict[str, Any]:
    response = server.client.post(GENERATIONS, json={**SMALL, **values})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def refused(server: Running, status: int = 400, **values: Any) -> dict[str, Any]:
    before = jobs(server)
    error = error_of(server.client.post(GENERATIONS, json={**SMALL, **values}), status)
    assert jobs(server) == before
    return error


def jobs(server: Running) -> list[str]:
    return [job.id for job in server.service.queue.page(limit=100)[0]]


def wait_for(condition: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_case_6_through_the_official_client(server: Running, sdk: Sdk) -> None:
    answer = sdk(server).images.generate(prompt="a fox", size="64x64")  # type: ignore[call-overload]
    assert decoded(answer.data[0].model_dump()).size == (64, 64)
    assert answer.data[0].url is None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


def test_an_answer_says_everything(server: Running) -> None:
    answer = draw(server, n=2)
    assert set(answer) == {
        "id", "created", "model", "data", "size", "output_format", "quality", "background", "usage",
        "inference_time_s", "queue_time_s", "peak_memory_mb",
    }  # fmt: skip
    assert answer["id"].startswith("img_")
    assert answer["model"] == "tiny-scenes"
    assert [set(entry) for entry in answer["data"]] == [{"b64_json", "url", "revised_prompt", "seed"}] * 2
    shown = {name: answer[name] for name in ("size", "output_format", "quality", "background")}
    assert shown == {"size": "64x64", "output_format": "png", "quality": "high", "background": "opaque"}
    assert answer["usage"] == {  # the prompt is read once, each output drawn
        "input_tokens": 3, "output_tokens": 32, "total_tokens": 35,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": 3},
    }  # fmt: skip
    assert abs(answer["created"] - time.time()) < 60
    assert draw(server, quality="standard")["quality"] == "medium"


def test_the_top_level_wins_over_a_wrapper_under_another_name(server: Running) -> None:
    wrapped = {"num_outputs": 2, "steps": 3}
    answer = draw(server, n=1, num_inference_steps=1, extra_body=wrapped)
    assert len(answer["data"]) == 1
    assert server.service.queue.get(answer["id"]).request.num_inference_steps == 1
    assert len(draw(server, extra_body=wrapped)["data"]) == 2


@pytest.mark.parametrize(("fmt", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_formats(server: Running, fmt: str, kind: str) -> None:
    answer = draw(server, output_format=fmt)
    assert decoded(answer["data"][0]).format == kind
    assert answer["output_format"] == fmt


def test_case_7_several_outputs(server: Running) -> None:
    answer = draw(server, n=2, response_format="url")
    urls = [entry["url"] for entry in answer["data"]]
    assert urls == [f"/v1/images/{answer['id']}/content?variant={i}" for i in range(2)]
    assert [entry["seed"] for entry in answer["data"]] == [7, 8]
    files = [server.client.get(url).content for url in urls]
    assert files[0] != files[1]
    for seed, file in zip((7, 8), files, strict=True):
        alone = draw(server, seed=seed, response_format="url")["data"][0]["url"]
        assert "variant" not in alone
        assert server.client.get(alone).content == file
    assert [entry["seed"] for entry in draw(server, n=2, seed=[5, 3])["data"]] == [5, 3]


@pytest.mark.parametrize(
    ("values", "param", "code"),
    [
        ({"size": "0x10"}, "size", "invalid_size"),
        ({"size": "abc"}, "size", "invalid_size"),
        ({"size": "-1x5"}, "size", "invalid_size"),
        ({"size": "4096x4096"}, "size", "invalid_size"),
        ({"response_format": "foo"}, "response_format", "invalid_response_format"),
        ({"output_quality": "best"}, "output_quality", "invalid_output_quality"),
        ({"upscaling_model_path": "http://host/x"}, "upscaling_model_path", "invalid_model_path"),
        ({"prompt": None}, "prompt", "missing_parameter"),
        ({"n": 2, "seed": [1]}, "seed", "invalid_seed"),
        ({"num_inference_step": 2}, "num_inference_step", "unknown_parameter"),
        ({"output_path": "x"}, "output_path", "parameter_not_allowed"),
        ({"enable_upscaling": True}, "enable_upscaling", "unsupported_parameter"),
        ({"num_frames": 5}, "num_frames", "unsupported_parameter"),
        ({"diffusers_kwargs": {"a": 1}}, "diffusers_kwargs", "unsupported_parameter"),
        ({"task_type": "T2V"}, "task_type", "unsupported_task"),
        ({"background": "transparent"}, "background", "invalid_background"),
        ({"partial_images": 1}, "partial_images", "invalid_partial_images"),
        ({"stream": True, "response_format": "url"}, "response_format", "invalid_response_format"),
        ({"strength": 0.5}, "strength", "unknown_parameter"),
        ({"generator_device": "cuda"}, "generator_device", "invalid_generator_device"),
    ],
)
def test_cases_8_to_13_54_55_nothing_runs(server: Running, values: dict[str, Any], param: str, code: str) -> None:
    error = refused(server, **values)
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")


def test_models(server: Running) -> None:
    error = refused(server, 404, model="nope")
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    assert draw(server, model="tiny-scenes")["model"] == "tiny-scenes"


def test_case_38_the_official_client_reads_errors(server: Running, caplog: pytest.LogCaptureFixture, sdk: Sdk) -> None:
    with caplog.at_level("INFO"), pytest.raises(BadRequestError) as caught:
        sdk(server).images.generate(prompt="a fox", size="0x10")  # type: ignore[call-overload]
    assert (caught.value.param, caught.value.code) == ("size", "invalid_size")
    assert caught.value.request_id
    wait_for(lambda: str(caught.value.request_id) in caplog.text)


def test_case_47_extra_fields_of_the_official_client(server: Running, sdk: Sdk) -> None:
    client, image = sdk(server), ("a.png", picture())
    extra: dict[str, Any] = {"loras": [{"path": "neon-night", "scale": 0.5}, {"path": "pixel-art", "scale": 1}]}
    nested = {**extra, "seed": [3], "extra_params": {"num_inference_steps": 2}}
    answer = client.images.edit(image=image, prompt="a fox", extra_body=nested)
    job = server.service.queue.get(answer.id)  # type: ignore[attr-defined]
    assert [(ref.path, ref.scale) for ref in job.request.loras] == [("neon-night", 0.5), ("pixel-art", 1.0)]
    assert (job.request.num_inference_steps, job.request.seed) == (2, (3,))
    unequal = {"loras": [{"path": "neon-night", "scale": 0.5}, {"path": "pixel-art"}]}
    with pytest.raises(BadRequestError, match="differ in length"):
        client.images.edit(image=image, prompt="a fox", extra_body=unequal)


def test_variations_name_what_to_use(server: Running, sdk: Sdk) -> None:
    client = sdk(server)
    with (
        pytest.warns(DeprecationWarning, match="create_variation|deprecated"),
        pytest.raises(NotFoundError, match="/v1/images/edits") as caught,
    ):
        client.images.create_variation(image=("a.png", picture()))
    assert caught.value.code == "unsupported_endpoint"


def test_cases_14_and_15_one_image_or_several(editor: Running, sdk: Sdk) -> None:
    client = sdk(editor)
    for images in (("a.png", picture((80, 64))), [("a.png", picture()), ("b.png", picture((80, 64)))]):
        answer = client.images.edit(image=images, prompt="a fox", size="64x64")  # type: ignore[call-overload]
        assert decoded(answer.data[0].model_dump()).size == (64, 64)
        job = editor.service.queue.get(answer.id)
        assert job.kind == "edit"
        assert len(job.request.image_path) == (len(images) if isinstance(images, list) else 1)


def test_files_come_before_urls(editor: Running) -> None:
    urls = [data_uri(picture((65, 64))), data_uri(picture((66, 64)))]
    files = [("url[]", (None, uri.encode())) for uri in urls] + [("image", ("a.png", picture((67, 64))))]
    answer = editor.client.post(EDITS, data={"prompt": "a fox", "size": "64x64"}, files=files).json()
    paths = editor.service.queue.get(answer["id"]).request.image_path
    assert [media.image_size(path)[0] for path in paths] == [67, 65, 66]


def test_an_edit_without_a_size_has_the_shape_of_its_image(server: Running) -> None:
    body = {"prompt": "a fox", "image": data_uri(picture((128, 64)))}
    answer = server.client.post(EDITS, json=body).json()
    width, height = (int(side) for side in answer["size"].split("x"))
    assert 1.8 < width / height < 2.2
    assert width * height <= 256 * 256


def test_what_models_cannot_do(server: Running, editor: Running, start: Starter) -> None:
    image = data_uri(picture())
    assert refused(editor)["code"] == "unsupported_task"
    assert "/v1/images/edits" in refused(editor)["message"]
    many = error_of(editor.client.post(EDITS, json={"prompt": "a", "image": [image] * 4}))
    assert (many["code"], many["param"]) == ("too_many_images", "image")
    assert error_of(editor.client.post(EDITS, json={"prompt": "a", "image": image, "mask": image}))["code"] == (
        "mask_not_supported"
    )
    none = error_of(server.client.post(EDITS, json={"prompt": "a"}))
    assert (none["code"], none["param"]) == ("missing_parameter", "image")
    film = start("--model-path", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "--load-format", "dummy", "--offline")
    for route, body in ((GENERATIONS, {}), (EDITS, {"image": image})):
        error = error_of(film.client.post(route, json={"prompt": "a", **body}))
        assert error["code"] == "unsupported_task"
        assert "/v1/videos" in error["message"]


def test_masks(server: Running) -> None:
    image, body = data_uri(picture()), {"prompt": "a fox", "size": "64x64"}
    mask = data_uri(picture(mode="L"))
    answer = server.client.post(EDITS, json={**body, "image": image, "mask": mask, "strength": 0.9})
    job = server.service.queue.get(answer.json()["id"])
    assert job.request.mask_path in job.inputs
    error = error_of(server.client.post(EDITS, json={**body, "image": image, "mask": data_uri(picture((32, 32)))}))
    assert error["param"] == "mask"
    assert error["message"] == "mask: is 32x32, but the image is 64x64"


def test_case_48_adapters_of_one_request(server: Running) -> None:
    plain, changed = draw(server), draw(server, loras=[{"path": "neon-night"}])
    assert changed["data"] != plain["data"]
    assert draw(server)["data"] == plain["data"]


@pytest.mark.parametrize(("word", "code"), [("FAULT", "generation_failed"), ("OOM", "out_of_memory")])
def test_failures_are_not_to_be_tried_again(server: Running, word: str, code: str) -> None:
    response = server.client.post(GENERATIONS, json={**SMALL, "prompt": word})
    assert error_of(response, 500)["code"] == code
    assert response.headers["x-should-retry"] == "false"
    draw(server)


def test_case_10_without_a_place_for_outputs(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    delivery = server.service.queue.delivery
    monkeypatch.setattr(delivery, "folder", None)
    error = refused(server, response_format="url")
    assert (error["code"], error["param"]) == ("storage_disabled", "response_format")
    answer = draw(server, n=2)
    assert decoded(answer["data"][1]).size == (64, 64)
    assert error_of(server.client.get(f"/v1/images/{answer['id']}/content"), 404)["code"] == "content_not_stored"
    assert list(delivery.scratch.rglob("*.png")) == []


def test_absolute_urls(server: Running) -> None:
    with changed(server, public_base_url="https://pictures.example/api/"):
        answer = draw(server, response_format="url")
    assert answer["data"][0]["url"] == f"https://pictures.example/api/v1/images/{answer['id']}/content"


def leave(server: Running, prompt: str, **values: Any) -> str:
    """Send a request, wait until it has its job, close the connection; return the job's id."""
    import json

    before = set(jobs(server))
    body = json.dumps({**SMALL, "prompt": prompt, **values}).encode()
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        head = f"POST {GENERATIONS} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_for(lambda: bool(set(jobs(server)) - before))
    return (set(jobs(server)) - before).pop()


def test_a_client_that_leaves_ends_its_request(server: Running) -> None:
    queue = server.service.queue
    job = leave(server, "slow", num_inference_steps=20)
    wait_for(lambda: queue.get(job).status == "cancelled", 2)
    assert not queue.running


def test_case_52_the_same_key_twice(server: Running) -> None:
    def ask(key: str, **values: Any) -> Any:
        return server.client.post(GENERATIONS, json={**SMALL, **values}, headers={"idempotency-key": key})

    first, count = ask("a").json(), len(jobs(server))
    again = ask("a").json()
    assert (again["id"], again["data"]) == (first["id"], first["data"])
    assert ask("a", response_format="b64_json").status_code == 400
    error = error_of(ask("a", seed=8))
    assert error["code"] == "idempotency_mismatch"
    assert len(jobs(server)) == count
    assert ask("b").json()["id"] != first["id"]


def test_a_first_answer_whose_file_is_gone(server: Running) -> None:
    for number, values in enumerate(({}, {"stream": True})):
        ask = {"json": {**SMALL, **values}, "headers": {"idempotency-key": f"gone-{number}"}}
        server.client.post(GENERATIONS, **ask)
        job = server.service.queue.page(limit=1)[0][0]
        Path(job.artifacts[0].location).unlink()
        answer = server.client.post(GENERATIONS, **ask)
        assert '"code":"content_not_stored"' in answer.text.replace(" ", "")
        assert str(server.service.queue.delivery.folder) not in answer.text


def test_the_same_key_while_the_first_request_runs(server: Running) -> None:
    answers: list[dict[str, Any]] = []

    def ask() -> None:
        body, headers = {**SMALL, "prompt": "slow", "num_inference_steps": 6}, {"idempotency-key": "slow"}
        answers.append(server.client.post(GENERATIONS, json=body, headers=headers).json())

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer["id"] for answer in answers}) == 1
    assert all(answer["data"] == answers[0]["data"] for answer in answers)


def test_a_key_is_free_again_when_nothing_came_of_it(server: Running) -> None:
    headers = {"idempotency-key": "c"}
    for _ in range(2):
        bad = {**SMALL, "seed": [1, 2]}
        assert error_of(server.client.post(GENERATIONS, json=bad, headers=headers))["code"] == "invalid_seed"
    assert server.client.post(GENERATIONS, json=SMALL, headers=headers).status_code == 200
    headers = {"idempotency-key": "d"}
    failed = {**SMALL, "prompt": "FAULT"}
    assert error_of(server.client.post(GENERATIONS, json=failed, headers=headers), 500)
    assert server.client.post(GENERATIONS, json=SMALL, headers=headers).status_code == 200


def test_a_full_queue(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    queue, before = server.service.queue, len(jobs(server))
    monkeypatch.setattr(queue, "options", replace(queue.options, max_running=1, max_queue=1))
    body = {**SMALL, "prompt": "slow", "num_inference_steps": 10}
    waiting = [threading.Thread(target=server.client.post, args=(GENERATIONS,), kwargs={"json": body}) for _ in "12"]
    for number, thread in enumerate(waiting, 1):
        thread.start()
        wait_for(lambda number=number: len(jobs(server)) == before + number)  # type: ignore[misc]
    response = server.client.post(GENERATIONS, json=SMALL)
    assert error_of(response, 429)["code"] == "queue_full"
    assert 1 <= int(response.headers["retry-after"]) <= 120
    for thread in waiting:
        thread.join()
