"""Prompts and images become conditioning; the second text is asked for only when guidance needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from engine.engine import Engine
from engine.runtime.control import Control
from engine.types import Request, State


def _begin(engine: Engine, **fields: Any) -> State:
    assert engine.executor is not None
    request = engine.resolve(Request(prompt="x", height=48, width=64, seed=0, num_inference_steps=2, **fields))
    return engine.executor.scheduler.pipeline.begin(request, Control())


@pytest.mark.parametrize(
    ("fields", "guided"),
    [
        ({}, False),
        ({"negative_prompt": "y", "true_cfg_scale": 1.0}, False),
        ({"true_cfg_scale": 2.0}, False),
        ({"negative_prompt": "", "true_cfg_scale": 2.0}, True),
    ],
)
def test_the_unconditional_text_is_encoded_when_guidance_needs_it(
    flux: Engine, fields: dict[str, Any], guided: bool
) -> None:
    state = _begin(flux, **fields)
    assert (state.uncond is not None) is guided
    assert set(state.cond) == {"encoder_hidden_states", "pooled_projections", "txt_ids", "img_ids", "guidance"}


def test_conditioning_has_the_length_asked_for(flux: Engine) -> None:
    assert _begin(flux, max_sequence_length=9).cond["encoder_hidden_states"].shape[:2] == (1, 9)


def test_a_mask_is_one_where_it_is_white(flux: Engine, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "image.png")
    mask = Image.new("L", (64, 48), 0)
    mask.paste(255, (32, 0, 64, 48))
    mask.save(tmp_path / "mask.png")
    inputs = {"image_path": (str(tmp_path / "image.png"),), "mask_path": str(tmp_path / "mask.png")}
    state = _begin(flux, **inputs)
    assert state.mask is not None
    rows = state.mask[0].reshape(3, 4, -1)
    assert torch.equal(rows[:, :2], torch.zeros_like(rows[:, :2]))
    assert torch.equal(rows[:, 2:], torch.ones_like(rows[:, 2:]))
    assert _begin(flux, image_path=inputs["image_path"]).mask is None
