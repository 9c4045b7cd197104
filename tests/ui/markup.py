"""Text that is no markup: what a prompt or a name may hold, and whether a piece of HTML shows it as it is."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from engine.jobs import Job
from engine.jobs.job import new_id
from engine.types import Artifact, LoraRef, Request

WICKED = """<img src=x onerror=alert(1)>"'"""


class Parts(HTMLParser):
    """Collects what is text, what attributes hold, and what is neither our markup nor that."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.texts, self.wrong = list[str](), list[str]()
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            self.texts.append(value or "")
            if not re.fullmatch(r"[a-z][a-z0-9-]*", name) or name.startswith("on") or (name, value) == ("src", "x"):
                self.wrong.append(f"<{tag} {name}={value}>")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def shown(markup: str) -> int:
    """Return how often the text is shown by a piece of HTML; it must never be a part of it."""
    parts = Parts(markup)
    assert not parts.wrong, f"{parts.wrong} in {markup}"
    return sum(text.count(WICKED) for text in parts.texts)


def wicked(status: str = "done", path: str = "") -> Job:
    """Return a job every text of which is what nobody should trust."""
    loras = (LoraRef(name=WICKED, path=f"/loras/{WICKED}.safetensors"),)
    request = Request(prompt=WICKED, negative_prompt=WICKED, loras=loras, seed=1)
    job = Job(new_id("img"), "image", WICKED, WICKED, request, request, status=status)  # type: ignore[arg-type]
    job.artifacts = [Artifact(path or f"/out/{WICKED}.png", "image/png", 64, 64, 1, 1)]
    job.error = {"code": WICKED, "message": WICKED} if status == "failed" else None
    job.stage, job.notes = WICKED, {"client": WICKED, "tab": WICKED}
    return job
