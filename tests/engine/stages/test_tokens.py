"""How long a run is, in tokens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from engine.engine import Engine
from engine.stages import tokens


def state(**fields: Any) -> Any:
    empty = {"latents": None, "image_latents": None, "reference": None}
    return SimpleNamespace(**{**empty, "request": SimpleNamespace(prompt="a b c"), **fields})


def words(prompt: str) -> dict[str, list[int]]:
    return {"input_ids": [1] * len(prompt.split())}


def test_of_a_real_run(flux: Engine) -> None:
    [output] = flux.generate("a red fox", height=32, width=64, num_inference_steps=1)
    long = flux.generate("a red fox in the deep snow", height=32, width=64, num_inference_steps=1)[0].timings.tokens
    found = output.timings.tokens
    assert found["image"] == 0 and found["latents"] > 0 and 3 <= found["text"] < long["text"] < 40
    larger = flux.generate("a red fox", height=64, width=64, num_inference_steps=1)[0].timings.tokens
    assert larger["latents"] == 2 * found["latents"] and larger["text"] == found["text"]


def test_the_main_text_encoder_counts_the_prompt() -> None:
    parts = {"tokenizer": lambda prompt: {"input_ids": [1] * 77}, "tokenizer_2": words, "vae": None}
    assert tokens.count(parts, state())["text"] == 3
    assert tokens.count({"tokenizer": words, "tokenizer_2": None}, state())["text"] == 3
    assert tokens.count({}, state())["text"] == 0
    assert tokens.count({"tokenizer": words}, state(request=SimpleNamespace(prompt=None)))["text"] == 0


def test_latents_packed_and_not() -> None:
    assert tokens.count({}, state(latents=torch.zeros(1, 24, 64)))["latents"] == 24
    network = SimpleNamespace(config={"patch_size": 2})
    assert tokens.count({"transformer": network}, state(latents=torch.zeros(1, 4, 8, 6)))["latents"] == 12
    network = SimpleNamespace(config={"patch_size": (1, 2, 2)})
    assert tokens.count({"transformer": network}, state(latents=torch.zeros(1, 4, 3, 8, 6)))["latents"] == 36


def test_input_images_count_apart() -> None:
    given = state(image_latents=torch.zeros(1, 10, 64), reference=torch.zeros(1, 5, 64))
    assert tokens.count({}, given) == {"text": 0, "image": 15, "latents": 0}
