"""Whatever is dropped gives its settings, or says what could be read; nothing of a stranger's reaches our files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from engine import hub, media, settings_text
from engine.errors import UsageError
from engine.types import Request
from tests.engine.test_comfy import CLASSIC
from tests.engine.test_infotext import FOREIGN

REQUEST: dict[str, Any] = {
    "prompt": "ein Boot, rot",
    "negative_prompt": "Nebel",
    "seed": 5,
    "num_inference_steps": 20,
    "guidance_scale": 3.5,
    "width": 48,
    "height": 32,
}
RECIPE: dict[str, Any] = {
    "sgdiff": 1,
    "request": REQUEST,
    "engine": {
        "model": "tiny-scenes", "model_path": "tiny-scenes", "folder_hash": "ab" * 32, "overrides": {}, "settings": {},
        "precisions": {}, "loras": [{"path": "neon-night", "scale": 0.5, "sha256": "cd" * 32}],
        "attention_backend": "sdpa", "device": "cpu", "versions": {"sgdiff-app": "0.1.0"},
    },
    "inputs": {"image_path": ["00ff"]},
}  # fmt: skip


def drawn(path: Path, fmt: str) -> Path:
    frames = np.zeros((2 if fmt in ("gif", "mp4") else 1, 32, 48, 3), np.uint8)
    media.encode(frames, path, fmt, Request(), RECIPE)
    return path


def picture(path: Path, **texts: str) -> Path:
    info = PngInfo()
    for name, text in texts.items():
        info.add_itxt(name, text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


@pytest.mark.parametrize("fmt", ["png", "jpeg", "webp", "gif", "mp4"])
def test_our_own_files(fmt: str, tmp_path: Path) -> None:
    found = settings_text.of_file(drawn(tmp_path / f"x.{fmt}", fmt))
    lora = {"name": "lora_1", "path": "neon-night", "scale": 0.5, "target": "all"}
    assert found.request == {**REQUEST, "loras": [lora]}
    assert (found.source, found.model) == ("sgdiff-app", "tiny-scenes")
    assert found.ignored == ("image_path: give it again; a recipe holds no pictures",)


def test_the_text_that_we_write_for_others_says_the_same() -> None:
    found = settings_text.of_text(media.parameters_text(RECIPE))
    assert found.request == REQUEST
    assert (found.source, found.model, found.ignored) == ("sgdiff-app", "tiny-scenes", ())


def test_infotext_in_a_picture_and_pasted(tmp_path: Path) -> None:
    pasted = settings_text.of_text(FOREIGN)
    assert settings_text.of_file(picture(tmp_path / "a.png", parameters=FOREIGN)) == pasted
    assert (pasted.source, pasted.request["seed"], pasted.request["width"]) == ("AUTOMATIC1111", 1234, 512)
    assert "LoRA ink, strength 0.7: not here" in pasted.ignored


@pytest.mark.parametrize("fmt", ["jpeg", "webp"])
def test_infotext_in_exif(fmt: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + FOREIGN.encode("utf-16-be")
    Image.new("RGB", (8, 8)).save(tmp_path / "x", fmt, exif=exif)
    assert settings_text.of_file(tmp_path / "x") == settings_text.of_text(FOREIGN)


def test_an_adapter_that_is_here_comes_along() -> None:
    name = sorted(hub.bundled_loras())[0]
    found = settings_text.of_text(f"x <lora:{name}:0.25>\nSteps: 3")
    assert found.request["loras"] == [{"name": name, "path": name, "scale": 0.25, "target": "all"}]
    assert (found.request["prompt"], found.ignored) == ("x", ())


def test_other_programs(tmp_path: Path) -> None:
    comfy = settings_text.of_file(picture(tmp_path / "c.png", prompt=json.dumps(CLASSIC), workflow="{}"))
    assert (comfy.source, comfy.model, comfy.request["prompt"]) == ("ComfyUI", "dream", "a red boat")
    invoke = {"positive_prompt": "owl", "steps": 9, "cfg_scale": 4, "seed": 3, "width": 64, "scheduler": "euler"}
    invoke["model"] = {"name": "sdxl", "hash": "x"}
    told = settings_text.of_file(picture(tmp_path / "i.png", invokeai_metadata=json.dumps(invoke)))
    assert (told.source, told.model, told.ignored) == ("InvokeAI", "sdxl", ("scheduler: euler",))
    assert told.request == {"prompt": "owl", "num_inference_steps": 9, "guidance_scale": 4.0, "seed": 3, "width": 64}
    swarm = {"sui_image_params": {"prompt": "owl", "negativeprompt": "fog", "cfgscale": 7.5, "model": "m", "seed": -1}}
    told = settings_text.of_file(picture(tmp_path / "s.png", parameters=json.dumps(swarm)))
    assert (told.source, told.model) == ("SwarmUI", "m")
    assert told.request == {"prompt": "owl", "negative_prompt": "fog", "guidance_scale": 7.5}
    fooocus = {"prompt": "owl", "resolution": "(896, 1152)", "steps": 30, "base_model": "jugger", "sharpness": 2.0}
    told = settings_text.of_text(json.dumps(fooocus))
    assert (told.source, told.model, told.ignored) == ("Fooocus", "jugger", ("sharpness: 2.0",))
    assert (told.request["width"], told.request["height"]) == (896, 1152)


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_config_files(suffix: str, tmp_path: Path) -> None:
    given = {"model_path": "org/model", "prompt": "a boat", "num-inference-steps": 6, "n": 2, "num_gpus": 4}
    lines = "\n".join(f"{name}: {value}" for name, value in given.items())
    path = tmp_path / f"x.{suffix}"
    path.write_text(json.dumps(given) if suffix == "json" else lines, encoding="utf-8")
    found = settings_text.of_file(path)
    assert found.request == {"prompt": "a boat", "num_inference_steps": 6, "num_outputs_per_prompt": 2}
    assert (found.model, found.ignored) == ("org/model", ("num_gpus: 4",))


def test_a_wrong_value_is_left_out_and_told() -> None:
    found = settings_text.of_text('{"prompt": "x", "steps": 0, "output_format": "tiff"}')
    assert found.request == {"prompt": "x"}
    assert found.ignored == (
        "num_inference_steps: must be at least 1, got 0",
        'output_format: must be one of png, jpeg, webp, mp4, gif, got "tiff"',
    )


@pytest.mark.parametrize(
    "text",
    [
        '{{"prompt": "cat", "seed": {}, "width": null}}',
        "prompt: cat\nseed: {}\nwidth: null",
        "cat\nSteps: 20, Seed: {}, CFG scale: nan",
        (
            '{{"3": {{"class_type": "KSampler", "inputs": {{"seed": {}, "positive": ["6", 0]}}}},'
            ' "6": {{"class_type": "CLIPTextEncode", "inputs": {{"text": "cat"}}}}}}'
        ),
    ],
)
def test_a_seed_of_thousands_of_digits_is_left_out_by_name_and_the_rest_stays(text: str) -> None:
    found = settings_text.of_text(text.format("7" * 5000))
    assert found.request["prompt"] == "cat" and not {"seed", "width", "guidance_scale"} & set(found.request)
    (line,) = (line for line in found.ignored if line.startswith("seed:"))
    assert line.startswith(f"seed: must be at most {2**63 - 1}, got 777")
    assert all("Exceeds" not in line for line in found.ignored)


def test_an_adapter_that_a_recipe_names_badly_is_left_out_alone() -> None:
    good, digest = RECIPE["engine"]["loras"][0], {"sha256": "cd" * 32}
    bad: list[Any] = [
        digest, {"path": "/srv/x.safetensors", **digest}, {"name": "n", "path": "neon-night", **digest}, "neon-night",
        {"path": "neon-night", "scale": "strong", **digest},
    ]  # fmt: skip
    engine = {**RECIPE["engine"], "loras": [*bad, good]}
    found = settings_text.of_text(json.dumps({**RECIPE, "engine": engine}))
    assert found.request["prompt"] == REQUEST["prompt"] and found.request["seed"] == 5
    assert [(entry["path"], entry["scale"]) for entry in found.request["loras"]] == [("neon-night", 0.5)]
    told = [line for line in found.ignored if line.startswith("LoRA ")]
    assert len(told) == 5
    assert "LoRA 1: left out; recipe: is damaged: engine.loras must list mappings with path and sha256" in told
    assert any("names a LoRA by a path, '/srv/x.safetensors'" in line for line in told)
    assert any('scale: must be a number, got "strong"' in line for line in told)
    none = settings_text.of_text(json.dumps({**RECIPE, "engine": {**engine, "loras": bad}}))
    assert none.request["loras"] == []  # and not those of the server


def test_an_adapter_that_settings_name_badly_is_left_out_alone() -> None:
    given = {"prompt": "x", "loras": [{"path": "/srv/a"}, {"path": "neon-night", "scale": 0.5}, {"path": 3}]}
    found = settings_text.of_text(json.dumps(given))
    assert [(entry["path"], entry["scale"]) for entry in found.request["loras"]] == [("neon-night", 0.5)]
    assert [line.partition(":")[0] for line in found.ignored] == ["loras", "loras[0].path"]


def test_no_file_of_this_machine_is_named() -> None:
    given = {"prompt": "x", "image_path": ["/etc/passwd"], "mask_path": "~/.netrc", "upscaling_model_path": "/x"}
    given["loras"] = [{"path": "/srv/secret.safetensors"}]
    found = settings_text.of_text(json.dumps(given))
    assert found.request == {"prompt": "x"}
    assert len(found.ignored) == 4
    assert "a LoRA of this machine" in found.ignored[3]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a boat at sunset", "no settings in 'a boat at sunset'; what can be read: a PNG"),
        ("", "no settings in ''"),
        ("{", "JSON that cannot be read: line 1 column 2"),
        ('{"a": 1}', "no name that is known, got a; what can be read"),
        ("[" * 100_000, "no settings in"),
        ('{"a":' * 100_000, "JSON that cannot be read"),
        ('{"prompt": "x", "diffusers_kwargs": ' + '{"a":' * 60 + "1" + "}" * 61, "nested too deeply"),
        ("x" * 1_100_000, "at most 1048576 characters, got 1100000"),
        ("a: &a [1]\nb: [*a, *a]", "no settings in"),
        ('{"sgdiff": 1, "request": {"image_path": "/etc/passwd"}, "engine": {}, "inputs": {}}', "engine.model must"),
        ('{"sgdiff": 99, "request": {}}', "format 99 is not known"),
    ],
)
def test_what_cannot_be_read_says_so(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings_text.of_text(text)
    assert words in caught.value.message
    assert len(caught.value.message) < 500


def test_files_without_settings(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\0" * 64)
    picture(tmp_path / "b.png")
    picture(tmp_path / "c.png", parameters="no settings here", prompt="neither")
    for name, words in (
        ("a.bin", "is no PNG, JPEG, WebP, GIF or MP4 file; what can be read"),
        ("b.png", "no settings inside"),
        ("c.png", "no settings inside"),
        ("d.png", "no such file"),
        ("d.json", "cannot be read: No such file"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            settings_text.of_file(tmp_path / name)
        assert str(tmp_path) not in caught.value.message


def test_a_text_that_unpacks_to_more_than_memory_is_refused(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("parameters", "Steps: 1, " * 2_000_000, zip=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "bomb.png", pnginfo=info)
    assert (tmp_path / "bomb.png").stat().st_size < 200_000
    with pytest.raises(UsageError, match="cannot be read"):
        settings_text.of_file(tmp_path / "bomb.png")
