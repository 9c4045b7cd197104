"""The page beside the API: which paths are whose, and that a headless server has none."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from sgdiff_app.server.pages import desk_of
from tests.sgdiff_app.server import intruding
from tests.sgdiff_app.server.serving import Running, Server


@pytest.fixture(scope="module")
def paged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with its page."""
    with Server(folder=tmp_path_factory.mktemp("paged"), page=True) as running:
        yield running


def test_the_page_and_the_api_share_a_port(paged: Running) -> None:
    page = paged.client.get("/")
    assert page.status_code == 200 and "gradio" in page.text
    assert paged.client.get("/health").json() == {"status": "ok"}
    assert paged.client.get("/v1/models").json()["data"][0]["id"] == "tiny-scenes"


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", "/v1/nothing/at/all", "//v1/nothing", "/v1/index.html"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_what_is_below_the_api_is_never_a_page(paged: Running, method: str, path: str) -> None:
    answer = paged.client.request(method, f"{paged.url}{path}", headers={"accept": "text/html"})
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")
    assert answer.json()["error"]["code"] == "not_found"


def test_a_method_that_a_route_of_the_api_lacks_is_not_asked_of_the_page(paged: Running) -> None:
    assert paged.client.delete("/v1/models").json()["error"]["code"] == "method_not_allowed"


def test_files_outside_the_outputs_are_not_served(paged: Running) -> None:
    folder = Path(paged.service.data)
    (folder / "secret.txt").write_text("secret")
    (folder.parent / "outputs").mkdir(exist_ok=True)
    (folder.parent / "outputs" / "picture.txt").write_text("drawn")
    served = paged.client.get(f"/gradio_api/file={folder.parent / 'outputs' / 'picture.txt'}")
    assert served.text == "drawn"
    for path in (folder / "secret.txt", folder / "jobs.sqlite3", "/etc/hostname", Path(__file__)):
        assert paged.client.get(f"/gradio_api/file={path}").status_code in (403, 404), path


@pytest.mark.filterwarnings("ignore")  # Gradio sums up many events with an option that pandas warns of
def test_events_take_no_file_that_was_not_uploaded(paged: Running) -> None:
    data = Path(paged.service.data)
    assert intruding.asked(paged.client, data.parent / "private", data / "page") > 20


def test_files_of_other_servers_are_not_given(paged: Running) -> None:
    intruding.other_servers(paged.client)


def test_a_page_answers_while_many_windows_follow_their_jobs(paged: Running) -> None:
    desk = desk_of(paged.service)
    jobs = [desk.submit(desk.request({"prompt": "a very slow hill"}), "client", "generate") for _ in range(9)]
    loads = [event for event in paged.client.get("/config").json()["dependencies"] if "load" in str(event["targets"])]
    follow = next(event["id"] for event in loads if event["types"]["generator"])
    other = next(event for event in loads if event["backend_fn"] and not event["types"]["generator"])
    begin = {"trigger_id": None, "event_data": None}
    for i in range(60):
        window = {"data": ["client", None], "fn_index": follow, "session_hash": f"window{i}", **begin}
        assert paged.client.post("/gradio_api/queue/join", json=window).status_code == 200
    ask = {"data": [[]] * len(other["inputs"]), "fn_index": other["id"], "session_hash": "another", **begin}
    assert paged.client.post("/gradio_api/queue/join", json=ask).status_code == 200
    answer = paged.client.get("/gradio_api/queue/data?session_hash=another", timeout=30).text
    assert "process_completed" in answer
    assert desk.queue.store.get(jobs[-1].id).status == "queued", "the windows still follow"
    for job in jobs:
        desk.cancel(job.id)


def test_the_page_can_be_installed(paged: Running) -> None:
    answer = paged.client.get("/manifest.json")
    assert answer.headers["content-type"] == "application/manifest+json"
    told = answer.json()
    assert (told["start_url"], told["display"]) == ("./", "standalone")
    for icon in told["icons"]:
        assert icon["src"].startswith("./"), "below whatever prefix"
        with Image.open(io.BytesIO(paged.client.get(icon["src"][1:]).content)) as found:
            assert f"{found.width}x{found.height}" == icon["sizes"]


def test_what_a_page_asks_all_the_time_is_not_told(paged: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "sgdiff.sgdiff_app.server.gate"):
        paged.client.get("/config")
        paged.client.get("/gradio_api/file=nothing-there")
        paged.client.get("/v1/models")
    records = [record for record in caplog.records if record.name == "sgdiff.sgdiff_app.server.gate"]
    told = [record.getMessage().rsplit(" in ", 1)[0] for record in records]
    assert told == ["GET /gradio_api/file=nothing-there 403", "GET /v1/models 200"]


def test_pages_of_other_hosts_are_refused_by_the_gate(paged: Running) -> None:
    answer = httpx.get(f"{paged.url}/", headers={"host": "example.org"})
    assert answer.json()["error"]["code"] == "host_not_allowed"


def test_a_headless_server_never_imports_gradio(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from engine import env\nfrom sgdiff_app import config, serve\nfrom sgdiff_app.server.app import create\n"
        "service = serve.build(config.load(sys.argv[1:], 'serve'), env.read())\n"
        "create(service)\nservice.queue.close()\nprint('gradio' in sys.modules, 'torch' in sys.modules)"
    )
    flags = ["--headless", "--data-dir", str(tmp_path), "--output-path", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
