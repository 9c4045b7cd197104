"""The head of a LoRA file: read without its tensors, with the words that it wants in a prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import UsageError
from engine.lora import header


def test_shapes_types_and_metadata_are_read_without_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x.lora_A.weight": torch.zeros(3, 8, dtype=torch.bfloat16)}, path, metadata={"note": "hello"})
    head = header.read(path)
    tensor = head.tensors["x.lora_A.weight"]
    assert (tensor.dtype, tensor.shape) == ("BF16", (3, 8)) and head.metadata == {"note": "hello"}
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match="cut off or damaged"):
        header.read(path)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"modelspec.trigger_phrase": "pxl style"}, ("pxl style",)),
        ({"trigger_words": '["pixel art", "8 bit"]'}, ("pixel art", "8 bit")),
        ({"trigger_words": "pixel art, 8 bit, pixel art"}, ("pixel art", "8 bit")),
        ({"trigger_word": " "}, ()),
        ({}, ()),
    ],
)
def test_trigger_words_are_found_where_trainers_put_them(metadata: dict[str, str], words: tuple[str, ...]) -> None:
    assert header.triggers(metadata) == words


def test_the_most_frequent_training_words_come_first() -> None:
    counts = {"1_a": {"cat": 3, "pxl": 9}, "2_b": {"cat": 4}}
    assert header.tags({"ss_tag_frequency": json.dumps(counts)}) == ("pxl", "cat")
    assert header.tags({"ss_tag_frequency": "no json"}) == ()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_single_numbers_are_read_in_every_type(dtype: torch.dtype, tmp_path: Path) -> None:
    values = {"a.alpha": torch.tensor(6.0).to(dtype), "b.alpha": torch.tensor([8.0]).to(dtype)}
    save_file(values | {"c": torch.ones(3)}, tmp_path / "a.safetensors")
    assert header.scalars(tmp_path / "a.safetensors", header.read(tmp_path / "a.safetensors").tensors) == {6.0, 8.0}
