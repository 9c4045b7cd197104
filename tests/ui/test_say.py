"""What a page says: our messages as toasts, everything else as it is."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import gradio as gr
import pytest

from engine.errors import InputError, QueueFull, SgdiffError, UsageError
from tests.ui.desks import stepping
from ui import say
from ui.say import toast, told

WICKED = """<img src=x onerror=alert(1)>"'"""
SAFE = "&lt;img src=x onerror=alert(1)&gt;&quot;&#x27;"


@pytest.mark.parametrize(
    ("error", "title"),
    [
        (UsageError("width: must be a multiple of 16"), "Please check the settings"),
        (InputError("image_path: no picture"), "This file cannot be used"),
        (QueueFull("64 wait", retry_after=3), "The queue is full"),
        (SgdiffError("oh"), "That did not work"),
    ],
)
def test_a_toast_has_our_message_and_a_title(error: SgdiffError, title: str) -> None:
    shown = toast(error)
    assert shown.message == f'<span class="toast-own">{title}</span>{error.message}'
    assert (shown.title, shown.print_exception) == (title, False)


def test_a_message_is_never_html() -> None:
    assert toast(UsageError("got '<img src=x>'")).message.endswith(">got &#x27;&lt;img src=x&gt;&#x27;")


def test_what_is_told_is_never_html(monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[tuple[str, str]]()
    for name in ("Info", "Warning"):
        monkeypatch.setattr(gr, name, lambda message, title, **rest: told.append((message, title)))
    say.info(WICKED, WICKED)
    say.warn(WICKED, WICKED)
    say.warn_of(InputError(WICKED))
    assert [title for _, title in told] == [SAFE, SAFE, "This file cannot be used"]
    assert [message.rpartition("</span>")[2] for message, _ in told] == [SAFE] * 3


def test_toasts_are_made_in_one_place() -> None:
    """Elsewhere somebody would forget that they show HTML."""
    modules = [path for path in Path(say.__file__).parent.glob("*.py") if path.name != "say.py"]
    made = [path.name for path in modules if re.search(r"\bgr\.(Info|Warning|Error)\(", path.read_text("utf-8"))]
    assert len(modules) > 20 and made == []


def test_functions_and_generators_tell_what_went_wrong() -> None:
    @told
    def once(value: int) -> int:
        if value < 0:
            raise UsageError("value: must be at least 0")
        return value

    @told
    async def steps(value: int) -> AsyncIterator[int]:
        yield value
        raise UsageError("value: no more")

    assert once(2) == 2
    with pytest.raises(gr.Error, match="must be at least 0"):
        once(-1)
    page = stepping(steps(1))
    assert next(page) == 1
    with pytest.raises(gr.Error, match="no more"):
        next(page)


def test_what_is_no_message_for_users_passes() -> None:
    @told
    def broken() -> None:
        raise ValueError("a fault of ours")

    with pytest.raises(ValueError, match="a fault of ours"):
        broken()


def test_what_was_changed_is_one_toast_of_a_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = list[str]()
    monkeypatch.setattr(gr, "Warning", lambda message, **settings: shown.append(message))
    say.changed([])
    assert not shown
    say.changed([f"line {i} <b>" for i in range(9)])
    assert shown[0].startswith(f'<span class="toast-own">{say.CHANGED}</span>line 0 &lt;b&gt;<br>line 1')
    assert shown[0].endswith("line 5 &lt;b&gt;<br>and 3 more")
