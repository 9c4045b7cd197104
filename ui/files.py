"""Files on their way to the browser: addresses of what is served, and downloads that begin by themselves."""

from __future__ import annotations

import html
import secrets
from pathlib import Path
from urllib.parse import quote

import gradio as gr
from gradio.route_utils import API_PREFIX
from gradio.utils import get_upload_folder

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


def fresh(name: str, owner: gr.HTML) -> Path:
    """Return the path of a new file that is served for a while; it goes with the page's other copies."""
    folder = Path(get_upload_folder()) / secrets.token_hex(16)
    folder.mkdir(parents=True)
    path = folder / name
    owner.temp_files.add(str(path))
    return path
