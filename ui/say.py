"""What a page says in toasts: one place where they are made, of our errors and of what else is to be told."""

from __future__ import annotations

import functools
import html
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import gradio as gr

from engine.errors import InputError, NotFound, QueueFull, SgdiffError, UsageError

F = TypeVar("F", bound=Callable[..., Any])
SHORT_S = 10.0  # that a toast stays
CHANGED = "Not everything could be loaded as it was"
MOST = 6  # lines of a toast
LONG_S = 30  # that a toast of several lines stays
TITLES = (
    (InputError, "This file cannot be used"),
    (UsageError, "Please check the settings"),
    (QueueFull, "The queue is full"),
    (NotFound, "Not there any more"),
    (SgdiffError, "That did not work"),
)


def toast(error: SgdiffError) -> gr.Error:
    """Return the toast of an error; its message names the field and the allowed values. Toasts show HTML.

    Gradio's page calls every raised error "Error", whatever its title: ours stands above the message, in its place.
    """
    title = next(title for kind, title in TITLES if isinstance(error, kind))
    message = f'<span class="toast-own">{html.escape(title)}</span>{html.escape(error.message)}'
    return gr.Error(message, title=title, print_exception=False)


def changed(notes: Sequence[str]) -> None:
    """Tell what of settings that were loaded is not as it was."""
    if notes:
        rest = [f"and {len(notes) - MOST} more"] if len(notes) > MOST else []
        lines = "<br>".join(html.escape(line) for line in [*notes[:MOST], *rest])
        gr.Warning(f'<span class="toast-own">{CHANGED}</span>{lines}', title=CHANGED, duration=LONG_S)


def info(message: str, title: str, seconds: float = SHORT_S) -> None:
    """Tell something in a toast. Toasts show HTML: what is told is text."""
    gr.Info(html.escape(message), duration=seconds, title=html.escape(title))


def warn(message: str, title: str) -> None:
    """Tell in a toast what somebody may not have meant."""
    gr.Warning(html.escape(message), title=html.escape(title))


def warn_of(error: SgdiffError) -> None:
    """Tell of an error that ends nothing."""
    said = toast(error)
    gr.Warning(said.message, title=said.title)


def told(handler: F) -> F:
    """Decorate an event handler: what it raises for the user becomes a toast.

    It is a function, or an asynchronous generator: another one would hold a thread for as long as it goes on.
    """
    if inspect.isasyncgenfunction(handler):

        @functools.wraps(handler)
        async def steps(*values: Any) -> AsyncIterator[Any]:
            try:
                async with aclosing(handler(*values)) as found:
                    async for value in found:
                        yield value
            except SgdiffError as error:
                raise toast(error) from error

        return steps  # type: ignore[return-value]

    @functools.wraps(handler)
    def once(*values: Any) -> Any:
        try:
            return handler(*values)
        except SgdiffError as error:
            raise toast(error) from error

    return once  # type: ignore[return-value]
