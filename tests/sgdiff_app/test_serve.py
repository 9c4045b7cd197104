"""`serve`: what it refuses to start with, where it listens, and how the process ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse

import ui
from engine import env
from engine.errors import SgdiffError, UsageError
from sgdiff_app import config, serve
from sgdiff_app.desktop import Front
from sgdiff_app.options import ServerOptions
from sgdiff_app.server import app, pages
from sgdiff_app.server.gate import Gate
from tests.sgdiff_app.server.serving import WORKER

SMALL = {"prompt": "a red boat", "size": "64x64", "num_inference_steps": 2, "seed": 1}
Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("90s", 90.0), ("1.5m", 90.0), ("24h", 86400.0), ("2 d", 172800.0), ("5ms", 0.005)],
)
def test_durations(text: str, seconds: float) -> None:
    assert serve.duration(text, "x") == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1y", "1 h 2 m", "nan"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="output_ttl: must be a duration such as 90s, 15m or 24h"):
        serve.duration(text, "output_ttl")


# What it refuses


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "box.lan"])
def test_an_address_for_others_needs_a_key(refused: Refused, host: str) -> None:
    message = refused("serve", "--headless", "--host", host)
    assert message.startswith(f"host: {host} can be reached from other machines: set a key")
    assert "--insecure-no-auth" in message
    for way in (["--api-key", "k"], ["--insecure-no-auth"]):
        assert serve.check(config.load(["--headless", "--host", host, *way], "serve")) in (("k",), ())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.0.0.2"])
def test_loopback_needs_none(host: str) -> None:
    assert serve.check(config.load(["--host", host], "serve")) == ()


def test_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SGDIFF_API_KEY", "one,two")
    assert serve.check(config.load(["--host", "0.0.0.0"], "serve")) == ("one", "two")
    (tmp_path / "keys").write_text("three\n")
    found = serve.check(config.load(["--api-key-file", str(tmp_path / "keys")], "serve"))
    assert found == ("one", "two", "three")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--headless", "--webui", "true"), "webui: contradicts --headless"),
        (("--headless", "--job-timeout", "1y"), "job_timeout: must be a duration such as 90s, 15m or 24h, got '1y'"),
        (("--headless", "--ready-timeout", "x"), "ready_timeout: must be a duration such as 90s, 15m or 24h, got 'x'"),
        (("--headless", "--api-key-file", "none"), "api_key_file: none: No such file or directory"),
        (("--headless", "--batching-max-size", "2"), "--batching-max-size: not available yet"),
    ],
)  # fmt: skip
def test_what_it_does_not_start_with(refused: Refused, flags: tuple[str, ...], message: str) -> None:
    assert refused("serve", "--data-dir", "data", *flags) == message
    assert not Path("data").exists()


def test_webui_false_means_headless() -> None:
    for flags in (["--headless"], ["--webui", "false"], ["--no-webui"]):
        assert serve.is_headless(config.load(flags, "serve").noun(ServerOptions))
    assert not serve.is_headless(ServerOptions())


def test_what_needs_a_key_is_said_with_its_place(refused: Refused) -> None:
    Path("c.json").write_text(json.dumps({"host": "0.0.0.0", "headless": True}))
    assert refused("serve", "--config", "c.json", "--dry-run").startswith("c.json: host: 0.0.0.0 can be reached")


# Where it listens


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_a_taken_port_is_an_error_of_the_machine(cli: Callable[..., Any], taken: int) -> None:
    answer = cli("serve", "--headless", "--port", taken, "--data-dir", "data", "--log-format", "text")
    assert answer.status == 1
    message = f"error: port: {taken} is taken on 127.0.0.1; --no-strict-ports takes the next free one\n"
    assert answer.err.endswith(message)


def test_another_port_is_taken_when_it_need_not_be_this_one(taken: int) -> None:
    for options in (ServerOptions(port=taken, headless=True, strict_ports=False), ServerOptions(port=taken)):
        with closing(serve.listen(options)) as listening:
            assert taken < listening.getsockname()[1] < taken + serve.PORTS
    with pytest.raises(SgdiffError, match=f"port: {taken} is taken") as found:
        serve.listen(ServerOptions(port=taken, strict_ports=True))
    assert found.value.code == "port_taken" and found.value.exit_status == 1


def test_an_address_of_another_machine() -> None:
    with pytest.raises(SgdiffError, match=r"host: cannot listen on 192\.0\.2\.1, port 0: "):
        serve.listen(ServerOptions(host="192.0.2.1", port=0))


@pytest.mark.parametrize(("host", "name"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "localhost"), ("[::1]", "[::1]")])
def test_the_url_is_one_that_works_here(host: str, name: str) -> None:
    with closing(serve.listen(ServerOptions(host=host, port=0))) as listening:
        assert serve.url_of(host, listening) == f"http://{name}:{listening.getsockname()[1]}"


# How it ends


PROGRAM = ("-m", "sgdiff_app", "serve")


# A page that is there at once: the libraries of the real one take seconds.
PAGE = (
    "from types import SimpleNamespace",
    "import ui",
    "from starlette.responses import PlainTextResponse",
    "from sgdiff_app.server import pages",
    "page = lambda http: PlainTextResponse('the page')",
    "ui.app = SimpleNamespace(mount=lambda pages, desk: pages.add_route('/', page))",
    "pages.desk_of = lambda service: None",
)


def program_with(*worker: str, before: Sequence[str] = ()) -> tuple[str, str, str]:
    """The same with another worker, that is there at once."""
    lines = (
        "import sys",
        "from engine.jobs import child",
        f"child.COMMAND = {worker!r}",
        *before,
        "from sgdiff_app import cli",
        "sys.exit(cli.main(sys.argv[1:]))",
    )
    return "-c", "; ".join(lines), "serve"


LOADS_NOTHING = """
import socket, sys
from engine.runtime.channel import Channel
channel = Channel(socket.socket(fileno=int(sys.argv[1])))
channel.receive()
error = {"code": "x", "message": "dit_precision: a part is missing", "param": None, "kind": KIND}
channel.send({"event": "load_failed", "error": error})
"""


class Process:
    """The program, serving the bundled model or another."""

    def __init__(self, folder: Path, *flags: str, program: Sequence[str] = PROGRAM, **variables: str) -> None:
        self.folder = folder
        argv = [sys.executable, *program, "--headless", "--port", "0", "--log-format", "text"]
        argv += ["--data-dir", str(folder / "data"), "--output-path", str(folder / "outputs"), *flags]
        with (folder / "stderr").open("w") as errors:
            self.process = subprocess.Popen(argv, stderr=errors, env={**os.environ, **variables})

    @property
    def log(self) -> str:
        return (self.folder / "stderr").read_text()

    def listening(self) -> httpx.Client:
        until(lambda: "listening on" in self.log or self.process.poll() is not None)
        found = re.search(r"listening on (http://127\.0\.0\.1:\d+)", self.log)
        assert found is not None, self.log
        return httpx.Client(base_url=found[1], timeout=60)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


Run = Callable[..., Process]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    begun: list[Process] = []

    def begin(*flags: str, **more: Any) -> Process:
        begun.append(Process(tmp_path, *flags, **more))
        return begun[-1]

    yield begin
    for program in begun:
        if program.process.poll() is None:
            program.process.kill()
            program.process.wait()


def test_cases_1_and_53_a_life_from_loading_to_drain(run: Run) -> None:
    program = run("--max-running", "1", "--http-graceful-shutdown-timeout", "30", program=program_with(*WORKER))
    long = {**SMALL, "prompt": "very slow", "num_inference_steps": 20}
    with program.listening() as client, ThreadPoolExecutor(2) as pool:
        assert client.get("/liveness").status_code == 200
        first = client.get("/health")
        assert (first.status_code, first.json()["status"]) in ((503, "loading"), (503, "warming"), (200, "ok"))
        until(lambda: client.get("/health").status_code == 200)
        running = pool.submit(client.post, "/v1/images/generations", json=long)
        queue = lambda: client.get("/server_info").json()["queue"]  # noqa: E731
        until(lambda: queue() == {"waiting": 0, "running": 1})
        waiting = pool.submit(client.post, "/v1/images/generations", json=SMALL)
        until(lambda: queue() == {"waiting": 1, "running": 1})
        program.process.send_signal(signal.SIGTERM)
        until(lambda: client.get("/health").json()["status"] == "draining")
        assert client.get("/health").status_code == 503
        for refused in (waiting.result(), client.post("/v1/images/generations", json=SMALL)):
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
            assert 1 <= int(refused.headers["retry-after"]) <= 120
        assert client.get("/liveness").status_code == 200
        children = program.children()
        assert running.result().status_code == 200, running.result().text
        assert program.process.wait(30) == 0
    assert "stopping: what runs has 30 s to finish" in program.log
    assert not [child for child in children if child.is_running()]
    assert "Traceback" not in program.log and "Warning" not in program.log


def test_what_outlasts_the_grace_time_is_told_so(run: Run) -> None:
    program = run("--http-graceful-shutdown-timeout", "1", program=program_with(*WORKER))
    body = {**SMALL, "prompt": "slow", "num_inference_steps": 20, "n": 10}
    with program.listening() as client, ThreadPoolExecutor(2) as pool:
        until(lambda: client.get("/health").status_code == 200)
        lost = pool.submit(client.post, "/v1/images/generations", json=body)
        until(lambda: client.get("/server_info").json()["queue"]["running"] == 1)
        program.process.send_signal(signal.SIGTERM)
        answer = lost.result()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
        assert answer.headers["retry-after"]
        assert program.process.wait(20) == 0
    assert "Traceback" not in program.log


def test_a_second_signal_ends_it_at_once(run: Run) -> None:
    program = run("--http-graceful-shutdown-timeout", "600", program=program_with(*WORKER))
    with program.listening() as client, ThreadPoolExecutor(1) as pool:
        until(lambda: client.get("/health").status_code == 200)
        lost = pool.submit(
            client.post, "/v1/images/generations", json={**SMALL, "prompt": "slow", "num_inference_steps": 20, "n": 10}
        )
        until(lambda: client.get("/server_info").json()["queue"]["running"] == 1)
        children = program.children()
        program.process.send_signal(signal.SIGINT)
        until(lambda: "stopping" in program.log)
        begun = time.monotonic()
        program.process.send_signal(signal.SIGINT)
        assert program.process.wait(5) == 130
        assert time.monotonic() - begun < 2
        with pytest.raises(httpx.TransportError):
            lost.result()
    assert psutil.wait_procs(children, 2)[1] == []


@pytest.mark.parametrize(("kind", "status"), [("model", 1), ("usage", 2), ("", 1)])
def test_a_model_that_cannot_be_loaded(run: Run, kind: str, status: int) -> None:
    """The port is open meanwhile; nothing that waited is left hanging."""
    worker = (sys.executable, "-c", f"KIND = {kind!r}{LOADS_NOTHING}")
    program = run(program=program_with(*worker), SGDIFF_DIT_PRECISION="bf16")
    assert program.process.wait(60) == status
    assert "listening on" in program.log
    assert program.log.splitlines()[-1] == "error: SGDIFF_DIT_PRECISION: a part is missing"
    assert "Traceback" not in program.log


def test_a_worker_that_dies_again_and_again_while_it_loads(run: Run) -> None:
    program = run(program=program_with(sys.executable, "-c", "raise SystemExit(3)"))
    assert program.process.wait(60) == 1
    assert program.log.splitlines()[-1].startswith(
        "error: the worker process has died (exit status 3); it died 4 times"
    )


def test_a_model_that_is_not_there_is_said_before_anything_listens(run: Run, tmp_path: Path) -> None:
    program = run("--model-path", str(tmp_path / "nothing"))
    assert program.process.wait(60) == 1
    (line,) = program.log.splitlines()
    assert line.startswith("error: ") and "nothing" in line


def test_a_model_that_cannot_be_loaded_leaves_the_page_to_say_so(tmp_path: Path) -> None:
    """Another model can be chosen there; without a page, the server would end."""
    worker = (sys.executable, "-c", LOADS_NOTHING.replace("KIND", "'model'"))
    settings = config.load(["--port", "0", "--data-dir", str(tmp_path / "data"), "--no-open-browser"], "serve")
    service = serve.build(settings, env.read(), worker)

    async def served() -> tuple[str, bool]:
        gate = Gate(app.routes(service), service)  # stands for the page, whose libraries take seconds
        serving = asyncio.create_task(serve._serve(gate, service, serve.listen(service.options), Front()))
        while not service.queue.supervisor.given_up:
            await asyncio.sleep(0.02)
        await asyncio.sleep(3 * serve.LOOK_S)
        found = service.queue.supervisor.error, serving.done()
        if not serving.done():
            os.kill(os.getpid(), signal.SIGTERM)
        await serving
        return found

    try:
        assert asyncio.run(asyncio.wait_for(served(), 60)) == ("dit_precision: a part is missing", False)
    finally:
        service.queue.close()


def test_the_model_is_loaded_while_the_page_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page, whose libraries take seconds, comes by itself when it can; probes and the API do not wait for it."""
    settings = config.load(["--port", "0", "--data-dir", str(tmp_path / "data"), "--no-open-browser"], "serve")
    service = serve.build(settings, env.read(), WORKER)
    asked = threading.Event()

    async def page(http: Request) -> PlainTextResponse:
        return PlainTextResponse("the page")

    def mount(pages: FastAPI, desk: object) -> None:
        assert service.queue.supervisor.wait(30, "ready") == "ready" and asked.wait(30)
        pages.add_route("/", page)

    def visit(url: str) -> tuple[int, int, str]:
        with httpx.Client(base_url=url, timeout=60) as client:
            until(lambda: client.get("/health").status_code == 200)
            drawn = client.post("/v1/images/generations", json=SMALL).status_code
            asked.set()
            return drawn, client.get("/v1/nothing").status_code, client.get("/").text

    async def served() -> tuple[int, int, str]:
        listening = serve.listen(service.options)
        serving = asyncio.create_task(serve._serve(app.create(service), service, listening, Front()))
        found = await asyncio.to_thread(visit, serve.url_of(service.options.host, listening))
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
        return found

    monkeypatch.setattr(ui, "app", SimpleNamespace(mount=mount), raising=False)
    monkeypatch.setattr(pages, "desk_of", lambda service: None)
    try:
        assert asyncio.run(asyncio.wait_for(served(), 100)) == (200, 404, "the page")
    finally:
        service.queue.close()
