"""The head of a LoRA file: read without its tensors, with the words that it wants in a prompt."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

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


def _entry(start: int, end: float, dtype: object = "F32", shape: object = (2, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


DAMAGED, OTHER = "is cut off or damaged; download it again", "is no safetensors file"


@pytest.mark.parametrize(
    ("tensors", "size", "words"),
    [
        ({"a": _entry(0, 32), "b": _entry(36, 68)}, 68, DAMAGED),  # bytes that belong to nothing
        ({"a": _entry(0, 32), "b": _entry(0, 32), "c": _entry(32, 64)}, 64, DAMAGED),  # bytes that belong to two
        ({"a": _entry(0, 32, shape=[10**9, 4])}, 32, DAMAGED),
        ({"a": _entry(0, 32, shape=[-2, -4])}, 32, DAMAGED),
        ({"a": _entry(0, 32, shape="24")}, 32, DAMAGED),
        ({"a": _entry(0, 32, dtype="BF16")}, 32, DAMAGED),
        ({"a": _entry(-32, 0), "b": _entry(0, 32)}, 32, DAMAGED),
        ({"a": _entry(0, 32.0)}, 32, DAMAGED),
        ({"a": _entry(0, 32)}, 33, DAMAGED),
        ({"a": _entry(0, 32, dtype=[])}, 32, OTHER),
        ({"a": {"dtype": "F32"}}, 32, OTHER),
        ({"a": 5}, 0, OTHER),
        ([], 0, OTHER),
    ],
)
def test_a_header_that_does_not_fit_its_file_is_refused(tensors: Any, size: int, words: str, tmp_path: Path) -> None:
    text, path = json.dumps(tensors).encode(), tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
    with pytest.raises(UsageError, match=words) as caught:
        header.read(path)
    assert caught.value.code == "lora_incompatible"


@pytest.mark.parametrize("length", [2**63, 2**40, 99 * 2**20])
def test_a_header_that_claims_more_than_there_is_takes_no_memory(length: int, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(UsageError, match=r"no safetensors file|cut off or damaged"):
        header.read(path)


def test_json_that_is_nested_too_deep_is_refused_or_passed_over(tmp_path: Path) -> None:
    deep, path = "[" * 100_000, tmp_path / "a.safetensors"
    path.write_bytes(len(deep).to_bytes(8, "little") + deep.encode())
    with pytest.raises(UsageError, match="no safetensors file"):
        header.read(path)
    assert header.settings({"lora_adapter_metadata": deep}) == {}
    assert header.tags({"ss_tag_frequency": deep}) == ()
    assert header.triggers({"trigger_words": deep}) == (deep,)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="is no regular file"):
        header.read(tmp_path / "a.safetensors")


def test_settings_are_those_of_the_component() -> None:
    told = {"transformer.lora_alpha": 4, "transformer_2.lora_alpha": 6, "text_encoder.lora_alpha": 8}
    metadata = {"lora_adapter_metadata": json.dumps(told)}
    for target, alpha in (("transformer", 4), ("transformer_2", 6), ("text_encoder", 8), ("unet", 4)):
        assert header.settings(metadata, target=target) == {"lora_alpha": alpha}
    assert header.settings(metadata, target="text_encoder_2") == {}
    assert header.settings({"lora_adapter_metadata": '{"lora_alpha": 2}'}) == {"lora_alpha": 2}


def test_words_of_a_file_do_nothing_to_a_terminal() -> None:
    assert header.printable("\x1b[31mred\nline") == "?[31mred?line"
    assert header.printable("caf\u00e9 \u6f2b\u753b") == "caf\u00e9 \u6f2b\u753b"
    assert header.printable("x" * 1000) == "x" * 97 + "..."


def test_numbers_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    values = {
        "a.alpha": torch.tensor(float("nan")),
        "b.alpha": torch.tensor(float("inf")),
        "c.alpha": torch.tensor(2.0),
    }
    save_file(values, tmp_path / "a.safetensors")
    assert header.scalars(tmp_path / "a.safetensors", header.read(tmp_path / "a.safetensors").tensors) == {2.0}
