"""Webhooks: who is told, how it is signed, and what a receiver that does not answer costs."""

from __future__ import annotations

import base64
import http.server
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai import InvalidWebhookSignatureError, OpenAI

from engine.errors import UsageError
from engine.fetch import Rules
from engine.jobs import Job
from engine.jobs.job import new_id
from engine.types import Request
from sgdiff_app.options import ServerOptions
from sgdiff_app.server import webhooks
from sgdiff_app.server.webhooks import Webhooks
from tests.sgdiff_app.server.conftest import Starter
from tests.sgdiff_app.server.folders import video_model

SECRET = "whsec_" + base64.b64encode(b"a secret of the receiver").decode()
OTHER = "whsec_" + base64.b64encode(b"the secret after that one").decode()
OPEN = Rules(allow_hosts=("127.0.0.1",), total_s=5.0, connect_s=5.0)


class Receiver(http.server.ThreadingHTTPServer):
    """Answers with the statuses in turn (the last one from then on; 0 never answers), and keeps what it was told."""

    daemon_threads = True

    def __init__(self, *statuses: int) -> None:
        self.statuses, self.told, self.stop = statuses, list[tuple[str, bytes, dict[str, str]]](), threading.Event()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.told.append((self.path, body, headers))
                status = receiver.statuses[min(len(receiver.told), len(receiver.statuses)) - 1]
                if status == 0:
                    receiver.stop.wait(10)
                    return
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/in"

    def wait(self, count: int) -> list[tuple[str, bytes, dict[str, str]]]:
        """What it was told, once that is so many."""
        end = time.monotonic() + 5
        while len(self.told) < count and time.monotonic() < end:
            time.sleep(0.005)
        assert len(self.told) == count
        return self.told

    def handle_error(self, *_: object) -> None:
        pass


@pytest.fixture
def receivers() -> Iterator[list[Receiver]]:
    made: list[Receiver] = []
    yield made
    for receiver in made:
        receiver.stop.set()
        receiver.shutdown()
        receiver.server_close()


@pytest.fixture
def receiver(receivers: list[Receiver]) -> Receiver:
    receivers.append(Receiver(200))
    return receivers[0]


def hooks(*addresses: str, secrets: tuple[str, ...] = (SECRET,), **changes: Any) -> Webhooks:
    given = {"rules": OPEN, "pauses_s": (0.01, 0.01), **changes}
    return Webhooks(addresses, [webhooks.secret_of(secret) for secret in secrets], **given)


def ended(status: Any = "done", kind: Any = "video", **notes: Any) -> Job:
    request = Request(prompt="a boat")
    return Job(new_id("video"), kind, "m", "m", request, request, status=status, notes=notes)


def verify(body: bytes, headers: dict[str, str], secret: str = SECRET) -> None:
    OpenAI(api_key="x", base_url="http://127.0.0.1:9").webhooks.verify_signature(body, headers, secret=secret)


@pytest.mark.parametrize(
    ("status", "kind"), [("done", "video.completed"), ("failed", "video.failed"), ("cancelled", "video.failed")]
)
def test_a_receiver_is_told_how_a_video_ended(receiver: Receiver, status: str, kind: str) -> None:
    job = ended(status)
    hooks(receiver.url).hear(job)
    [(path, body, headers)] = receiver.wait(1)
    event = json.loads(body)
    assert event == {
        "id": headers["webhook-id"], "object": "event", "created_at": event["created_at"], "type": kind,
        "data": {"id": job.id},
    }  # fmt: skip
    assert event["id"].startswith("evt_")
    assert abs(event["created_at"] - time.time()) < 5
    assert (path, headers["content-type"]) == ("/in", "application/json")
    verify(body, headers)
    with pytest.raises(InvalidWebhookSignatureError):
        verify(body + b" ", headers)
    with pytest.raises(InvalidWebhookSignatureError):
        verify(body, headers, OTHER)


def test_nobody_is_told_of_pictures(receiver: Receiver) -> None:
    told = hooks(receiver.url)
    told.hear(ended(kind="image"))
    told.hear(ended(kind="edit"))
    told.hear(ended())
    told.close()
    assert len(receiver.told) == 1


def test_during_a_change_of_secrets_each_of_them_verifies(receiver: Receiver) -> None:
    hooks(receiver.url, secrets=(SECRET, OTHER)).hear(ended())
    [(_, body, headers)] = receiver.wait(1)
    for secret in (SECRET, OTHER):
        verify(body, headers, secret)


def test_a_receiver_that_fails_is_told_again_with_the_same_id_and_a_new_signature(receivers: list[Receiver]) -> None:
    receivers.append(Receiver(500, 200))
    hooks(receivers[0].url, pauses_s=(1.05,)).hear(ended())
    (_, first, before), (_, second, after) = receivers[0].wait(2)
    assert first == second
    assert before["webhook-id"] == after["webhook-id"]
    assert int(before["webhook-timestamp"]) < int(after["webhook-timestamp"])
    assert before["webhook-signature"] != after["webhook-signature"]
    verify(first, before)
    verify(second, after)


@pytest.mark.parametrize("status", [302, 404, 500])
def test_it_is_given_up_in_the_end(receivers: list[Receiver], status: int) -> None:
    receivers.append(Receiver(status))
    told = hooks(receivers[0].url)
    told.hear(ended())
    receivers[0].wait(3)
    time.sleep(0.05)
    told.close()
    assert {path for path, _, _ in receivers[0].wait(3)} == {"/in"}


def test_the_pauses_are_those_that_are_promised() -> None:
    assert webhooks.PAUSES_S == (1, 5, 30, 120, 600)
    made = webhooks.of_options(ServerOptions(webhook_url=("https://a.example/",), webhook_secret=SECRET))
    assert made is not None
    assert (made.pauses_s, made.rules.total_s) == (webhooks.PAUSES_S, 10)


def test_a_dead_receiver_holds_up_nobody(receivers: list[Receiver]) -> None:
    receivers += [Receiver(0), Receiver(200)]
    told = hooks(receivers[0].url, receivers[1].url)
    begin = time.monotonic()
    for _ in range(20):
        told.hear(ended())
    assert time.monotonic() - begin < 0.2
    receivers[1].wait(20)
    told.close(0.0)


def test_what_was_not_told_yet_is_told_at_the_end_and_what_failed_is_not(receivers: list[Receiver]) -> None:
    receivers.append(Receiver(500, 200))
    told = hooks(receivers[0].url, pauses_s=(60.0,))
    told.hear(ended())
    receivers[0].wait(1)
    told.hear(ended())
    begin = time.monotonic()
    told.close()
    assert time.monotonic() - begin < 5
    receivers[0].wait(2)


def test_what_fails_at_the_end_is_not_waited_for(receivers: list[Receiver]) -> None:
    receivers.append(Receiver(500))
    told = hooks(receivers[0].url, pauses_s=(60.0,))
    told.receivers[receivers[0].url].close()
    told.hear(ended())
    begin = time.monotonic()
    told.close()
    assert time.monotonic() - begin < 5
    receivers[0].wait(1)


def test_addresses_on_the_private_network_are_told_nothing(receiver: Receiver) -> None:
    told = hooks(receiver.url, rules=replace(OPEN, allow_hosts=()), pauses_s=())
    told.hear(ended())
    told.close()
    assert receiver.told == []


def test_a_video_with_an_address_of_its_own_is_told_there_alone(receivers: list[Receiver]) -> None:
    receivers += [Receiver(200), Receiver(200)]
    told = hooks(*(receiver.url for receiver in receivers))
    told.hear(ended(webhook_url=f"{receivers[1].url}/user/7?a=1"))
    told.hear(ended(webhook_url="https://no.longer.example/listed"))
    told.hear(ended())
    told.close()
    assert [path for path, _, _ in receivers[1].told] == ["/in/user/7?a=1", "/in"]
    assert [path for path, _, _ in receivers[0].told] == ["/in"]


@pytest.mark.parametrize(
    ("url", "listed", "expected"),
    [
        ("https://a.example/in/7", "https://a.example/in", True),
        ("https://A.example:443/in?x=1", "https://a.example/in", True),
        ("https://a.example/x", "https://a.example", True),
        ("https://a.example/in", "https://a.example/in/", False),
        ("https://a.example/inner", "https://a.example/in", False),
        ("https://a.example.evil.example/in", "https://a.example", False),
        ("https://a.example@evil.example/in", "https://a.example", False),
        ("http://a.example/in", "https://a.example/in", False),
        ("https://a.example:8443/in", "https://a.example/in", False),
        ("https://a.example/in/../admin", "https://a.example/in", False),
        ("https://a.example/in/%2e%2e%2fadmin", "https://a.example/in", False),
        ("file://localhost/etc/passwd", "https://a.example", False),
    ],
)
def test_an_address_of_a_request_continues_a_listed_one(url: str, listed: str, expected: bool) -> None:
    told = hooks(listed)
    if expected:
        told.check(url)
        return
    with pytest.raises(UsageError, match=r"^webhook_url: .* is not below an address .*\(--webhook-url\)$") as caught:
        told.check(url)
    assert caught.value.param == "webhook_url"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"webhook_url": ("https://a.example/",)}, "needs a secret to sign with (SGDIFF_WEBHOOK_SECRET or"),
        ({"webhook_url": ("ftp://a.example/",), "webhook_secret": SECRET}, "must be an http(s) URL, got 'ftp://a.ex"),
        ({"webhook_url": ("https://u:p@a.example/",), "webhook_secret": SECRET}, "must not hold a user name or pass"),
        *(
            ({"webhook_url": ("https://a.example/",), "webhook_secret": text}, "must have the form whsec_<base64>")
            for text in ("hush", "whsec_", "whsec_%%%", f"{SECRET},hush")
        ),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        webhooks.of_options(ServerOptions(**options))
    assert message in caught.value.message
    assert "hush" not in caught.value.message


def test_without_an_address_there_are_none() -> None:
    assert webhooks.of_options(ServerOptions(webhook_secret=SECRET)) is None


def test_a_server_tells_of_its_videos(
    start: Starter, receivers: list[Receiver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receivers += [Receiver(500, 200), Receiver(200)]
    monkeypatch.setenv("SGDIFF_WEBHOOK_SECRET", f"{SECRET},{OTHER}")
    flags = ["--webhook-url", receivers[0].url, receivers[1].url, "--url-allow-hosts", "127.0.0.1"]
    running = start("--model-path", video_model(tmp_path, "T2V"), *flags)
    fields = {"prompt": "a boat", "size": "64x48", "num_frames": 5}
    first = running.client.post("/v1/videos", json=fields).json()["id"]
    (_, body, before), (_, again, after) = receivers[0].wait(2)
    assert json.loads(body) == json.loads(again) == json.loads(receivers[1].wait(1)[0][1])
    assert json.loads(body)["data"] == {"id": first}
    assert before["webhook-id"] == after["webhook-id"]
    assert int(before["webhook-timestamp"]) < int(after["webhook-timestamp"])
    for told, headers in ((body, before), (again, after)):
        verify(told, headers)
        verify(told, headers, OTHER)
    own = {"webhook_url": f"{receivers[1].url}/7", "prompt": "FAULT"}
    second = running.client.post("/v1/videos", json={**fields, **own}).json()["id"]
    path, body, _ = receivers[1].wait(2)[1]
    assert (path, json.loads(body)["type"], json.loads(body)["data"]["id"]) == ("/in/7", "video.failed", second)
    answer = running.client.post("/v1/videos", json={**fields, "webhook_url": "https://elsewhere.example/"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_webhook_url")
    assert len(receivers[0].told) == 2
