"""What sliders may be given: a cleared one asks for the default where there is one, the rest must be in its reach."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real
from typing import Any

import gradio as gr

from engine.errors import UsageError, shown
from ui.say import toast


def guard(demo: gr.Blocks, optional: Iterable[Any]) -> None:
    """Have every event take sliders that were cleared, those of `optional` as None, and tell what is wrong by name.

    Gradio itself would compare None with a number, and tells of a bound without saying whose it is.
    """
    inner, may_be_empty = demo.preprocess_data, {part._id for part in optional}

    async def preprocess_data(block_fn: Any, inputs: list[Any], state: Any, *rest: Any, **more: Any) -> Any:
        given, empty = list(inputs), []
        for i, (part, value) in enumerate(zip(block_fn.inputs, inputs, strict=False)):
            if not isinstance(part, gr.Slider):
                continue
            slider = state[part._id] if state is not None else part  # as this window was shown it last
            if value is None and part._id in may_be_empty:
                given[i] = slider.minimum
                empty.append(i)
            else:
                require_in_reach(slider, value)
        found = await inner(block_fn, given, state, *rest, **more)
        for i in empty:
            found[i] = None
        return found

    demo.preprocess_data = preprocess_data


def require_in_reach(slider: gr.Slider, value: Any) -> None:
    """Raise gr.Error for what is no number between the ends of a slider."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if number and slider.minimum <= value <= slider.maximum:
        return
    allowed = f"must be a number from {slider.minimum:g} to {slider.maximum:g}"
    got = "nothing" if value is None else shown(value)
    raise toast(UsageError(f"{slider.label}: {allowed}, got {got}"))
