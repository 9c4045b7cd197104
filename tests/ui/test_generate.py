"""Generate: shapes of about the model's own size, with sides that it can draw."""

from __future__ import annotations

import html
from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image

from engine.catalog import MODELS, ModelSpec, by_name
from ui import generate
from ui.forms import Form
from ui.generate import EXAMPLES, RATIOS, examples, picture_of, row_of, shapes, size_of
from ui.page import Page

PICTURES = [entry for entry in MODELS if not entry.is_video]


@pytest.mark.parametrize("served", PICTURES, ids=lambda entry: entry.id)
@pytest.mark.parametrize("ratio", RATIOS)
def test_a_shape_is_one_that_the_model_draws(served: ModelSpec, ratio: str) -> None:
    width, height = size_of(ratio, served)
    across, down = (int(part) for part in ratio.split(":"))
    assert width % served.multiple == height % served.multiple == 0
    assert width * height <= served.max_pixels
    assert width / height == pytest.approx(across / down, rel=0.15)
    area = served.defaults.get("width", 1024) * served.defaults.get("height", 1024)
    assert width * height == pytest.approx(area, rel=0.15)


def test_no_two_shapes_have_the_same_sides_and_the_models_own_is_one() -> None:
    for served in PICTURES:
        told = shapes(served)
        assert list(told.chips) == list(RATIOS) and len(set(told.chips.values())) == len(RATIOS)
        assert told.empty is None or told.chips[told.empty] == told.own
    assert shapes(by_name("tiny-scenes")).empty == "1:1"


def test_examples_fit_what_the_bundled_model_reads() -> None:
    assert len(EXAMPLES) == 4 and all(len(example.prompt.split()) < 20 for example in EXAMPLES)


def test_each_example_has_a_small_picture_of_its_own() -> None:
    paths = [picture_of(example) for example in EXAMPLES]
    assert len({path.read_bytes() for path in paths}) == len(EXAMPLES)
    assert max(path.stat().st_size for path in paths) <= 12_000
    for path in paths:
        with Image.open(path) as picture:
            assert (picture.format, picture.size) == ("WEBP", (128, 128))
            picture.load()


def test_pictures_stand_beside_the_examples_of_the_model_that_draws_them() -> None:
    tiny, other = row_of(by_name("tiny-scenes")), row_of(by_name("FLUX.1-dev"))
    assert tiny.count('src="data:image/webp;base64,') == len(EXAMPLES)
    assert "<img" not in other and "<img" not in row_of(None)
    assert all(html.escape(example.prompt) in text for example in EXAMPLES for text in (tiny, other))


@pytest.mark.parametrize(("name", "seed"), [("tiny-scenes", str(EXAMPLES[2].seed)), ("FLUX.1-dev", gr.skip())])
def test_an_example_asks_for_what_its_picture_shows(name: str, seed: object) -> None:
    desk = SimpleNamespace(spec=by_name(name), adapters=SimpleNamespace(server=()))
    with gr.Blocks() as demo:
        page = Page(desk)  # type: ignore[arg-type]
        form = Form(desk.spec)
        form.widget("prompt")
        form.add("seed", gr.Textbox())
        examples(page, form)
    (pick,) = (entry.fn for entry in demo.fns.values() if entry.fn is not None)
    assert pick(SimpleNamespace(_data={"at": 2})) == [EXAMPLES[2].prompt, seed]


def test_a_model_that_draws_nothing_from_words_alone_is_told_of() -> None:
    clips, edits = by_name("tiny-motion"), by_name("Qwen/Qwen-Image-Edit")
    assert generate.empty(None) == generate.empty(by_name("tiny-scenes")) == ""
    assert "tiny-motion makes clips" in generate.empty(clips) and "Video tab" in generate.empty(clips)
    assert "edits pictures" in generate.empty(edits) and "Edit tab" in generate.empty(edits)
    desk = SimpleNamespace(spec=None, adapters=SimpleNamespace(server=()), options=SimpleNamespace(model_switch=True))
    with gr.Blocks():
        page = Page(desk)  # type: ignore[arg-type]
        with gr.Tabs() as page.tabs:
            generate.build(page)
    _, render = page.refreshers[-1]
    shown = []
    for desk.spec in (by_name("tiny-scenes"), clips):
        shown.append([update["visible"] for update in render()])
    assert shown == [[False, True], [True, False]]
