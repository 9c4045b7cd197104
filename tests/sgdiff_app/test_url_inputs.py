"""`generate` with images by URL: drawn from what lies there, fetched once, checked by a dry run, refused in a line."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import fetch

WORDS = ("generate", "--prompt", "x", "--steps", "2", "--strength", "0.5", "--seed", "3", "-q")


class Place(http.server.ThreadingHTTPServer):
    """Serves the files of the working folder on this machine, and counts."""

    asked: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.SimpleHTTPRequestHandler):
    server: Place

    def log_message(self, *_: object) -> None:
        self.server.asked.append(self.path)


@pytest.fixture
def place(_own_folder: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name, size in (("in.png", (32, 48)), ("mask.png", (32, 48))):
        Image.effect_noise(size, 90).save(name)
    monkeypatch.setattr(fetch, "DEFAULT", fetch.Rules(allow_hosts=("127.0.0.1",), pause_s=0.0))
    server = Place(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_url_draws_what_its_file_draws_and_is_fetched_once(
    cli: Callable[..., Any], flux_folder: Path, place: Place
) -> None:
    words = ("generate", "--prompt", "x", "y", *WORDS[3:], "--model-path", flux_folder)
    url = f"{place.url}/in.png"
    by_url = cli(*words, "--image-path", url, "--mask-path", f"{place.url}/mask.png", "--perf-dump-path", "perf.json")
    assert (by_url.status, by_url.err) == (0, "")
    assert sorted(place.asked) == ["/in.png", "/mask.png"]
    by_file = cli(*words, "--image-path", "in.png", "--mask-path", "mask.png")
    for first, second in zip(by_url.out.splitlines(), by_file.out.splitlines(), strict=True):
        one, other = Image.open(first), Image.open(second)
        assert np.array_equal(np.asarray(one), np.asarray(other))
        recipes = [json.loads(image.text["sgdiff"]) for image in (one, other)]  # type: ignore[attr-defined]
        assert recipes[0]["inputs"] == recipes[1]["inputs"]
        assert url not in json.dumps(recipes[0])
    assert json.loads(Path("perf.json").read_text())["meta"]["request"]["image_path"] == ["data:image/png"]


def test_a_dry_run_fetches_too(cli: Callable[..., Any], flux_folder: Path, place: Place) -> None:
    words = ("generate", "--prompt", "x", "--model-path", flux_folder, "--dry-run", "--image-path")
    assert cli(*words, f"{place.url}/in.png").status == 0
    assert place.asked == ["/in.png"]
    answer = cli(*words, f"{place.url}/gone.png?key=1")
    message = f"Failed to process image source: {place.url}/gone.png: the server answered 404"
    assert answer == (2, "", f"error: {message}\n")
    answer = cli(*words, f"{place.url}/gone.png", "--json")
    assert json.loads(answer.out)["error"] == {"code": "image_fetch_failed", "message": message}


@pytest.mark.parametrize(
    ("source", "words", "message"),
    [
        ("http://127.0.0.1/a.png", (),
         "Failed to process image source: http://127.0.0.1/a.png: its host is not on the public internet"),
        ("ftp://host/a.png", (),
         "image_path: ftp://host/a.png: must be a file, an http(s) URL or a data URI of an image"),
        ("https://host/a.png", ("--offline",),
         "Failed to process image source: https://host/a.png: --offline forbids to fetch it"),
    ],
)  # fmt: skip
def test_what_is_refused(
    refused: Callable[..., str], flux_folder: Path, source: str, words: tuple[str, ...], message: str
) -> None:
    found = refused("generate", "--prompt", "x", "--model-path", flux_folder, "--image-path", source, *words)
    assert found == message


def test_nothing_is_fetched_for_a_model_that_takes_no_image(
    cli: Callable[..., Any], wan_folder: Path, place: Place
) -> None:
    words = ("--prompt", "x", "--model-path", wan_folder, "--image-path", f"{place.url}/in.png")
    answer = cli("generate", *words, "--dry-run")
    assert answer.status == 2
    assert answer.err.startswith("error: image_path: not used by ")
    assert place.asked == []
