"""Help pages: every setting by topic, and what is not built is marked."""

from __future__ import annotations

import pytest

from engine import schema
from sgdiff_app import help as texts
from sgdiff_app.settings import table, used_by


@pytest.mark.parametrize("command", ["generate", "serve", "bench"])
def test_every_flag_of_a_command_stands_in_its_help(command: str) -> None:
    page = texts.page(command, "")
    words = page.replace(",", " ").split()
    for setting in table().values():
        if not used_by(command, setting):
            continue
        assert {"--" + name.replace("_", "-") for name in setting.field.names} <= set(words)
        for inner in schema.fields(setting.field.group) if setting.field.group else ():
            assert f"{setting.field.flag}.{inner.replace('_', '-')}" in words


def test_topics_stand_in_the_order_of_the_tables() -> None:
    headings = [line[:-1] for line in texts.page("generate", "").splitlines() if line.endswith(":") and line[0] != " "]
    assert headings == [
        "Model and loading", "Precision and VAE", "Parallelism", "Attention", "Memory and offload", "LoRA at start",
        "Quantization", "Compile, graphs, warm-up", "Step caching and prompt cache", "Sampling", "Output",
        "Post-processing", "Profiling", "Server", "Program",
    ]  # fmt: skip


def test_what_is_not_built_is_marked() -> None:
    lines = texts.page("generate", "").splitlines()
    assert "  --num-gpus INT                    GPUs in all; default 1 (not available yet)" in lines
    assert "  --warmup                          = --warmup-mode request (not available yet)" in lines
    assert "  --720p                            = --size 1280x720" in lines
    executor = next(line for line in lines if line.startswith("  --executor"))
    assert executor.endswith("default auto; not available yet: process, ray")
    assert not next(line for line in lines if line.startswith("  --strength")).endswith(texts.LATER)
