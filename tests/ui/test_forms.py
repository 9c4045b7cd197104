"""Forms: widgets say what the schema and the model's entry say, and values pass both ways unchanged."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from engine import schema
from engine.catalog import MODELS, ModelSpec, by_name
from engine.errors import UsageError
from engine.types import Request
from ui import forms
from ui.forms import Form


def spec(name: str) -> ModelSpec:
    found = by_name(name)
    assert found is not None
    return found


TINY, FLUX, CLIP = spec("tiny-scenes"), spec("FLUX.1-dev"), next(entry for entry in MODELS if entry.is_video)


def form(served: ModelSpec | None) -> Form:
    """Return a form of everything that there is a widget for."""
    with gr.Blocks():
        found = Form(served)
        found.add("seed", gr.Textbox(), forms.seeds, forms.seed_text)
        found.rest(without=("strength",))
    return found


def given(found: Form) -> list[Any]:
    """Return what a browser would send at first."""
    return [component.value for component in found.components]


@pytest.mark.parametrize("served", {entry.family: entry for entry in MODELS}.values(), ids=lambda entry: entry.id)
def test_a_form_at_first_asks_for_the_models_defaults(served: ModelSpec) -> None:
    found = form(served)
    values = {name: value for name, value in found.values(given(found)).items() if forms.used(name, served)}
    request = schema.read(Request, values | {"prompt": "a hill"})
    for name, value in served.defaults.items():
        if name in found.entries and forms.used(name, served):
            assert getattr(request, name) == value, name


def test_what_a_model_does_not_use_is_hidden() -> None:
    tiny = form(TINY)
    for name in ("guidance_scale", "num_frames", "guidance_scale_2", "x264_preset"):
        assert not tiny[name].visible, name
    assert form(FLUX)["guidance_scale"].visible and form(CLIP)["num_frames"].visible
    assert not form(None)["guidance_scale"].visible


def test_bounds_choices_and_help_are_those_of_the_schema() -> None:
    found = form(TINY)
    assert (found["num_inference_steps"].minimum, found["num_inference_steps"].maximum) == (1, 50)
    assert found["max_sequence_length"].info.endswith("; 1 to 64")  # the model's own limit
    assert found["output_compression"].info.endswith("; 0 to 100")
    assert [value for _, value in found["quality"].choices] == list(schema.fields(Request)["quality"].choices)
    assert [value for _, value in found["output_format"].choices] == ["png", "jpeg", "webp"]
    assert found["embed_recipe"].info == schema.fields(Request)["embed_recipe"].opt.help


@pytest.mark.parametrize("served", MODELS, ids=lambda entry: entry.id)
def test_a_number_may_be_empty_where_there_is_no_default(served: ModelSpec) -> None:
    """Sliders always have a value, and browsers fill fields of numbers: the request would not be what was asked."""
    for name, field in forms.FIELDS.items():
        if field.kind in ("int", "float") and forms.is_offered(field) and forms.used(name, served):
            kind = forms._kind(field)[0]
            assert kind is gr.Textbox or (kind is gr.Slider and forms.default(name, served) is not None), name


@pytest.mark.parametrize(("text", "value"), [("", None), (None, None), (" 64 ", 64), ("-3", -3)])
def test_a_number_is_typed(text: str | None, value: int | None) -> None:
    _, read, show = forms.typed("width")
    assert read(text) == value and read(show(value)) == value
    _, read, show = forms.typed("flow_shift")
    assert [show(number) for number in (3.0, 0.5, 0.123456789, None)] == ["3", "0.5", "0.123456789", ""]
    assert forms.typed("width")[2](1_973_760) == "1973760"


def test_what_is_no_number_is_told() -> None:
    with pytest.raises(UsageError, match="width: must be a whole number from 1 up, or empty; got '12"):
        forms.typed("width")[1]("12.5")
    with pytest.raises(UsageError, match="flow_shift: must be a number from 0 up, or empty; got 'much'"):
        forms.typed("flow_shift")[1]("much")


@pytest.mark.parametrize("text", ["nan", "inf", "1e999", "-nan"])
def test_a_number_is_finite(text: str) -> None:
    with pytest.raises(UsageError, match="flow_shift: must be a number from 0 up, or empty; got"):
        forms.typed("flow_shift")[1](text)
    with pytest.raises(UsageError, match="output_compression: must be a whole number from 0 to 100, or empty; got"):
        forms.typed("output_compression")[1](text)


def test_numbers_of_thousands_of_digits_are_told_as_every_wrong_one_is() -> None:
    digits = "7" * 5000
    with pytest.raises(UsageError) as raised:
        forms.seeds(f"1, {digits}")
    assert raised.value.message.startswith("seed: must be at most 9223372036854775807, or empty; got '1, 777")
    with pytest.raises(UsageError, match=r"diffusers_kwargs: must be JSON, .* whose numbers are finite; got NaN"):
        forms._mapping("diffusers_kwargs", '{"eta": NaN}')
    with pytest.raises(UsageError, match=r"diffusers_kwargs: must be JSON, .* nested too deeply"):
        forms._mapping("diffusers_kwargs", "[" * 10**5)
    held = forms._mapping("diffusers_kwargs", f'{{"eta": {digits}}}')
    width = forms.typed("width")[1](digits)
    assert len(raised.value.message) < 200 and held["eta"] > 10**200
    with pytest.raises(UsageError, match=r"size: 777.* pixels, more than the 1048576 allowed") as raised:
        schema.read(Request, {"prompt": "x", "width": width, "height": 8}).resolve(TINY)
    assert len(raised.value.message) < 300


def test_nothing_that_is_not_built_is_offered() -> None:
    offered = set(form(TINY).entries)
    later = {name for name, field in schema.fields(Request).items() if field.opt.later is True}
    assert later and not offered & later


def test_a_request_passes_through_a_form() -> None:
    wanted = Request(
        prompt="a hill", negative_prompt="fog", num_inference_steps=200, true_cfg_scale=2.5, seed=2**53 + 1, width=64,
        height=128, quality="low", output_format="webp", embed_recipe=False, num_outputs_per_prompt=7,
    )  # fmt: skip
    found = form(TINY)
    updates = found.updates(schema.plain(wanted), TINY)
    shown = dict(zip(found.entries, updates, strict=True))
    assert shown["seed"]["value"] == "9007199254740993"
    assert shown["num_inference_steps"]["maximum"] == 200  # or the slider would cut it
    values = found.values([update["value"] for update in updates])
    counted = {name: value for name, value in values.items() if forms.used(name, TINY)}
    assert schema.read(Request, counted) == wanted.replace(max_sequence_length=64)


def test_another_models_defaults_leave_the_prompt_alone() -> None:
    found = form(TINY)
    updates = dict(zip(found.entries, found.defaults(FLUX), strict=True))
    assert updates["prompt"] == gr.skip()
    assert updates["num_inference_steps"]["value"] == 50
    assert updates["guidance_scale"] == updates["guidance_scale"] | {"visible": True, "value": 3.5}


@pytest.mark.parametrize(
    ("text", "value"),
    [("", None), (None, None), ("-1", None), ("random", None), (" 7 ", 7), ("0", 0), ("1, 2", [1, 2])],
)
def test_a_seed_is_a_text(text: str | None, value: Any) -> None:
    assert forms.seeds(text) == value
    assert forms.seeds(forms.seed_text(value)) == value


@pytest.mark.parametrize("text", ["twelve", "1.5", "1;2", "-2"])
def test_what_is_no_seed_is_told(text: str) -> None:
    with pytest.raises(
        UsageError, match="seed: must be a whole number from 0 up, several with commas between, or empty"
    ):
        forms.seeds(text)


def test_what_is_no_mapping_is_told() -> None:
    with gr.Blocks():
        found = Form(None)
        found.widget("diffusers_kwargs")
    assert found.values(['{"eta": 0.5}']) == {"diffusers_kwargs": {"eta": 0.5}}
    with pytest.raises(UsageError, match="diffusers_kwargs: must be JSON, such as"):
        found.values(["eta=0.5"])


def test_an_empty_negative_prompt_wins_over_the_models_own() -> None:
    served = spec("Qwen-Image-2512")
    assert served.defaults["negative_prompt"]
    with gr.Blocks():
        found = Form(served)
        found.widget("prompt")
        found.widget("negative_prompt")
    assert found["negative_prompt"].value == served.defaults["negative_prompt"]
    assert found.values(["", ""]) == {"negative_prompt": ""}
