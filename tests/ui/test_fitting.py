"""Whatever settings are loaded, the form can send what it shows, and nothing is lost without a word."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from engine import env, schema
from engine.catalog import MODELS, ModelSpec, by_name
from engine.resolve import resolve
from engine.types import MAX_SEED, Request
from ui import edit, fitting, generate, say, video
from ui.adapters import Adapters
from ui.fitting import fitted
from ui.forms import FIELDS, default, used
from ui.page import Page


def spec(name: str) -> ModelSpec:
    found = by_name(name)
    assert found is not None
    return found


TINY, CLIP = spec("tiny-scenes"), spec("Wan2.1-T2V-1.3B")
STOCK = replace(TINY, arguments=("eta", "clip_skip"), variants={})
SERVER = [{"name": "default", "path": "/loras/own.safetensors", "scale": 1.0}]
CARDS = {"pixel-art": "pixel-art", "neon-night": "neon-night", "mine.safetensors": __file__}


def find(path: str | None, weight_name: str | None = None) -> Any:
    return SimpleNamespace(entry=SimpleNamespace(named={"path": CARDS[path]})) if path in CARDS else None


ADAPTERS: Any = SimpleNamespace(
    server=SERVER,
    find=find,
    here=lambda given: [{**entry, "path": CARDS.get(entry.get("path"), entry.get("path"))} for entry in given],
    check=lambda request: None,
)


@pytest.fixture(scope="module")
def page() -> Page:
    """A page with the three forms, over a desk whose model can be exchanged."""
    served = SimpleNamespace(max_pixels=None)
    options = SimpleNamespace(model_switch=False)
    desk = SimpleNamespace(spec=TINY, adapters=ADAPTERS, queue=SimpleNamespace(served=served), options=options)
    with gr.Blocks():
        found = Page(desk)  # type: ignore[arg-type]
        with gr.Tabs() as found.tabs:
            for tab in (generate, edit, video):
                tab.build(found)
    return found


def recipe(rng: random.Random) -> dict[str, Any]:
    """Return settings that some request may have: usual ones, and what is at the ends of what is allowed."""
    count = rng.choice([1, 2, 5, 10])
    seed = rng.choice([0, 7, MAX_SEED, MAX_SEED - 2, [1, 2, 3], list(range(12)), []])
    whole = {"num_inference_steps": [1, 4, 60, 1000], "max_sequence_length": [1, 64, 77, 100_000], "fps": [1, 16, 120],
             "width": [1, 64, 250, 4096, 10**9, 10**400], "height": [1, 64, 300, 4096, 10**9],
             "num_frames": [1, 2, 17, 81, 100, 10**6], "output_compression": [0, 100]}  # fmt: skip
    share = {key: [0.0, 0.01, 0.35, 1.0] for key in ("strength", "boundary_ratio")}
    scale = {key: [0.5, 3.33, 400.0] for key in ("guidance_scale", "guidance_scale_2", "true_cfg_scale", "flow_shift")}
    texts = {"negative_prompt": ["", "fog"], "quality": ["low", "max"], "x264_preset": ["slow"],
             "output_format": ["png", "jpeg", "webp", "mp4", "gif"], "generator_device": ["cuda"]}  # fmt: skip
    rest = {"embed_recipe": [False], "diffusers_kwargs": [{}, {"eta": 0.5}, {"nonsense": 1}],
            "loras": [[], [{"path": "pixel-art", "scale": 0.5}], [{"scale": 2.0}, {"name": "gone"}]]}  # fmt: skip
    offered: dict[str, list[Any]] = {**whole, **share, **scale, **texts, **rest}
    found = {name: rng.choice(values) for name, values in offered.items() if rng.random() < 0.4}
    return {"prompt": "a hill <|image_pad|>", "num_outputs_per_prompt": count, "seed": seed, **found}


def sent(page: Page, updates: list[Any], tab: str) -> dict[str, Any]:
    """Return what a form would ask for after updates, as the browser and Gradio let it."""
    form, start = page.forms[tab], 2
    for name, other in page.forms.items():
        if name == tab:
            break
        start += len(other.components)
    raw = list[Any]()
    for name, update in zip(form.entries, updates[start:], strict=False):
        component, value = form[name], update["value"]
        choices = update.get("choices", getattr(component, "choices", None))
        if isinstance(component, gr.Slider):
            value = update["minimum"] if value is None else value  # Gradio's own doing; the widget is hidden
            assert update["minimum"] <= value <= update["maximum"], name
        elif choices is not None and value is not None:
            assert value in [choice[1] if isinstance(choice, tuple) else choice for choice in choices], name
        elif isinstance(component, gr.Textbox):
            assert isinstance(value, str), name
        raw.append(value)
    values = form.values(raw)
    counted = {name: value for name, value in values.items() if used(name, page.desk.spec)}
    return counted | ({} if updates[1] is None else {"loras": updates[1]})


@pytest.mark.parametrize("served", [*MODELS, STOCK], ids=lambda entry: entry.id)
def test_what_a_restored_form_shows_can_be_drawn(
    page: Page, served: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.desk.spec = served  # type: ignore[misc]
    rng, told = random.Random(served.id), list[str]()
    monkeypatch.setattr(say, "changed", told.extend)
    for _ in range(40):
        given, tab = recipe(rng), page.able(rng.choice(["generate", "edit", "video"]))
        told.clear()
        request = schema.read(Request, sent(page, page.restored(given, tab), tab))
        needs = tab == "edit" or (tab == "video" and video.needs_image(served))
        resolve(request.replace(image_path=("in.png",)) if needs else request, served)
        lost = [name for name, value in given.items() if not kept(name, value, request, served)]
        unsaid = [name for name in lost if not any(line.startswith(starts(name)) for line in told)]
        assert not unsaid, (given, told)
        again = page.fitted(page.fitted(given, tab).values, tab)
        assert not again.notes


def starts(name: str) -> str:
    return "LoRA " if name == "loras" else f"{fitting.label(name)}: "


def kept(name: str, value: Any, request: Request, served: ModelSpec) -> bool:
    """Say whether a request has what a recipe says, be it by a default."""
    now = schema.plain(getattr(request, name))
    if name == "loras":
        return [entry.get("scale", 1.0) for entry in value] == [entry["scale"] for entry in now or ()]
    return now == value or value in ("", [], {}) or value in (default(name, served), FIELDS[name].default)


@pytest.mark.parametrize(
    ("served", "given", "values", "words"),
    [
        (TINY, {"output_format": "mp4"}, {}, "Output format: mp4 is left out; this model draws pictures"),
        (CLIP, {"output_format": "png"}, {}, "Output format: png is left out; this model draws clips"),
        (TINY, {"num_frames": 81}, {}, "Frames: 81 is left out; this model does not use it"),
        (TINY, {"strength": 0.5}, {}, "Strength: 0.5 is left out; nothing sets it here"),
        (TINY, {"max_sequence_length": 512}, {"max_sequence_length": 64}, "64 in place of 512; more is not possible"),
        (TINY, {"seed": [1, 2, 3]}, {"seed": [1, 2, 3], "num_outputs_per_prompt": 3}, "Count: 3 in place of 1; one"),
        (TINY, {"width": 2048, "height": 1024}, {"width": 1456, "height": 720}, "1048576 pixels at most"),
        (TINY, {"width": 1024, "height": 2048}, {"width": 720, "height": 1456}, "1048576 pixels at most"),
        (TINY, {"width": 10**400}, {"width": 65536, "height": 16}, "Width: 65536 in place of 1000"),
        (CLIP, {"num_frames": 80}, {"num_frames": 81}, "Frames: 81 in place of 80; the model draws 1 and multiples"),
        (STOCK, {"diffusers_kwargs": {"no": 1, "eta": 0}}, {"diffusers_kwargs": {"eta": 0}}, "are not arguments"),
        (STOCK, {"strength": 0.01}, {"strength": 0.05}, "Strength: 0.05 in place of 0.01"),
        (TINY, {"seed": True}, {}, "Seed: on is left out; seed: must be an integer"),
    ],
)
def test_the_nearest_that_can_be_sent(
    page: Page, served: ModelSpec, given: dict[str, Any], values: dict[str, Any], words: str
) -> None:
    tab = "video" if served.is_video else "edit" if values.get("strength") else "generate"
    found = fitted(given, page.forms[tab].entries, served)
    assert found.values == values
    assert words in " | ".join(found.notes)


def test_the_bound_of_the_server_takes_the_place_of_the_models(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page.desk.queue.served, "max_pixels", 100_000)
    monkeypatch.setattr(page.desk, "spec", TINY)
    assert page.fitted({"width": 512, "height": 512}, "generate").values == {"width": 320, "height": 304}
    monkeypatch.setattr(page.desk.queue.served, "max_pixels", 128 * 192 * 36)
    monkeypatch.setattr(page.desk, "spec", spec("tiny-motion"))
    clip = page.fitted({"num_frames": 36, "height": 128, "width": 192}, "video").values
    assert clip == {"num_frames": 33, "height": 128, "width": 192}


def test_what_can_be_sent_stays_as_it_is(page: Page) -> None:
    given = {"prompt": "a", "seed": 2**53 + 1, "num_outputs_per_prompt": 7, "num_inference_steps": 200, "width": 250}
    found = fitted(given, page.forms["generate"].entries, TINY)
    assert found.values == given and not found.notes
    assert sent(page, page.restored(given, "generate"), "generate").items() >= given.items()


def test_a_model_that_is_not_known_yet_is_not_said_to_lack_anything(page: Page) -> None:
    given = {"prompt": "a", "guidance_scale": 3.5, "output_format": "mp4"}
    found = fitted(given, page.forms["generate"].entries, None)
    assert found.values == given and not found.notes


def test_adapters_come_back_and_those_that_cannot_be_used_are_told() -> None:
    given: list[Any] = [
        {"path": "pixel-art", "scale": 0.5},
        {"scale": 1.0},
        {"name": "gone"},
        {"name": "default"},
        {"name": "neon-night", "scale": -3e7},
        {"path": "/nowhere/x.safetensors"},
        {"path": "mine.safetensors", "name": "mine"},
        {"path": "owner/name", "target": "nose"},
        {"path": "owner/name", "scale": "strong"},
        {"path": "owner/name"},
        {"path": "owner/name"},
        "pixel-art",
    ]
    found = fitted({"prompt": "a", "loras": given}, ("prompt",), TINY, adapters=ADAPTERS)
    assert found.values["prompt"] == "a"
    assert [(entry.get("path"), entry["scale"]) for entry in found.values["loras"]] == [
        ("pixel-art", 0.5), (None, 1.0), ("neon-night", -1e6), (__file__, 1.0), ("owner/name", 1.0),
    ]  # fmt: skip
    assert found.notes == [
        "LoRA 2: left out; names neither a file nor an adapter that is loaded",
        "LoRA gone: left out; no adapter of this name is here",
        "LoRA neon-night: strength -1e+06 in place of -3e+07; stronger is not possible",
        "LoRA /nowhere/x.safetensors: left out; no such file is here",
        (
            "LoRA owner/name: left out; loras: must be one of all, transformer, transformer_2, unet, critic, "
            "text_encoder, text_encoder_2, got 'nose'"
        ),
        'LoRA owner/name: left out; scale: must be a number, got "strong"',
        "LoRA owner/name: left out; lora_nickname: 'owner/name' is there twice",
        "LoRA 12: left out; names neither a file nor an adapter that is loaded",
    ]


def test_an_adapter_that_no_client_may_load_is_left_out_and_said(tmp_path: Path) -> None:
    inside, outside = tmp_path / "loras" / "own.safetensors", tmp_path / "secret.safetensors"
    inside.parent.mkdir()
    for path in (inside, outside):
        path.write_bytes(b"")  # there, so that nothing but its place speaks against it
    queue: Any = SimpleNamespace(loras=())
    adapters = Adapters(queue, env.read({}), tmp_path / "kept", (inside.parent,))
    given = [{"path": str(outside)}, {"path": str(inside)}]
    found = fitted({"loras": given}, (), TINY, adapters=adapters)
    assert [entry["path"] for entry in found.values["loras"]] == [str(inside)]
    (note,) = found.notes
    assert note.startswith("LoRA ") and "left out" in note
    assert note.endswith("is not in a folder from which adapters may be loaded (--lora-allowed-dirs)")


def test_the_server_s_adapters_stay_where_settings_name_none(page: Page) -> None:
    assert page.restored({"prompt": "a"}, "generate")[1] is None
    assert page.restored({"prompt": "a", "loras": []}, "generate")[1] == []
    assert page.restored({"prompt": "a", "loras": [{"path": "pixel-art"}]}, "generate")[1][0]["path"] == "pixel-art"
