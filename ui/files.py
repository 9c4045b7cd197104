"""Files on their way to the browser: addresses of what is served, and downloads that begin by themselves."""

from __future__ import annotations

import html
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from gradio.route_utils import API_PREFIX
from gradio.utils import get_upload_folder

from engine.errors import InputError
from ui.say import toast

KINDS = ("file", "image", "imageeditor", "imageslider", "gallery", "video", "uploadbutton")
GONE = "this file is not there any more; choose it again"
# A link that is pressed as soon as it is there; the address is another one each time.
PRESS_JS = "watch('value', () => { const link = element.querySelector('a'); if (link) link.click(); });"


def url(path: str | Path) -> str:
    """Return the address of a file that is served, relative to the page: a proxy may have put it below a prefix."""
    return f".{API_PREFIX}/file={quote(str(path))}"


def downloads() -> gr.HTML:
    """Place what starts downloads: give it a value of `download`. Nobody sees it."""
    return gr.HTML("", js_on_load=PRESS_JS, elem_classes="unseen", padding=False)


def download(path: str | Path) -> str:
    """Return the value of `downloads` that has the browser keep a file that is served."""
    told = html.escape(Path(path).name)
    return f'<a href="{html.escape(url(path))}" download="{told}" data-once="{secrets.token_hex(4)}">{told}</a>'


def guard(demo: gr.Blocks) -> None:
    """Have every event refuse files that are not the page's own copies.

    Gradio itself looks only at files that say of themselves that they are some, and only once it was launched.
    """
    inner = demo.preprocess_data

    async def preprocess_data(block_fn: Any, inputs: list[Any], *rest: Any, **more: Any) -> Any:
        for part, value in zip(block_fn.inputs, inputs, strict=False):
            if part.get_block_name() in KINDS:
                require_uploaded(value)
        return await inner(block_fn, inputs, *rest, **more)

    demo.preprocess_data = preprocess_data


def require_uploaded(value: Any) -> None:
    """Raise gr.Error when a value of a component names a file that is none of the page's own copies."""
    if isinstance(value, Mapping):
        path = value.get("path")
        folder = Path(get_upload_folder()).resolve()
        if isinstance(path, str) and not Path(path).resolve().is_relative_to(folder):
            raise toast(InputError(GONE))
        value = tuple(value.values())
    if isinstance(value, list | tuple):
        for entry in value:
            require_uploaded(entry)


def fresh(name: str, owner: gr.HTML) -> Path:
    """Return the path of a new file that is served for a while; it goes with the page's other copies."""
    folder = Path(get_upload_folder()) / secrets.token_hex(16)
    folder.mkdir(parents=True)
    path = folder / name
    owner.temp_files.add(str(path))
    return path
