"""Settings of files and texts: which tab they go to, and what is told of them."""

from __future__ import annotations

from engine.catalog import by_name
from engine.settings_text import Settings, of_text
from tests.ui.markup import WICKED, shown
from ui import drop
from ui.fitting import Fitted, fitted

TINY = by_name("tiny-scenes")
A1111 = """a cat, <b>bold</b>
Negative prompt: dog
Steps: 12, Sampler: Euler a, CFG scale: 3.5, Seed: 77, Size: 256x192, Model: sd15, Clip skip: 2"""


def test_settings_go_to_the_tab_that_has_their_widgets() -> None:
    clips = by_name("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
    assert clips is not None and clips.is_video
    assert drop.tab_of(Settings({"prompt": "x"}, "s"), TINY) == "generate"
    assert drop.tab_of(Settings({"prompt": "x"}, "s"), clips) == "video"
    assert drop.tab_of(Settings({"prompt": "x", "num_frames": 81}, "s"), TINY) == "video"
    assert drop.tab_of(Settings({"prompt": "x", "num_frames": 1}, "s"), TINY) == "generate"
    assert drop.tab_of(Settings({"prompt": "x", "strength": 0.5}, "s"), TINY) == "edit"
    given = ("image_path: give it again; a recipe holds no pictures",)
    assert drop.tab_of(Settings({"prompt": "x"}, "s", None, given), TINY) == "edit"


def test_the_note_tells_what_was_loaded_and_what_was_not() -> None:
    settings = of_text(A1111)
    fit = fitted(settings.request, ("prompt", "negative_prompt", "num_inference_steps", "seed", "width"), TINY)
    note = drop.summary(settings, fit, "Generate", ("tiny-scenes",))
    assert "Settings of AUTOMATIC1111 are in Generate now." in note
    assert "Steps 12" in note and "Seed 77" in note and "Width 256" in note and "Prompt" in note
    assert "Made with sd15; tiny-scenes draws now." in note
    assert "left out</summary>" in note and "Clip skip" in note
    assert "changed to what can be drawn here</summary>" in note
    assert "Guidance: 3.5 is left out; this model does not use it" in note
    assert "<b>bold" not in note


def test_texts_of_a_file_are_never_markup() -> None:
    values = {"prompt": WICKED, "num_inference_steps": 3, "loras": [{"path": WICKED, "scale": 1.0}]}
    settings = Settings(values, WICKED, WICKED, (f"{WICKED}: is not known", WICKED))
    note = drop.summary(settings, Fitted(values, [WICKED]), "Generate", (WICKED + "2",))
    assert shown(note) == 7  # whose settings, the adapter, both models, what was changed and left out
    assert "1 changed to what can be drawn here</summary>" in note and "2 left out</summary>" in note


def test_the_note_is_silent_about_the_same_model() -> None:
    same = Settings({"prompt": "x"}, "s", "Somebody/Tiny-Scenes")
    assert "Made with" not in drop.summary(same, Fitted({"prompt": "x"}), "Generate", ("tiny-scenes",))


def test_values_in_few_words() -> None:
    request = {
        "loras": [{"name": "lora_1", "path": "pixel-art", "scale": 0.5}],
        "strength": 0.25,
        "prompt": "long",
        "seed": [1, 2],
    }
    assert [drop.said(name, request) for name in request] == [
        "LoRA pixel-art × 0.5",
        "Strength 0.25",
        "Prompt",
        "Seed",
    ]
