"""Fields of requests: names, types, limits and rules, from JSON and from forms alike."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import UploadFile

from engine import schema
from engine.errors import SgdiffError, UsageError
from engine.types import LoraRef, Request
from sgdiff_app.options import ServerOptions
from sgdiff_app.server.body import Body, Text
from sgdiff_app.server.errors import code_of
from sgdiff_app.server.fields import EDITS, GENERATIONS, IGNORED, VIDEOS, Door, read, renamed

DATA = Path("nowhere")


def asked(door: Door[Any] = GENERATIONS, **values: Any) -> tuple[Request, Any]:
    return read(door, Body({"prompt": "a fox", **values}), ServerOptions(), DATA)


def refusal(door: Door[Any] = GENERATIONS, **values: Any) -> tuple[str, str | None, str]:
    """The code, the field and the message of the error that a request meets."""
    with pytest.raises(SgdiffError) as caught:
        asked(door, **values)
    return code_of(caught.value), caught.value.param, caught.value.message


def test_a_prompt_alone() -> None:
    request, fields = asked()
    assert request == Request(prompt="a fox", embed_recipe=False)
    assert (fields.response_format, fields.output_format, fields.stream) == ("b64_json", "png", False)


def test_every_setting_of_a_request_has_the_same_name_here() -> None:
    values = {"steps": 3, "guidance_scale": 1, "output_format": "webp", "num_outputs": 2, "embed_recipe": True}
    request, _ = asked(**values)
    assert (request.num_inference_steps, request.guidance_scale, request.output_format) == (3, 1.0, "webp")
    assert (request.num_outputs_per_prompt, request.embed_recipe) == (2, True)


def test_a_form_says_the_same_as_json() -> None:
    typed = {
        "n": 2, "seed": [1, 2], "stream": True, "partial_images": 1, "true_cfg_scale": 2.5, "size": "64x32",
        "loras": [{"name": "a", "scale": 0.5}], "diffusers_kwargs": {"x": {"y": [1, True, "z", 0.5]}},
    }  # fmt: skip
    texts: dict[str, Any] = {
        "n": Text("2"), "seed": [Text("1"), Text("2")], "stream": Text("true"), "partial_images": Text("1"),
        "true_cfg_scale": Text("2.5"), "size": Text("64x32"), "loras": [{"name": Text("a"), "scale": Text("0.5")}],
        "diffusers_kwargs": {"x": {"y": [Text("1"), Text("true"), Text("z"), Text("0.5")]}},
    }  # fmt: skip
    assert asked(**texts) == asked(**typed)
    as_json = {"loras": Text('[{"name": "a", "scale": 0.5}]'), "seed": Text("[1, 2]")}
    assert asked(**{**texts, **as_json}) == asked(**typed)
    assert type(asked(prompt=Text("a"))[0].prompt) is str


@pytest.mark.parametrize(
    ("values", "code", "words"),
    [
        ({"n": 0}, "invalid_n", "n: must be at least 1, got 0"),
        ({"n": 11}, "invalid_n", "at most 10"),
        ({"num_outputs": 11}, "invalid_n", "num_outputs: must be at most 10"),
        ({"n": Text("x")}, "invalid_n", 'must be an integer, got "x"'),
        ({"n": "2"}, "invalid_n", "must be an integer"),
        ({"n": 2, "num_outputs": 2}, "invalid_n", "given twice"),
        ({"n": [Text("1"), Text("2")]}, "invalid_n", "must be an integer"),
        ({"prompt": ""}, "invalid_prompt", "at least 1 character"),
        ({"prompt": "x" * 32_001}, "invalid_prompt", "at most 32000 characters"),
        ({"prompt": 3}, "invalid_prompt", "must be a text"),
        ({"prompt": "\ud800"}, "invalid_prompt", "valid Unicode"),
        ({"response_format": "foo"}, "invalid_response_format", "one of b64_json, url"),
        ({"output_format": "gif"}, "invalid_output_format", "one of png, jpeg, webp"),
        ({"output_quality": "best"}, "invalid_output_quality", "default, low, medium, high, maximum"),
        ({"quality": "exact"}, "invalid_quality", "number of steps: one of auto, low"),
        ({"quality": "lossless"}, "invalid_quality", "rounding"),
        ({"quality": "best"}, "invalid_quality", "one of auto, low"),
        ({"partial_images": 4}, "invalid_partial_images", "at most 3"),
        ({"stream": Text("maybe")}, "invalid_stream", "true or false"),
        ({"guidance_scale": float("inf")}, "invalid_guidance_scale", "finite"),
        ({"guidance_scale": -1}, "invalid_guidance_scale", "at least 0"),
        ({"seed": 2**63}, "invalid_seed", "at most 9223372036854775807"),
        ({"num_inference_steps": 1001}, "invalid_num_inference_steps", "at most 1000"),
        ({"task_type": "T2X"}, "invalid_task_type", "T2I"),
        ({"background": "red"}, "invalid_background", "auto, opaque, transparent"),
        ({"loras": "x"}, "invalid_loras", "not JSON"),
        ({"loras": 3}, "invalid_loras", "must be a mapping"),
        ({"loras": [{"scale": 1.0}]}, "missing_parameter", "path of an adapter"),
        ({"loras": [{"name": "a", "scale": "x"}]}, "invalid_loras", "loras[0].scale: must be a number"),
        ({"loras": [{"name": "a", "nam": "x"}]}, "unknown_parameter", "nam"),
        ({"loras": [], "lora_path": "a"}, "invalid_loras", "excludes lora_path"),
        ({"diffusers_kwargs": [1]}, "invalid_diffusers_kwargs", "mapping"),
        ({"cache_dit_params": "{bad"}, "invalid_cache_dit_params", "not JSON"),
    ],
)  # fmt: skip
def test_wrong_values(values: dict[str, Any], code: str, words: str) -> None:
    found, param, message = refusal(**values)
    assert found == code
    assert words in message
    assert param is not None
    assert param == code.removeprefix("invalid_") or not code.startswith("invalid_")


def test_case_13_a_prompt_is_required() -> None:
    with pytest.raises(UsageError) as caught:
        read(GENERATIONS, Body({"n": 1}), ServerOptions(), DATA)
    assert (caught.value.code, caught.value.param) == ("missing_parameter", "prompt")


@pytest.mark.parametrize("size", ["0x10", "abc", "-1x5", "64", "64x", "x64", "64x64x64", "1.5x2", "６４x６４", " "])
def test_case_8_sizes_that_are_none(size: str) -> None:
    code, param, message = refusal(size=size)
    assert (code, param) == ("invalid_size", "size")
    assert f"WIDTHxHEIGHT with positive integers, got '{size}'" in message


def test_sizes() -> None:
    request, fields = asked(size="64x32")
    assert (request.width, request.height, fields.size) == (64, 32, "64x32")
    assert asked(size="auto")[0].width is None
    assert asked(size="64x32", width=64)[0].height == 32
    assert asked(width=64, height=32)[0].height == 32
    for values in ({"width": 32}, {"height": 64}):
        assert refusal(size="64x32", **values)[:2] == ("conflicting_size", "size")


def test_case_12_weights_are_named_by_what_is_no_url_and_no_path(tmp_path: Path) -> None:
    for path in ("http://host/x.pth", "/etc/passwd", "../x", "file:/x"):
        assert refusal(upscaling_model_path=path)[:2] == ("invalid_model_path", "upscaling_model_path")
    assert refusal(frame_interpolation_model_path="a://b")[0] == "invalid_model_path"
    assert refusal(upscaling_model_path="some/repo")[0] == "unsupported_parameter"


@pytest.mark.parametrize(
    "values",
    [
        {"enable_upscaling": True},  # case 18
        {"enable_frame_interpolation": True},
        {"cache_dit_params": {"nope": 1}},  # case 16
        {"enable_cache_dit": True},
        {"enable_teacache": True},
        {"cfg_gate_step": 0.5},
        {"attention_backend_override": "fa"},
    ],
)
def test_what_is_not_built_yet(values: dict[str, Any]) -> None:
    code, param, message = refusal(**values)
    assert (code, param) == ("unsupported_parameter", *values)
    assert "not available yet" in message


def test_what_is_not_built_yet_may_be_given_as_it_is_without_it() -> None:
    asked(enable_upscaling=False, upscaling_scale=4, enable_cache_dit=False, cfg_gate_step=1.0)
    assert refusal(upscaling_scale=9)[0] == "invalid_upscaling_scale"


def test_case_54_names() -> None:
    asked(**{name: {"any": "thing"} for name in IGNORED})
    code, param, message = refusal(num_inference_step=3)
    assert (code, param) == ("unknown_parameter", "num_inference_step")
    assert "did you mean 'num_inference_steps'?" in message
    for name in ("markup", "frame_count", "progressive_mode", "enhance_prompt"):
        assert refusal(**{name: 1})[:2] == ("unsupported_parameter", name)
    assert refusal(**{"x" * 5000: 1})[2].count("x") < 100


@pytest.mark.parametrize("name", ["output_path", "output_file_path", "video_path", "perf_dump_path", "image_path"])
def test_case_55_paths_of_the_server(name: str) -> None:
    assert refusal(**{name: "x"})[:2] == ("parameter_not_allowed", name)


def test_profiling_needs_leave() -> None:
    assert refusal(profile=True)[:2] == ("parameter_not_allowed", "profile")
    assert refusal(num_profiled_timesteps=3)[0] == "parameter_not_allowed"
    asked(profile=False)
    options = ServerOptions(enable_profile_api=True)
    with pytest.raises(UsageError, match="not available yet"):
        read(GENERATIONS, Body({"prompt": "a", "profile": True}), options, DATA)


def test_adapters(tmp_path: Path) -> None:
    assert asked(loras=[])[0].loras == ()
    assert asked()[0].loras is None
    short = {"lora_path": "some/repo", "lora_nickname": "a", "lora_scale": 0.5}
    assert asked(**short)[0].loras == (LoraRef(name="a", path="some/repo", scale=0.5),)
    assert asked(lora_nickname="a")[0].loras == (LoraRef(name="a"),)
    options = ServerOptions(lora_allowed_dirs=(str(tmp_path / "loras"),))
    for values in ({"loras": [{"path": str(tmp_path / "x.safetensors")}]}, {"lora_path": str(tmp_path)}):
        with pytest.raises(SgdiffError) as caught:
            read(GENERATIONS, Body({"prompt": "a", **values}), options, DATA)
        assert caught.value.code == "invalid_lora_path"


def test_edits() -> None:
    _, fields = asked(EDITS, image="data:a", url=["data:b", "data:c"], mask={"image_url": "data:d"})
    assert (fields.image, fields.url, fields.mask) == (("data:a",), ("data:b", "data:c"), {"image_url": "data:d"})
    _, fields = asked(EDITS, images=[{"image_url": "data:a"}, "data:b"])
    assert fields.image == ({"image_url": "data:a"}, "data:b")
    assert refusal(EDITS, image=3)[:2] == ("invalid_image", "image")
    assert refusal(EDITS, url=["data:a"] * 17)[:2] == ("too_many_images", "url")
    code, _, message = refusal(image="data:a")
    assert code == "unknown_parameter"
    assert "/v1/images/edits" in message


@pytest.mark.parametrize(
    ("door", "name", "places"),
    [
        (VIDEOS, "response_format", "/v1/images/generations and /v1/images/edits"),
        (VIDEOS, "stream", "/v1/images/generations and /v1/images/edits"),
        (VIDEOS, "mask", "/v1/images/edits"),
        (GENERATIONS, "strength", "/v1/images/edits and /v1/videos"),
        (GENERATIONS, "images", "/v1/images/edits"),
        (EDITS, "input_reference", "/v1/videos"),
    ],
)
def test_a_field_of_other_routes(door: Door[Any], name: str, places: str) -> None:
    message = f"{name}: a field of {places}, not of this route"
    assert refusal(door, **{name: "x"}) == ("unknown_parameter", name, message)


@pytest.mark.parametrize(
    ("values", "code", "param"),
    [
        ({"seed": [1] * 11}, "invalid_seed", "seed"),
        ({"seed": Text(str([1] * 11))}, "invalid_seed", "seed"),
        ({"seed": [Text("1")] * 11}, "invalid_seed", "seed"),
        ({"loras": [{"name": "a"}] * 17}, "invalid_loras", "loras"),
        ({"images": ["data:a"] * 17}, "too_many_images", "image"),
        ({"image": ["data:a"] * 17}, "too_many_images", "image"),
        ({"url": ["data:a"] * 17}, "too_many_images", "url"),
    ],
)
def test_long_lists_are_not_looked_at(
    values: dict[str, Any], code: str, param: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sgdiff_app.server.fields.schema.check", lambda *_: pytest.fail("looked at"))
    with pytest.raises(SgdiffError, match=r"must have at most 1[06] entries, got 1[17]") as caught:
        read(EDITS, Body(values), ServerOptions(), DATA)
    assert (code_of(caught.value), caught.value.param) == (code, param)


@pytest.mark.parametrize(
    ("entry", "code", "words"),
    [
        ({"name": "a" * 65}, "invalid_loras", "loras: name: must have 1 to 64 characters"),
        ({"path": ""}, "invalid_loras", "loras: path: must not be empty"),
        ({"name": "a", "alpha": 3}, "missing_parameter", "loras: path: 'a' needs its path too"),
        ({"name": "a", "scale": 1e7}, "invalid_loras", "loras: scale: must be from"),
        ({"name": "a", "target": "x"}, "invalid_lora_target", "loras: must be one of all"),
        ({"path": "/x.safetensors"}, "invalid_lora_path", ""),
    ],
)
def test_errors_of_adapters_in_the_list_name_it(entry: dict[str, Any], code: str, words: str) -> None:
    options = ServerOptions(lora_allowed_dirs=("loras",))
    with pytest.raises(SgdiffError) as caught:
        read(GENERATIONS, Body({"prompt": "a", "loras": [entry]}), options, DATA)
    assert (code_of(caught.value), caught.value.param) == (code, "loras")
    assert caught.value.message.startswith(words)


def test_errors_of_the_short_form_of_an_adapter_name_its_fields() -> None:
    assert refusal(lora_nickname="a" * 65)[:2] == ("invalid_lora_nickname", "lora_nickname")
    assert refusal(lora_nickname="a", lora_scale=1e7)[:2] == ("invalid_lora_scale", "lora_scale")


def test_the_top_level_wins_over_a_wrapper_under_whatever_name() -> None:
    body = Body({"prompt": "a", "n": 1, "num_outputs": 2}, wrapped=frozenset({"num_outputs"}))
    assert read(GENERATIONS, body, ServerOptions(), DATA)[0].num_outputs_per_prompt == 1
    assert refusal(n=1, num_outputs=2)[1] == "n"


def test_files_belong_to_some_fields_alone() -> None:
    upload = [UploadFile(io.BytesIO(b"1"))]
    read(EDITS, Body({"prompt": "a"}, {"image": upload, "mask": upload}), ServerOptions(), DATA)
    for name, code in (("prompt", "invalid_prompt"), ("nope", "unknown_parameter"), ("image", "unknown_parameter")):
        with pytest.raises(SgdiffError) as caught:
            read(GENERATIONS, Body({"prompt": "a"}, {name: upload}), ServerOptions(), DATA)
        assert caught.value.code == code


def test_videos() -> None:
    request, fields = asked(VIDEOS, seconds="4", num_frames=5, fps=Text("8"), reference_url="http://host/a.png")
    assert (request.num_frames, request.fps, fields.seconds, fields.reference_url) == (5, 8, "4", "http://host/a.png")
    assert asked(VIDEOS, seconds=4)[1].seconds == 4
    assert refusal(VIDEOS, response_format="url")[0] == "unknown_parameter"
    assert refusal(VIDEOS, output_format="gif")[0] == "unsupported_parameter"
    for door in (GENERATIONS, EDITS):
        code, param, message = refusal(door, x264_preset="fast")
        assert (code, param, message) == ("unsupported_parameter", "x264_preset", "x264_preset: not offered here")
    assert asked(VIDEOS, x264_preset="fast")[0].x264_preset == "fast"


@pytest.mark.parametrize(
    ("seconds", "got"),
    [
        ("0", '"0"'), ("-1", '"-1"'), ("1.5", '"1.5"'), ("four", '"four"'), ("", '""'), ("4\n", r'"4\n"'), (0, "0"),
        (1.5, "1.5"), (True, "true"), ([4], "[4]"), (1_000_000, "1000000"), (Text("1000000"), '"1000000"'),
        (10**300, f"1{'0' * 76}..."),
    ],
)  # fmt: skip
def test_a_length_that_cannot_be_is_refused_with_those_that_can(seconds: Any, got: str) -> None:
    message = f"seconds: must be an integer from 1 to 999999, got {got}"
    assert refusal(VIDEOS, seconds=seconds) == ("invalid_seconds", "seconds", message)


@pytest.mark.parametrize("seconds", [1, 999_999, "999999", Text("1"), None])
def test_a_length_at_either_end_is_taken(seconds: Any) -> None:
    assert asked(VIDEOS, seconds=seconds)[1].seconds == seconds


def test_errors_of_the_engine_speak_of_the_fields_of_the_request() -> None:
    error = UsageError("image_path: at most one", code="too_many_images", param="image_path")
    for door, name in ((EDITS, "image"), (VIDEOS, "input_reference")):
        found = renamed(door, error)
        assert (found.message, found.code, found.param) == (f"{name}: at most one", "too_many_images", name)
    error = UsageError("strength: needs image_path", code="missing_parameter", param="image_path")
    assert renamed(GENERATIONS, error).message == "strength: needs image"
    other = renamed(EDITS, UsageError("seed: no", param="seed"))
    assert (other.message, other.param) == ("seed: no", "seed")


def test_no_field_is_described_twice_with_other_types() -> None:
    """A field of HTTP with the name of one of Request narrows it."""
    for door in (GENERATIONS, EDITS, VIDEOS):
        both = schema.fields(door.fields).keys() & schema.fields(Request).keys()
        assert both <= {"output_format"}
