"""Infotext is read as other programs write it, and what is only a prompt is none."""

from __future__ import annotations

from typing import Any

from engine import infotext

FOREIGN = (
    "a castle, <lora:ink:0.7> at dawn\nsecond line\nNegative prompt: blurry, text\nmore\n"
    'Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1234, Size: 512x768, Model: "odd, name", '
    'Denoising strength: 0.4, Lora hashes: "ink: 0a1b", Version: v1.10'
)


def parsed(text: str) -> tuple[dict[str, Any], str | None, list[str], list[tuple[str, float]]]:
    found = infotext.parse(text)
    assert found is not None
    return found


def test_every_part_is_read() -> None:
    fields, model, ignored, loras = parsed(FOREIGN)
    assert fields == {
        "prompt": "a castle, at dawn\nsecond line",
        "negative_prompt": "blurry, text\nmore",
        "num_inference_steps": 20,
        "guidance_scale": 7.0,
        "seed": 1234,
        "width": 512,
        "height": 768,
        "strength": 0.4,
    }
    assert (model, loras) == ("odd, name", [("ink", 0.7)])
    assert ignored == ["Sampler: DPM++ 2M", "Schedule type: Karras"]


def test_embedded_guidance_has_its_own_name() -> None:
    fields, *_ = parsed("x\nSteps: 4, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 1")
    assert (fields["guidance_scale"], fields["true_cfg_scale"]) == (3.5, 1.0)


def test_a_value_that_is_no_number_is_told() -> None:
    fields, _, ignored, _ = parsed("x\nSteps: many, Size: big, Seed: 2")
    assert fields == {"seed": 2, "prompt": "x"}
    assert ignored == ["Steps: many", "Size: big"]


def test_a_prompt_alone_is_no_settings() -> None:
    for text in ("", "a boat at sunset", "a sign that says: stop, please", "two\nlines: here"):
        assert infotext.parse(text) is None


def test_a_last_line_of_a_prompt_stays_in_it() -> None:
    fields, *_ = parsed("a boat\nNegative prompt: red: no")
    assert fields == {"prompt": "a boat", "negative_prompt": "red: no"}


def test_quotes_and_colons_without_end_take_no_time() -> None:
    for text in ('a: "' * 50_000, "word " * 50_000, "<lora:" * 50_000, "a:" * 50_000 + '"', ":" * 200_000):
        infotext.parse(f"x\n{text}")
        infotext.parse(f"{text}\nSteps: 1")
