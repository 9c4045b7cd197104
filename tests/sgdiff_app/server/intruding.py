"""What a page must not give, however it is served: files of this machine, files of other servers."""

from __future__ import annotations

import itertools
from pathlib import Path

import httpx
from PIL import Image

FILES = ("file", "image", "imageeditor", "gallery", "video", "uploadbutton")
ELSEWHERE = ("http://example.com/x.png", "HTTPS:/example.com/x.png", "//http://example.com/x.png")


def asked(client: httpx.Client, folder: Path, copies: Path) -> int:
    """Ask every event with a file among its inputs for one of the server's own; return how many were asked.

    `copies` is where the page keeps its own copies of files.
    """
    folder.mkdir()
    (folder / "settings.yaml").write_text("prompt: hunter2\npassword: hunter2\n")
    Image.new("RGB", (16, 16), (1, 2, 3)).save(folder / "hunter2.png")
    config = client.get("/config").json()
    kinds = {part["id"]: part["type"] for part in config["components"]}
    count = 0
    for event in config["dependencies"]:
        at = [i for i, part in enumerate(event["inputs"]) if kinds[part] in FILES]
        for path, marked in itertools.product(folder.iterdir() if at else (), (True, False)):
            given = {"path": str(path), **({"meta": {"_type": "gradio.FileData"}} if marked else {})}
            values = [given if i in at else None for i in range(len(event["inputs"]))]
            for data in (values, [[value] if i in at else value for i, value in enumerate(values)]):
                told = {"data": data, "fn_index": event["id"], "session_hash": f"s{count}", "trigger_id": None}
                if client.post("/gradio_api/queue/join", json=told).status_code == 200:
                    answer = client.get(f"/gradio_api/queue/data?session_hash=s{count}").text
                    assert "is not there any more" in answer, (event["targets"], answer)
                    count += 1
    found = [path for path in copies.rglob("*") if path.is_file()]
    assert all(path.read_bytes() != (folder / "hunter2.png").read_bytes() for path in found)
    return count


def other_servers(client: httpx.Client) -> None:
    """Ask for files of other servers, which Gradio would fetch."""
    for target in ELSEWHERE:
        for mark in ("=", "%3D"):
            answer = client.get(f"/gradio_api/file{mark}{target}")
            assert (answer.status_code, answer.json()["detail"]) == (404, "files of other servers are not given")
