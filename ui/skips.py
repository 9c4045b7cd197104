"""Outputs that an event skips: passed over, where Gradio would make each of them anew, with all that describes it."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import gradio as gr


def spare(demo: gr.Blocks) -> None:
    """Have no event of a page work for what it skips: whoever follows jobs skips nearly everything, all the time."""
    inner: Callable[..., Awaitable[list[Any]]] = demo.postprocess_data

    async def postprocess_data(block_fn: Any, predictions: Any, *rest: Any) -> list[Any]:
        outputs = block_fn.outputs
        if not isinstance(predictions, Sequence) or len(predictions) != len(outputs) or len(outputs) < 2:
            return await inner(block_fn, predictions, *rest)
        kept = [i for i, value in enumerate(predictions) if not is_skip(value)]
        told = [None if block.stateful else gr.skip() for block in outputs]
        if kept:
            part = copy.copy(block_fn)
            part.outputs = [outputs[i] for i in kept]
            given = [predictions[i] for i in kept]
            found = await inner(part, given if len(given) > 1 else given[0], *rest)
            for i, value in zip(kept, found, strict=True):
                told[i] = value
        return told

    demo.postprocess_data = postprocess_data


def is_skip(value: object) -> bool:
    """Say whether a value leaves its component as it is."""
    return isinstance(value, dict) and value == gr.skip()
