"""An Engine with LoRAs: from the start, by call, of one request; what is recorded draws the same picture again."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine import loader, recipe
from engine.engine import Engine
from engine.errors import NotAvailable, OutOfMemory, SgdiffError, UsageError
from engine.lora.blocks import Packed
from engine.passes.placement import Plan
from engine.types import LoraRef, Progress

FIELDS: dict[str, Any] = {"prompt": "a red house", "height": 64, "width": 64, "num_inference_steps": 2, "seed": 8}
FP32 = {"dit_precision": "fp32", "vae_precision": "fp32", "text_encoder_precisions": ["fp32"]}
Draw = Callable[..., np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def engine(flux_folder: Path) -> Iterator[Engine]:
    with Engine.from_pretrained(str(flux_folder), **FP32) as engine:
        yield engine


@pytest.fixture(scope="module")
def ink(engine: Engine, lora_file: Callable[..., Path]) -> str:
    return str(lora_file(engine.loras.networks["transformer"], "ink"))


@pytest.fixture
def draw(engine: Engine) -> Iterator[Draw]:
    engine.unmerge_lora()
    yield lambda **fields: engine.generate(**FIELDS, **fields)[0].frames
    engine.unmerge_lora()


def _alike(one: Any, other: Any) -> bool:
    return bool((one == other).all())


def test_set_unmerge_merge(engine: Engine, draw: Draw, ink: str) -> None:
    base = draw()
    assert engine.set_lora("ink", ink) == []
    inked = draw()
    assert not _alike(inked, base)
    engine.unmerge_lora()
    assert _alike(draw(), base)
    engine.merge_lora(strength=0.5)
    assert not _alike(draw(), inked)
    engine.merge_lora(strength=1.0)
    assert _alike(draw(), inked)


def test_the_weights_change_with_the_call_and_not_with_the_next_picture(engine: Engine, draw: Draw, ink: str) -> None:
    weight = next(engine.loras.networks["transformer"].transformer_blocks.parameters())
    before = weight.detach().clone()
    engine.set_lora("ink", ink)
    assert any(change for change in engine.loras.active.values())
    engine.unmerge_lora()
    assert torch.equal(weight, before)


def test_a_request_of_its_own_leaves_what_is_set(engine: Engine, draw: Draw, ink: str) -> None:
    base = draw()
    inked = draw(loras=[{"path": ink}])
    assert engine.list_loras()["active"] == {}
    assert _alike(draw(), base)
    engine.set_lora("own", ink)
    assert _alike(draw(), inked)
    assert _alike(draw(loras=[]), base)
    assert _alike(draw(loras=[{"name": "own"}]), inked)
    assert [entry["nickname"] for entry in engine.list_loras()["active"]["transformer"]] == ["own"]


def test_who_hears_progress_may_ask_and_not_change(engine: Engine, draw: Draw, ink: str) -> None:
    """Also while another thread changes the LoRAs, which waits for the step to end."""
    engine.set_lora("ink", ink)
    engine.unmerge_lora()
    others, heard = list[threading.Thread](), list[Any]()

    def listen(progress: Progress) -> None:
        if progress.step != 1:
            return
        others.append(threading.Thread(target=engine.merge_lora))
        others[0].start()
        others[0].join(0.2)
        heard.append(engine.list_loras()["loaded_adapters"])
        with pytest.raises(UsageError, match="from inside its own progress callback"):
            engine.unmerge_lora()

    base = draw(loras=[])
    assert _alike(engine.generate(**FIELDS, on_progress=listen)[0].frames, base), "accepted before the change"
    others[0].join(10)
    assert heard == [engine.list_loras()["loaded_adapters"]]
    assert [entry["nickname"] for entry in engine.list_loras()["active"]["transformer"]] == ["ink"]


def test_a_change_that_cannot_come_into_effect_is_taken_back(
    engine: Engine, draw: Draw, ink: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = draw()

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Packed, "on", full)
    with pytest.raises(OutOfMemory):
        engine.set_lora("ink", ink)
    monkeypatch.undo()
    assert engine.list_loras()["active"] == {}
    assert _alike(draw(), base)


def test_from_the_start(flux_folder: Path, engine: Engine, draw: Draw, ink: str) -> None:
    expected = draw(loras=[{"path": ink, "scale": 0.5, "modules": ["to_q"]}])
    settings = {"lora_path": [ink], "lora_scale": [0.5], "lora_target_modules": ["to_q"]}
    with Engine.from_pretrained(str(flux_folder), **FP32, **settings) as started:
        assert [entry["nickname"] for entry in started.list_loras()["loaded_adapters"]] == ["default"]
        output = started.generate(**FIELDS)[0]
        assert _alike(output.frames, expected)
        assert not _alike(started.generate(**FIELDS, loras=[])[0].frames, expected)
    (recorded,) = output.recipe["engine"]["loras"]
    assert recorded.items() >= {"path": "ink.safetensors", "scale": 0.5, "modules": ["to_q"]}.items()


def test_a_recorded_set_draws_the_picture_again(
    engine: Engine, draw: Draw, ink: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = engine.generate(**FIELDS, loras=[{"path": ink, "scale": 0.5}])[0]
    assert "loras" not in first.recipe["request"]
    assert str(Path(ink).parent) not in str(first.recipe)
    monkeypatch.chdir(Path(ink).parent)
    refs = recipe.loras(first.recipe)
    assert refs == (LoraRef("lora_1", "ink.safetensors", 0.5),)
    again = engine.generate(**FIELDS, loras=[{"path": ref.path, "scale": ref.scale} for ref in refs])[0]
    assert _alike(first.frames, again.frames)
    assert recipe.differences(first.recipe, again.recipe) == []
    plain = engine.generate(**FIELDS)[0]
    digest = first.recipe["engine"]["loras"][0]["sha256"][:8]
    assert recipe.differences(first.recipe, plain.recipe) == [f"loras: was ink.safetensors x 0.5 ({digest}), is none"]


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        ({"lora_path": "gone.safetensors"}, "lora_file_not_found", "gone.safetensors: no such file or folder"),
        ({"lora_scale": 0.5}, "invalid_value", "lora_scale: needs --lora-path"),
        ({"lora_path": "{ink}", "lora_target": "unet"}, "lora_target_missing",
         "target: the model has no unet; it has transformer"),
        ({"lora_path": "{ink}", "lora_target_modules": ["to_z"]}, "lora_incompatible",
         "lora_target_modules: no layer of ink.safetensors ends with to_z"),
        ({"lora_path": "{text}"}, "lora_incompatible", "{text}: is no safetensors file"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_weights_are_read(
    flux_folder: Path,
    ink: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    code: str,
    message: str,
) -> None:
    text = tmp_path / "text.safetensors"
    text.write_text("no tensors")
    monkeypatch.setattr(loader, "load", None)
    names = {"{ink}": ink, "{text}": str(text)}
    given = {name: names.get(value, value) if isinstance(value, str) else value for name, value in settings.items()}
    with pytest.raises(SgdiffError) as error:
        Engine.from_pretrained(str(flux_folder), **given)
    assert error.value.code == code
    assert error.value.message.startswith(message.replace("{text}", str(text)))


def test_the_mode_is_the_engines(engine: Engine, ink: str) -> None:
    with pytest.raises(NotAvailable) as error:
        engine.set_lora("ink", ink, merge_mode="dynamic")
    assert error.value.message == "merge_mode: this engine was started with 'merge' (--lora-merge-mode), not others"
    engine.set_lora("ink", ink, merge_mode="merge")
    engine.unmerge_lora()


@pytest.mark.parametrize(
    ("placement", "mode", "kind"),
    [
        (Plan(), "auto", "merge"),
        (Plan(offloaded=frozenset({"text_encoder", "vae"})), "auto", "merge"),
        (Plan(offloaded=frozenset({"transformer"})), "auto", "dynamic"),
        (Plan(streamed=frozenset({"transformer"})), "auto", "dynamic"),
        (Plan(streamed=frozenset({"transformer"})), "merge", "merge"),
        (Plan(), "dynamic", "dynamic"),
    ],
)
def test_weights_that_are_elsewhere_between_uses_stay_as_they_are(
    flux_folder: Path, monkeypatch: pytest.MonkeyPatch, ink: str, placement: Plan, mode: str, kind: str
) -> None:
    from engine import pipeline

    monkeypatch.setattr(pipeline, "plan", lambda *_: placement)
    settings = {**FP32, "lora_path": ink, "lora_merge_mode": mode}
    with Engine.from_pretrained(str(flux_folder), **settings) as engine:
        assert engine.loras.mode == kind
        inked, base = (engine.generate(**FIELDS, **fields)[0].frames for fields in ({}, {"loras": []}))
        assert not _alike(inked, base)
        assert _alike(engine.generate(**FIELDS)[0].frames, inked)


@pytest.mark.parametrize(("room", "released"), [(0.0, False), (1e12, True), (1e15, False)])
def test_a_decode_gets_the_room_that_copies_of_weights_have(
    engine: Engine, draw: Draw, ink: str, monkeypatch: pytest.MonkeyPatch, room: float, released: bool
) -> None:
    """Without room for it either way it decodes in tiles; otherwise it must not fail for LoRA's sake."""
    from engine.lora.manager import LoraManager
    from engine.passes.residency import Residency

    engine.set_lora("ink", ink)
    expected = draw()
    monkeypatch.setattr(LoraManager, "device_bytes", 1e12)
    monkeypatch.setattr(Residency, "room", room)
    assert room == 0.0 or _alike(draw(), expected)
    assert (engine.loras.active["transformer"] == ()) is released
    monkeypatch.undo()
    assert _alike(draw(), expected)


def test_a_stock_pipeline_takes_loras_of_unet_and_text_encoder(
    sdxl_folder: Path, lora_file: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    with Engine.from_pretrained(str(sdxl_folder), **FP32) as engine:
        files = {
            name: str(lora_file(engine.loras.networks[name], name, target=name)) for name in ("unet", "text_encoder")
        }
        base = engine.generate(**FIELDS)[0].frames
        drawn = [engine.generate(**FIELDS, loras=[{"path": files["unet"]}])[0].frames]
        drawn.append(
            engine.generate(**FIELDS, loras=[{"path": files["text_encoder"], "target": "text_encoder"}])[0].frames
        )
        assert not any(_alike(one, base) for one in drawn)
        assert not _alike(*drawn)
        assert _alike(engine.generate(**FIELDS)[0].frames, base)
        with pytest.raises(UsageError, match="it has text_encoder, text_encoder_2, unet"):
            engine.set_lora("x", files["unet"], "transformer")
    assert "skipped" not in caplog.text


def test_a_closed_engine_says_so(flux_folder: Path, ink: str) -> None:
    engine = Engine.from_pretrained(str(flux_folder))
    engine.close()
    for action in (lambda: engine.set_lora("ink", ink), engine.list_loras, engine.merge_lora, engine.unmerge_lora):
        with pytest.raises(UsageError, match="the engine is closed"):
            action()


def test_a_closed_engine_holds_no_weights(flux_folder: Path, ink: str) -> None:
    engine = Engine.from_pretrained(str(flux_folder), lora_path=[ink])
    network = weakref.ref(engine.loras.networks["transformer"])
    assert network() is not None
    engine.close()
    gc.collect()
    assert network() is None


@pytest.mark.parametrize("strength", [float("nan"), "1", 1e300])
def test_a_strength_that_cannot_be_is_refused_by_every_call(
    engine: Engine, draw: Draw, ink: str, strength: Any
) -> None:
    engine.set_lora("ink", ink)
    inked = draw()
    for call in (lambda: engine.set_lora("ink", strength=strength), lambda: engine.merge_lora(strength=strength)):
        with pytest.raises(UsageError, match="strength: must be"):
            call()
    assert _alike(draw(), inked)


def test_any_failure_of_a_change_takes_it_back(
    engine: Engine, draw: Draw, ink: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = draw()

    def broken(*_: Any) -> None:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(Packed, "on", broken)
    with pytest.raises(RuntimeError):
        engine.set_lora("ink", ink)
    monkeypatch.undo()
    assert engine.list_loras()["active"] == {}
    assert _alike(draw(), base)
