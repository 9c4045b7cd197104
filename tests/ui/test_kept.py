"""What a browser keeps of the forms: shown for its model alone, and whatever it sends may be anything."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import gradio as gr
import pytest

from engine.catalog import ModelSpec, by_name
from tests.ui import markup
from ui import kept
from ui.controls import seed_row, words
from ui.forms import Form


def spec(name: str) -> ModelSpec:
    found = by_name(name)
    assert found is not None
    return found


TINY, FLUX = spec("tiny-scenes"), spec("FLUX.1-dev")
RAW = {"prompt": "a boat", "negative_prompt": "fog", "seed": "1, 2", "num_outputs_per_prompt": 2, "width": "128",
       "num_inference_steps": 33, "max_sequence_length": ""}  # fmt: skip


@pytest.fixture(scope="module")
def forms() -> dict[str, Form]:
    with gr.Blocks():
        found = Form(TINY)
        words(found, "What to draw")
        seed_row(found)
        for name in ("width", "num_inference_steps", "max_sequence_length", "guidance_scale_2"):
            found.widget(name)
        other = Form(TINY)
        words(other, "What to change")
    return {"generate": found, "edit": other}


def update(forms: dict[str, Form], served: ModelSpec | None, text: object, *written: str, fresh: bool = False) -> Any:
    """Return the new values of the first form by field, and the updates of the second."""
    found, _ = kept.shown(forms, served, kept.of_text(text), written or ("", ""), fresh=fresh)
    count = len(forms["generate"].entries)
    values = [entry.get("value", "as it is") for entry in found[:count]]
    return dict(zip(forms["generate"].entries, values, strict=True)), found[count:]


def test_what_was_kept_of_the_model_is_shown(forms: dict[str, Form]) -> None:
    text = json.dumps({"generate": {"tiny-scenes": RAW, FLUX.id: {"num_inference_steps": 3}}})
    shown, other = update(forms, TINY, text)
    assert shown == RAW | {"max_sequence_length": "64", "guidance_scale_2": None}
    assert other == [gr.skip()] * 2
    shown, _ = update(forms, TINY, text, "just written", "")
    assert (shown["prompt"], shown["negative_prompt"]) == ("as it is", "fog")
    assert update(forms, FLUX, text)[0]["num_inference_steps"] == 3


def test_what_cannot_be_sent_any_more_is_told(forms: dict[str, Form]) -> None:
    text = kept.of_text(json.dumps({"generate": {"tiny-scenes": {"width": "512"}}}))
    found, told = kept.shown(forms, TINY, text, ("", ""), fresh=False, max_pixels=100_000)
    width = dict(zip(forms["generate"].entries, found, strict=False))["width"]["value"]
    assert int(width) < 512 and any("100000 pixels at most" in line for line in told)
    assert kept.shown(forms, TINY, text, ("", ""), fresh=False, max_pixels=400_000)[1] == []


def test_of_what_the_model_does_not_use_nothing_is_shown_or_told(forms: dict[str, Form]) -> None:
    text = kept.of_text(json.dumps({"generate": {"tiny-scenes": {"guidance_scale_2": 0, "num_inference_steps": 3}}}))
    found, told = kept.shown(forms, TINY, text, ("", ""), fresh=False)
    values = {name: entry["value"] for name, entry in zip(forms["generate"].entries, found, strict=False)}
    assert (values["guidance_scale_2"], values["num_inference_steps"], told) == (None, 3, [])


def test_a_model_of_which_nothing_is_kept_has_its_own_defaults(forms: dict[str, Form]) -> None:
    text = json.dumps({"generate": {"tiny-scenes": RAW}})
    assert set(update(forms, FLUX, text)[0].values()) == {"as it is"}
    shown, _ = update(forms, FLUX, text, fresh=True)
    assert (shown["prompt"], shown["num_inference_steps"], shown["width"]) == ("as it is", 50, "1024")
    assert set(update(forms, None, text)[0].values()) == {"as it is"}


@pytest.mark.parametrize(
    "text",
    ["", None, 3, "[", "[]", "3", "[" * 10**5, '{"generate": 3}', '{"generate": {"tiny-scenes": [1]}}', " " * 2**23],
)
def test_nonsense_is_nothing(forms: dict[str, Form], text: object) -> None:
    assert set(update(forms, TINY, text)[0].values()) == {"as it is"}


def test_what_is_longer_than_a_browser_keeps_is_not_read(forms: dict[str, Form]) -> None:
    text = json.dumps({"generate": {"tiny-scenes": RAW}})
    assert update(forms, TINY, text.ljust(kept.LONGEST))[0]["prompt"] == "a boat"
    assert set(update(forms, TINY, text.ljust(kept.LONGEST + 1))[0].values()) == {"as it is"}


@pytest.mark.parametrize("value", ["twelve", [1], {"a": 1}, 10**400, -1, True, float("inf"), float("nan"), "7" * 5000])
def test_nonsense_in_a_field_is_its_default(forms: dict[str, Form], value: Any) -> None:
    names = ("seed", "num_outputs_per_prompt", "width", "num_inference_steps", "max_sequence_length")
    raw = dict.fromkeys(names, value) | {"prompt": "a boat"}
    shown, _ = update(forms, TINY, json.dumps({"generate": {"tiny-scenes": raw}}))
    assert shown["prompt"] == "a boat"
    assert isinstance(shown["seed"], str) and shown["num_outputs_per_prompt"] in (1, 2, 3, 4)
    assert 1 <= shown["num_inference_steps"] <= 1000
    assert 1 <= int(shown["width"]) <= 2**20


def test_nothing_is_kept_before_the_model_is_known() -> None:
    assert kept.stamped(None) == ""
    assert kept.stamped(TINY) == '<i data-kept-for="tiny-scenes"></i>'


def test_a_model_s_name_is_no_markup() -> None:
    assert markup.shown(kept.stamped(replace(TINY, id=markup.WICKED))) == 1
