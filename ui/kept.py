"""What the forms are set to, kept in the browser by tab and model, and shown again when the page is loaded."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from engine.errors import SgdiffError
from ui import say
from ui.fitting import fitted
from ui.forms import Form, used

if TYPE_CHECKING:
    from engine.catalog import ModelSpec
    from ui.page import Page

LONGEST = 2**22  # characters of all that a browser keeps
READ_JS = "(text, ...written) => [window.sgdiffKept(), ...written]"
Kept = Mapping[str, Any]


class Keeper:
    """One per page, placed inside the Blocks. The browser writes under the model that `stamp` names.

    That is empty until the forms show what was kept: what they show before is not worth keeping.
    """

    def __init__(self) -> None:
        self.text = gr.Textbox(visible=False)
        self.stamp = gr.HTML("", elem_classes="unseen", padding=False)

    def connect(self, page: Page, demo: gr.Blocks, changed: gr.State, quiet: Mapping[str, Any]) -> None:
        """Have the browser keep every form, and show what it keeps at first and when the model has `changed`."""
        forms = page.forms
        for tab, form in forms.items():
            keep = f"(...values) => window.sgdiffKeep({json.dumps(tab)}, {json.dumps([*form.entries])}, values)"
            gr.on([part.change for part in form.components], None, form.components, None, js=keep, **quiet)
        prompts = [form["prompt"] for form in forms.values()]
        parts = [part for form in forms.values() for part in form.components]

        def show(fresh: bool, text: object, *written: str) -> list[Any]:
            spec, bound = page.desk.spec, page.desk.queue.served.max_pixels
            updates, notes = shown(forms, spec, of_text(text), written, fresh=fresh, max_pixels=bound)
            say.changed(notes)
            return [stamped(spec), *updates]

        given, outputs = [self.text, *prompts], [self.stamp, *parts]
        demo.load(partial(show, False), given, outputs, js=READ_JS, **quiet)
        changed.change(partial(show, True), given, outputs, js=READ_JS, **quiet)


def shown(
    forms: Mapping[str, Form],
    spec: ModelSpec | None,
    kept: Kept,
    written: Sequence[str],
    *,
    fresh: bool,
    max_pixels: int | None = None,
) -> tuple[list[Any], list[str]]:
    """Return the updates of all forms that show what a browser keeps of them for a model, and what had to be changed.

    A form of which nothing is kept stays as it is, or shows the model's defaults when it is a `fresh` model. A prompt
    that is `written` already stays in any case.
    """
    updates, notes = list[Any](), list[str]()
    for (tab, form), prompt in zip(forms.items(), written, strict=True):
        of_tab = kept.get(tab)
        raw = of_tab.get(spec.id) if spec is not None and isinstance(of_tab, dict) else None
        if isinstance(raw, dict):
            fit = fitted(values(form, raw, spec), form.entries, spec, max_pixels=max_pixels)
            notes += fit.notes
            found = form.updates(fit.values, spec)
            updates += [
                gr.skip() if prompt and name == "prompt" else u for name, u in zip(form.entries, found, strict=True)
            ]
        else:
            updates += form.defaults(spec) if fresh else [gr.skip()] * len(form.components)
    return updates, notes


def stamped(spec: ModelSpec | None) -> str:
    """Return what names the model under which the browser keeps the forms from now on; none while none is known."""
    return f'<i data-kept-for="{html.escape(spec.id)}"></i>' if spec is not None else ""


def of_text(text: object) -> Kept:
    """Return what a browser keeps, by tab and model; whatever it sends may be anything."""
    if not isinstance(text, str) or len(text) > LONGEST:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def values(form: Form, raw: Any, spec: ModelSpec | None) -> dict[str, Any]:
    """Return the fields of what a browser keeps of a form; what cannot be read is left to its default.

    What the model does not use was never set by anybody: a hidden slider holds 0 in some browsers.
    """
    found = dict[str, Any]()
    for name, entry in form.entries.items():
        if isinstance(raw, Mapping) and name in raw and used(name, spec):
            try:
                found[name] = entry.read(raw[name])
            except (SgdiffError, TypeError, ValueError, AttributeError, OverflowError):
                continue
    return found
