"""Settings out of a file that is dropped anywhere onto the page, or out of a text that is pasted: into the widgets."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from engine import settings_text
from engine.catalog import ModelSpec
from engine.settings_text import LONGEST, Settings
from ui.fitting import Fitted
from ui.forms import FIELDS, label
from ui.page import QUIET
from ui.say import told

if TYPE_CHECKING:
    from ui.page import Page

BUTTON = (
    '<button type="button" class="import" data-import aria-label="Import" title="Load settings from a file or a text">'
    "<span>Import</span></button>"
)
DIALOG = """
<dialog class="import-dialog" aria-label="Import settings">
<form method="dialog">
<h3>Import settings</h3>
<p class="muted">Paste settings of this program or of AUTOMATIC1111, Forge, ComfyUI, InvokeAI, SwarmUI or Fooocus, or
choose a picture or clip that was made with one. You can also drop such a file anywhere onto the page.</p>
<textarea rows="8" aria-label="Settings" spellcheck="false" placeholder="Settings as text or JSON"></textarea>
<div class="line">
<button type="button" class="x file">Choose a file</button><span class="rest"></span>
<button type="button" class="x cancel">Cancel</button><button type="button" class="x run">Load</button>
</div>
</form>
</dialog>
"""
DIALOG_JS = """
const dialog = element.querySelector('dialog'), area = element.querySelector('textarea');
document.addEventListener('click', (event) => {
  if (event.target.closest('[data-import]')) { area.value = ''; dialog.showModal(); area.focus(); }
});
dialog.querySelector('.cancel').addEventListener('click', () => dialog.close());
dialog.querySelector('.file').addEventListener('click', () => {
  dialog.close();
  window.sgdiffDropped().click();
});
dialog.querySelector('.run').addEventListener('click', () => {
  if (!area.value.trim()) return area.focus();
  trigger('submit', {text: area.value});
  dialog.close();
});
"""
CLOSE_JS = "element.addEventListener('click', (event) => { if (event.target.closest('.x')) trigger('clear'); });"
EDITING = ("strength",)  # only what starts from a picture has these


def build(page: Page) -> None:
    """Place the note that tells what was loaded, above the tabs, and what takes the files and texts."""
    note = gr.HTML("", js_on_load=CLOSE_JS, padding=False, elem_classes="note-place")
    dialog = gr.HTML(DIALOG, js_on_load=DIALOG_JS, padding=False, elem_classes="unseen")
    dropped = gr.UploadButton("Settings file", elem_id="dropped", type="filepath")

    def loaded(settings: Settings) -> list[Any]:
        tab = page.able(tab_of(settings, page.desk.spec))
        here, fit = (page.model_id, page.desk.options.model_name()), page.fitted(settings.request, tab)
        return [summary(settings, fit, tab.capitalize(), here), *page.restored(fit.values, tab)]

    @told
    def of_file(path: str) -> list[Any]:
        return loaded(settings_text.of_file(path))

    @told
    def of_text(event: gr.EventData) -> list[Any]:
        return loaded(settings_text.of_text(str(event._data["text"])[: LONGEST + 1]))

    def connect() -> None:
        dropped.upload(of_file, [dropped], [note, *page.restore_outputs], **QUIET)
        dialog.submit(of_text, None, [note, *page.restore_outputs], **QUIET)

    note.clear(lambda: "", None, [note], **QUIET)
    page.later(connect)


def tab_of(settings: Settings, spec: ModelSpec | None) -> str:
    """Return the tab that settings are for."""
    if (settings.request.get("num_frames") or 1) > 1 or (spec is not None and spec.is_video):
        return "video"
    given = any(line.startswith("image_path:") for line in settings.ignored)
    return "edit" if given or any(name in settings.request for name in EDITING) else "generate"


def summary(settings: Settings, fit: Fitted, tab: str, here: tuple[str, ...]) -> str:
    """Return what was loaded from where, and what was changed or left out; `here` are names of the model that draws."""
    parts = [f"<b>Settings of {html.escape(settings.source)} are in {tab} now.</b>"] if fit.values else []
    parts += [html.escape(", ".join(said(name, fit.values) for name in fit.values) + ".")] if fit.values else []
    if settings.model and not any(_same(settings.model, name) for name in here if name):
        parts.append(f"Made with {html.escape(settings.model)}; {html.escape(here[-1])} draws now.")
    lists = _list("changed to what can be drawn here", fit.notes) + _list("left out", settings.ignored)
    return (
        f'<div class="note" role="status"><div>{" ".join(parts)}{lists}</div>'
        '<button type="button" class="x" aria-label="Close">Close</button></div>'
    )


def _list(what: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<details><summary>{len(lines)} {what}</summary><ul>{items}</ul></details>" if items else ""


def said(name: str, request: Mapping[str, Any]) -> str:
    """Return a setting in few words: numbers as they are, of texts the name alone."""
    value = request[name]
    if name == "loras":
        return "LoRA " + ", ".join(
            f"{Path(entry.get('path') or entry.get('name')).stem} × {entry.get('scale', 1.0):g}" for entry in value
        )
    if isinstance(value, bool | str | list | dict) and not FIELDS[name].choices:
        return label(name)
    return f"{label(name)} {value:g}" if isinstance(value, float) else f"{label(name)} {value}"


def _same(one: str, other: str) -> bool:
    return one.rpartition("/")[2].casefold() == other.rpartition("/")[2].casefold()
