"""A Space: the page and the API on one port of Gradio's own server, open to strangers or with a key."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from engine import env
from engine.jobs import inline
from engine.jobs.inline import Fence
from sgdiff_app import config
from sgdiff_app.server import space
from tests.engine.jobs.flat import FlatEngine
from tests.sgdiff_app.server import intruding

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's own server, in threads of this process
ASKED = {"prompt": "a hill", "size": "16x16", "seed": 3, "response_format": "b64_json"}
Opener = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def opened() -> Iterator[Opener]:
    """Serve Spaces whose engine draws flat colours; return clients of them."""
    ends: list[Callable[[], Any]] = []
    patch = pytest.MonkeyPatch()
    patch.setattr(inline, "Engine", FlatEngine)
    patch.setenv("GRADIO_TEMP_DIR", "")  # which a Space sets for its process
    patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")

    def start(*flags: str, fence: Fence | None = None) -> httpx.Client:
        there = space.build(config.load(flags, "serve"), env.read(), None, fence)
        page, url = there.start()
        client = httpx.Client(base_url=url, timeout=30)
        ends.extend((there.close, page.close, client.close))
        client.headers["x-data"] = str(there.data)
        return client

    yield start
    for end in reversed(ends):
        end()
    patch.undo()


@pytest.fixture(scope="module")
def client(opened: Opener) -> httpx.Client:
    return opened(fence=Fence(caps={"num_inference_steps": 30}, loras=("neon-night",)))


def test_the_page_and_the_api_answer_on_one_port(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.status_code == 200 and "gradio" in page.text
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/v1/models").json()["data"][0]["id"] == "tiny-scenes"
    assert client.get("/config").json()["title"] == "sgdiff-app"


def test_a_picture_is_drawn_by_the_api(client: httpx.Client) -> None:
    answer = client.post("/v1/images/generations", json=ASKED)
    assert answer.status_code == 200, answer.text
    picture = Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"])))
    assert picture.size == (16, 16) and picture.getpixel((3, 3)) == (7, 7, 7)


def test_what_one_request_may_ask_for_is_bounded(client: httpx.Client) -> None:
    answer = client.post("/v1/images/generations", json={**ASKED, "num_inference_steps": 31})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "num_inference_steps: must be at most 30 for tiny-scenes, got 31"
    answer = client.post("/v1/images/generations", json={**ASKED, "loras": [{"path": "pixel-art"}]})
    assert answer.json()["error"]["message"] == "loras: must be among neon-night; got 'pixel-art'"


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/videos", "/v1/set_lora", "/v1/nothing"])
def test_what_shows_or_changes_what_is_of_others_is_not_there(client: httpx.Client, path: str) -> None:
    assert client.get(path).json()["error"]["code"] == "not_found"


def test_the_model_stays(client: httpx.Client) -> None:
    answer = client.post("/v1/models/load", json={"model": "other"})
    assert answer.json()["error"]["code"] == "model_switch_disabled"


def test_the_database_is_not_served(client: httpx.Client) -> None:
    data = Path(client.headers["x-data"])
    assert (data / "jobs.sqlite3").is_file()
    assert client.get(f"/gradio_api/file={data / 'jobs.sqlite3'}").status_code == 403


def test_files_of_the_machine_are_not_served(client: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    for path in (tmp_path / "secret.txt", "/etc/hostname", Path(__file__), Path(env.__file__)):
        assert client.get(f"/gradio_api/file={path}").status_code in (403, 404), path


def test_events_take_no_file_that_was_not_uploaded(client: httpx.Client, tmp_path: Path) -> None:
    assert intruding.asked(client, tmp_path / "private", Path(client.headers["x-data"], "page")) > 5


def test_files_of_other_servers_are_not_given(client: httpx.Client) -> None:
    intruding.other_servers(client)


def test_with_a_key_the_whole_api_is_there_for_who_has_it(opened: Opener) -> None:
    client = opened("--api-key", "secret")
    assert client.get("/").status_code == 200
    assert client.post("/v1/images/generations", json=ASKED).status_code == 401
    key = {"authorization": "Bearer secret"}
    assert client.post("/v1/images/generations", json=ASKED, headers=key).status_code == 200
    assert len(client.get("/v1/jobs", headers=key).json()["data"]) == 1


def test_the_defaults_of_a_space_give_way_to_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPACE_HOST", "SPACES_ZERO_GPU"):
        monkeypatch.delenv(name, raising=False)
    plain = space.options_of(config.load((), "serve"))
    assert (plain.output_ttl, plain.model_switch, plain.max_running, plain.allowed_hosts) == ("2h", False, 1, None)
    monkeypatch.setenv("SPACE_HOST", "org-name.hf.space")
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    given = space.options_of(config.load(("--output-ttl", "10m"), "serve"))
    assert (given.output_ttl, given.max_running, given.allowed_hosts) == ("10m", None, ("*",))
    assert given.public_base_url == "https://org-name.hf.space"


def test_closing_leaves_no_files() -> None:
    there = space.build(config.load((), "serve"), env.read())
    assert there.data.is_dir()
    there.close()
    assert not there.data.exists()
