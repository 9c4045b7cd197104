"""The gate over HTTP, with a small application behind it: what it refuses, what it adds, what it lets through."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from types import SimpleNamespace
from typing import Any, cast

import httpx
import psutil
import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send

from sgdiff_app import config
from sgdiff_app.options import MB, ServerOptions
from sgdiff_app.server import gate as gate_module
from sgdiff_app.server import tries
from sgdiff_app.server.access import Access, keys_of
from sgdiff_app.server.gate import Gate
from sgdiff_app.server.service import Service
from tests.sgdiff_app.server.serving import Running

LIMIT = ("--max-body-mb", "1")


class Small:
    """Counts bodies, streams, waits for the client to leave, fails."""

    def __init__(self) -> None:
        self.left = threading.Event()
        self.go_on = threading.Event()
        self.asked: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"])
        match scope["path"].rpartition("/")[2]:
            case "fail":
                raise ValueError("a bug")
            case "stream":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"first", "more_body": True})
                await asyncio.get_running_loop().run_in_executor(None, self.go_on.wait, 5)
                await send({"type": "http.response.body", "body": b"second"})
            case "wait":
                while (await receive())["type"] != "http.disconnect":
                    pass
                self.left.set()
                await self.answer(send, {}, 499)
            case _:
                length = 0
                while True:
                    message = await receive()
                    length += len(message.get("body", b""))
                    if not message.get("more_body"):
                        break
                await self.answer(send, {"length": length})

    async def answer(self, send: Send, content: Any, status: int = 200) -> None:
        headers = [(b"content-type", b"application/json")]
        start: Message = {"type": "http.response.start", "status": status, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": json.dumps(content).encode()})


class Gated:
    """A gate on a free port."""

    def __init__(self, *flags: str) -> None:
        options = config.load(["--headless", *flags], "serve").noun(ServerOptions)
        self.counted: list[tuple[str, str, int]] = []
        self.queue = SimpleNamespace(draining=False)
        self.access = Access(keys_of(options))
        metrics = SimpleNamespace(answered=lambda *labels: self.counted.append(labels))
        service = SimpleNamespace(options=options, access=self.access, metrics=metrics, queue=self.queue)
        self.app = Small()
        gate = Gate(self.app, cast("Service", service))
        self.server = uvicorn.Server(uvicorn.Config(gate, port=0, log_config=None, lifespan="off", access_log=False))
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve()), daemon=True)
        self.thread.start()
        while not self.server.started:
            self.thread.join(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)

    def ask(self, method: str = "GET", path: str = "/v1/x", **headers: str) -> httpx.Response:
        return self.client.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def close(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join(10)


@pytest.fixture
def gated() -> Iterator[Callable[..., Gated]]:
    begun: list[Gated] = []

    def begin(*flags: str) -> Gated:
        begun.append(Gated(*flags))
        return begun[-1]

    yield begin
    for gate in begun:
        gate.close()


Begin = Callable[..., Gated]


def refused(answer: httpx.Response, status: int, code: str, kind: str) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (status, code, kind)
    assert set(error) == {"message", "type", "param", "code"}
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-request-id"].startswith("req_")
    return error


def test_every_answer_has_an_id_of_its_own(server: Running) -> None:
    answers = [server.client.get(path) for path in ("/health", "/v1/models", "/nope", "/docs")]
    answers.append(server.client.delete("/health"))
    answers.append(server.client.get("/health", headers={"x-request-id": "mine"}))
    assert [answer.status_code for answer in answers] == [200, 200, 404, 200, 405, 200]
    ids = [answer.headers.get_list("x-request-id") for answer in answers]
    assert all(len(found) == 1 and found[0].startswith("req_") for found in ids)
    assert len({found[0] for found in ids}) == len(ids)
    assert [answer.headers.get("cache-control") for answer in answers[:4]] == ["no-store"] * 3 + [None]
    for answer in answers[2:4:2]:
        assert answer.json()["error"]["code"] == "not_found"


def test_a_bug_is_answered_in_the_envelope_and_logged_with_the_id(
    gated: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    answer = gated().ask("GET", "/fail")
    refused(answer, 500, "internal_error", "server_error")
    assert answer.headers["x-should-retry"] == "false"
    assert "a bug" not in answer.text
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert answer.headers["x-request-id"] in record.getMessage() and record.exc_info


def test_a_name_that_was_rebound_is_refused(gated: Begin) -> None:
    gate = gated("--allowed-hosts", "api.example.com")
    for host in ("localhost", f"127.0.0.1:{gate.port}", "api.example.com"):
        assert gate.ask(host=host).status_code == 200
    for method in ("GET", "POST", "OPTIONS"):
        answer = gate.ask(method, host="rebound.evil.example")
        refused(answer, 403, "host_not_allowed", "permission_error")
    assert len(gate.app.asked) == 3


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE", "PUT"])
def test_pages_of_other_origins_change_nothing(gated: Begin, method: str) -> None:
    gate = gated()
    for origin in ("null", "https://evil.example", f"http://localhost:{gate.port}"):
        refused(gate.ask(method, origin=origin), 403, "origin_not_allowed", "permission_error")
    assert not gate.app.asked
    assert gate.ask(method, origin=f"http://127.0.0.1:{gate.port}").status_code == 200
    assert gate.ask(method).status_code == 200, "no page has sent it"
    reading = gate.ask("GET", origin="https://evil.example")
    assert reading.status_code == 200
    assert not [name for name in reading.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("site", "status"), [("", 200), ("none", 200), ("same-origin", 200), ("same-site", 403), ("cross-site", 403)]
)
def test_a_login_serves_the_own_page_alone_where_a_browser_says_no_origin(
    gated: Begin, site: str, status: int
) -> None:  # fmt: skip
    gate = gated("--api-key", "k")
    said = {"sec_fetch_site": site} if site else {}
    cookie = {"cookie": f"sgdiff_login_1={gate.access.log_in()}"}
    for method in ("POST", "PATCH", "PUT", "DELETE"):
        assert gate.ask(method, **said, **cookie).status_code == status
        assert gate.ask(method, **said, **cookie, authorization="Bearer k").status_code == 200, "a key was given"
    assert gate.ask("GET", **said, **cookie).status_code == 200, "what it answers, no page of others reads"


def test_listed_origins_may_read_and_write(gated: Begin) -> None:
    gate = gated("--cors-origins", "https://app.example", "--api-key", "k")
    origin = "https://app.example"
    asking = gate.ask("OPTIONS", origin=origin, access_control_request_method="POST",
                      access_control_request_headers="authorization, content-type")  # fmt: skip
    assert (asking.status_code, asking.content) == (204, b"")
    assert asking.headers["access-control-allow-origin"] == origin
    assert "POST" in asking.headers["access-control-allow-methods"]
    assert asking.headers["access-control-allow-headers"] == "authorization, content-type"
    answer = gate.ask("POST", origin=origin, authorization="Bearer k")
    assert answer.status_code == 200
    assert answer.headers.get_list("access-control-allow-origin") == [origin]
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    wrong = gate.ask("POST", origin=origin)
    refused(wrong, 401, "invalid_api_key", "authentication_error")
    assert wrong.headers["access-control-allow-origin"] == origin, "else a page cannot read what is wrong"
    other = gate.ask("OPTIONS", origin="https://evil.example", access_control_request_method="POST")
    refused(other, 403, "origin_not_allowed", "permission_error")


def test_keys_protect_everything_but_probes(gated: Begin) -> None:
    gate = gated("--api-key", "k1", "k2")
    for path in ("/v1/models", "/models", "/metrics", "/docs", "/openapi.json", "/", "/health/", "/v1/jobs/x/events"):
        answer = gate.ask("GET", path)
        refused(answer, 401, "invalid_api_key", "authentication_error")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "k1" not in answer.text
        assert gate.ask("GET", path, authorization="Bearer k2").status_code == 200
    for path in ("/health", "/ready", "/liveness", "/health_generate"):
        assert gate.ask("GET", path).status_code == 200
    assert gate.ask("GET", "/v1/models", authorization="Bearer k3").status_code == 401


def test_wrong_keys_are_slowed_down_and_right_ones_are_not(gated: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = gated("--api-key", "k1")
    began = time.monotonic()
    assert gate.ask("POST", authorization="Bearer k2").status_code == 401
    assert time.monotonic() - began >= tries.DELAY_S
    began = time.monotonic()
    assert [gate.ask("GET").status_code for _ in range(20)] == [401] * 20, "without a key, nothing is guessed"
    assert time.monotonic() - began < 20 * tries.DELAY_S
    monkeypatch.setattr(tries, "DELAY_S", 0.0)
    codes = [gate.ask("GET", authorization=f"Bearer k{i}").status_code for i in range(2, tries.MOST_TRIES + 1)]
    assert set(codes) == {401}
    answer = gate.ask("GET", authorization="bearer k2")
    error = refused(answer, 429, "too_many_wrong_keys", "rate_limit_error")
    assert error["message"] == "too many wrong API keys came from this address"
    assert 1 <= int(answer.headers["retry-after"]) <= 61
    assert answer.headers["x-should-retry"] == "false", "clients would send the same key again"
    assert gate.ask("GET").status_code == 401
    assert gate.ask("GET", authorization="Bearer k1").status_code == 200


def test_case_39_without_a_key_any_header_does(server: Running) -> None:
    answer = server.client.get("/v1/models", headers={"authorization": "Bearer sk-proj-1234567890"})
    assert answer.status_code == 200


def test_a_signed_link_opens_content_alone(gated: Begin) -> None:
    gate = gated("--api-key", "k", "--root-path", "/pictures")
    path = "/v1/images/img_1/content"
    token = gate.access.sign(path, 60)
    assert gate.ask("GET", f"{path}?token={token}").status_code == 200
    assert gate.ask("GET", f"/pictures{path}?token={token}").status_code == 200, "a proxy may leave its prefix on"
    for wrong in (path, f"{path}?token=x", f"/v1/images/img_2/content?token={token}", f"/v1/models?token={token}"):
        assert gate.ask("GET", wrong).status_code == 401


def test_the_prefix_of_a_proxy_opens_nothing(gated: Begin) -> None:
    gate = gated("--api-key", "k", "--root-path", "/pictures/")
    assert gate.ask("GET", "/pictures/health").status_code == 200
    assert gate.ask("GET", "/picturesque/health").status_code == 401
    assert gate.ask("GET", "/pictures/v1/models").status_code == 401


def test_a_server_that_drains_takes_no_posts_but_cancels(gated: Begin) -> None:
    gate = gated()
    gate.queue.draining = True
    answer = gate.ask("POST", "/v1/videos")
    refused(answer, 503, "draining", "server_error")
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    assert gate.ask("GET", "/v1/videos").status_code == 200
    assert gate.ask("POST", "/v1/videos/video_1/cancel").status_code == 200


# Case 40


def test_a_body_that_says_that_it_is_too_large(gated: Begin) -> None:
    gate = gated(*LIMIT)
    assert gate.client.post("/v1/x", content=b"x" * MB).json() == {"length": MB}
    answer = gate.client.post("/v1/x", content=b"x" * (MB + 1))
    error = refused(answer, 413, "body_too_large", "invalid_request_error")
    assert "1 MB" in error["message"]
    assert len(gate.app.asked) == 1
    assert gate.client.post("/v1/x", content=b"again").status_code == 200


def test_memory_stays_flat_under_a_body_without_end(gated: Begin) -> None:
    gate, chunk = gated(*LIMIT), b"x" * (1 << 16)

    def parts() -> Iterator[bytes]:
        for _ in range(1000):
            yield chunk

    before, process = psutil.Process().memory_info().rss, psutil.Process()
    most = 0

    def look() -> None:
        nonlocal most
        while gate.thread.is_alive() and not ended.wait(0.01):
            most = max(most, process.memory_info().rss)

    ended = threading.Event()
    watcher = threading.Thread(target=look)
    watcher.start()
    answer = gate.client.post("/v1/x", content=parts())
    ended.set()
    watcher.join()
    refused(answer, 413, "body_too_large", "invalid_request_error")
    assert most - before < 20 * MB, "65 MB were sent"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_first_sends_and_then_listens_hears_the_answer(gated: Begin, chunked: bool) -> None:
    gate = gated(*LIMIT)
    connection = http.client.HTTPConnection("127.0.0.1", gate.port, timeout=20)
    body = [b"x" * MB] * 20
    headers = {} if chunked else {"content-length": str(20 * MB)}
    connection.request("POST", "/v1/x", body=iter(body), headers=headers, encode_chunked=chunked)
    assert connection.getresponse().status == 413
    connection.close()


def test_a_client_that_asks_before_it_sends_is_told_at_once(gated: Begin) -> None:
    gate = gated(*LIMIT)
    with socket.create_connection(("127.0.0.1", gate.port), 5) as connection:
        head = f"POST /v1/x HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {2 * MB}\r\nexpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        begun = time.monotonic()
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize("pause", [0.05, 30])
def test_a_body_that_comes_too_slowly_ends_its_connection(
    gated: Begin, monkeypatch: pytest.MonkeyPatch, pause: float
) -> None:
    monkeypatch.setattr(gate_module, "PATIENCE_S", 0.3)
    gate, stop = gated(), threading.Event()
    with closing(socket.create_connection(("127.0.0.1", gate.port), timeout=10)) as connection:
        connection.sendall(b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")

        def drip() -> None:
            with suppress(OSError):
                while not stop.wait(pause):
                    connection.sendall(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            with http.client.HTTPResponse(connection) as answer:
                answer.begin()
                assert json.loads(answer.read())["error"]["code"] == "body_too_slow"
                assert (answer.status, answer.headers["connection"]) == (400, "close")
        finally:
            stop.set()
            dripping.join()


def test_a_body_that_keeps_coming_may_take_its_time(gated: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "PATIENCE_S", 0.3)

    def parts() -> Iterator[bytes]:
        for _ in range(6):
            time.sleep(0.1)
            yield b"x" * 500

    assert gated().client.post("/v1/x", content=parts()).json() == {"length": 3000}


def test_a_client_that_waits_for_its_answer_is_given_time(gated: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "PATIENCE_S", 0.05)
    gate = gated()
    with pytest.raises(httpx.ReadTimeout):
        gate.client.post("/v1/wait", content=b"x", timeout=0.5)
    assert gate.app.left.wait(5)


# What it must not do


def test_answers_are_not_held_back(gated: Begin) -> None:
    gate = gated()
    with gate.client.stream("GET", "/stream") as answer:
        parts = answer.iter_raw()
        assert next(parts) == b"first"
        gate.app.go_on.set()
        assert b"".join(parts) == b"second"


def test_a_client_that_leaves_is_noticed(gated: Begin, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    gate = gated()
    with pytest.raises(httpx.ReadTimeout):
        gate.client.post("/wait", content=b"x", timeout=0.3)
    assert gate.app.left.wait(5)
    end = time.monotonic() + 5
    while "499 cancelled" not in caplog.text:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert gate.counted == [("none", "POST", 499)]


def test_websockets_are_closed(gated: Begin) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    gate = cast("Gate", gated().server.config.app)
    asyncio.run(gate({"type": "websocket", "path": "/"}, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]


# The log


def test_one_line_for_each_request(gated: Begin, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    gate = gated("--uvicorn-access-log-exclude-prefixes", "/v1/jobs", "/metrics")
    answer = gate.ask("GET", "/v1/images/a%0Ab/content?token=secret")
    for path in ("/health", "/v1/jobs/x", "/metrics"):
        gate.ask("GET", path)
    gate.ask("POST", "/v1/x", origin="null")
    gate.close()
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("gate")]
    assert len(lines) == 2
    assert lines[0].startswith("GET /v1/images/a%0Ab/content 200 in ")
    assert lines[0].endswith(f" ms, {answer.headers['x-request-id']}")
    assert lines[1].startswith("POST /v1/x 403 origin_not_allowed in ")
    assert "secret" not in "".join(lines)
