"""The login page over HTTP: a key for a cookie, where it leads, what it refuses, and the way out."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser

import httpx
import pytest

from sgdiff_app.server import tries
from sgdiff_app.server.login import LOCAL, local
from sgdiff_app.server.tries import MOST_TRIES
from tests.sgdiff_app.server.conftest import Starter
from tests.sgdiff_app.server.serving import Running

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8", "sec-fetch-mode": "navigate"}
FOREIGN = ("//evil.example", "/\\evil.example", "https://evil.example", "evil", "", "/a\tb", "/ä", "\\\\evil",
           "/a\\..\\b", "///evil.example", " /a", "/a b", "/a\r\nset-cookie: x=y", "https:evil",
           "javascript:alert(1)", "/login", "/login?next=/login", "/logout")  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "DELAY_S", 0.0)


@contextmanager
def browser(server: Running) -> Iterator[httpx.Client]:
    """A client that keeps cookies, and says what a browser says."""
    headers = {**BROWSER, "origin": server.url}
    with httpx.Client(base_url=server.url, headers=headers, timeout=30) as client:
        yield client


def log_in(client: httpx.Client, key: str = "k1", target: str = "/", prefix: str = "") -> httpx.Response:
    return client.post(f"{prefix}/login", data={"key": key, "next": target})


def test_from_a_page_to_the_login_and_back(start: Starter) -> None:
    server = start("--api-key", "k1", "k2")
    with browser(server) as client:
        asked = client.get("/docs?a=b&c=%20d")
        assert (asked.status_code, asked.headers["cache-control"]) == (303, "no-store")
        assert asked.headers["location"] == "/login?next=%2Fdocs%3Fa%3Db%26c%3D%2520d"
        shown = client.get(asked.headers["location"])
        assert shown.status_code == 200
        assert 'name="next" value="/docs?a=b&amp;c=%20d"' in shown.text
        answer = log_in(client, "k2", "/docs?a=b&c=%20d")
        assert (answer.status_code, answer.headers["location"]) == (303, "/docs?a=b&c=%20d")
        (given,) = answer.headers.get_list("set-cookie")
        assert re.fullmatch(
            r"sgdiff_login_\d+=[0-9a-f]{32}\.\d+\.[0-9a-f]{64}; HttpOnly; Max-Age=\d+; Path=/; SameSite=strict", given
        )
        assert client.get("/docs").status_code == 200
        assert client.get("/v1/models").status_code == 200
        assert client.get("/login?next=/docs").headers["location"] == "/docs", "nothing is asked twice"
        left = client.post("/logout")
        assert (left.status_code, left.headers["location"]) == (303, "/login")
        assert not client.cookies
        copied = given.partition(";")[0]
        assert client.get("/v1/models", headers={"cookie": copied, "accept": "*/*"}).status_code == 401


def test_a_wrong_key_is_told_on_the_page(start: Starter) -> None:
    with browser(start("--api-key", "k1")) as client:
        for key, text in (("nope", "not one of the server"), ("", "Enter a key"), ("schlüssel", "not one of")):
            answer = log_in(client, key, "/docs")
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert text in answer.text and 'role="alert"' in answer.text
            assert 'value="/docs"' in answer.text and (not key or key not in answer.text)
            assert "set-cookie" not in answer.headers
        assert log_in(client, "x" * 10_000).status_code == 401, "no more is read than a key needs"
        assert log_in(client, "  k1 ").status_code == 303, "copied with blanks"


@pytest.mark.parametrize("target", FOREIGN)
def test_it_leads_to_no_other_server(target: str) -> None:
    assert local(target) == "/"


def test_it_leads_to_no_other_server_over_http(start: Starter) -> None:
    with browser(start("--api-key", "k1")) as client:
        assert 'name="next" value="/"' in client.get("/login", params={"next": "//evil.example"}).text
        assert client.get("//evil.example").headers["location"] == "/login"
        for target in FOREIGN:
            answer = log_in(client, target=target)
            assert (answer.status_code, answer.headers["location"]) == (303, "/"), target
        assert client.get("/login", params={"next": "//evil.example"}).headers["location"] == "/"
    assert all(LOCAL.fullmatch(path) for path in ("/", "/a//b", "/?q=%5C", "/gallery?x=[1]"))


def test_programs_get_the_error_of_the_api(start: Starter) -> None:
    server = start("--api-key", "k1")
    page = {"accept": "text/html"}
    for method, headers in (
        ("GET", {}),
        ("GET", {**page, "sec-fetch-mode": "cors"}),
        ("POST", page),
        ("GET", {**page, "authorization": "Bearer k3", "sec-fetch-mode": "no-cors"}),
    ):
        answer = server.client.request(method, "/v1/models", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key"), (method, headers)
    assert server.client.get("/v1/models", headers=page).status_code == 303


def test_below_a_prefix(start: Starter) -> None:
    server = start("--api-key", "k1", "--root-path", "/pictures/")
    with browser(server) as client:
        for path in ("/docs", "/pictures/docs"):
            assert client.get(path).headers["location"] == "/pictures/login?next=%2Fdocs"
        for path in ("/", "/pictures", "/pictures/"):
            assert client.get(path).headers["location"] == "/pictures/login"
        assert client.get("/picturesque").headers["location"] == "/pictures/login?next=%2Fpicturesque"
        assert 'action="/pictures/login"' in client.get("/login").text
        answer = log_in(client, target="/docs", prefix="/pictures")
        assert answer.headers["location"] == "/pictures/docs"
        assert "Path=/pictures;" in answer.headers["set-cookie"]
        assert client.get("/pictures/docs").status_code == 200
        assert client.post("/pictures/logout").headers["location"] == "/pictures/login"
        assert client.get("/pictures/docs").status_code == 303


def test_the_cookie_is_for_tls_alone_where_the_page_came_by_tls(start: Starter) -> None:
    server = start("--api-key", "k1", "--public-base-url", "https://pictures.example")
    for headers in ({"origin": "https://pictures.example", "host": "pictures.example"}, {"x-forwarded-proto": "https"}):
        answer = server.client.post("/login", data={"key": "k1"}, headers=headers)
        assert answer.headers["set-cookie"].endswith("; Secure")
    assert "Secure" not in server.client.post("/login", data={"key": "k1"}).headers["set-cookie"]


def test_two_servers_of_one_machine_do_not_share_a_cookie(start: Starter, tmp_path: object) -> None:
    first = start("--api-key", "k1")
    second = start("--api-key", "k1", folder=first.service.data / "second")
    names = [log_in(server.client).headers["set-cookie"].partition("=")[0] for server in (first, second)]
    assert len(set(names)) == 2


def test_only_own_pages_may_change_something_by_the_cookie(start: Starter) -> None:
    server = start("--api-key", "k1", "--cors-origins", "https://app.example", "*")
    with browser(server) as client:
        log_in(client)
        path = "/v1/jobs/img_1/cancel"
        for headers in ({"origin": "https://app.example"}, {"origin": "http://127.0.0.1:1"}, {"origin": "null"}):
            answer = client.post(path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
            assert client.post(path, headers={**headers, "authorization": "Bearer k1"}).status_code == 404
        assert client.post(path).status_code == 404
        del client.headers["origin"]
        assert client.post(path).status_code == 404, "no page has sent it"
        for site, status in (("same-origin", 404), ("same-site", 403), ("cross-site", 403)):
            assert client.post(path, headers={"sec-fetch-site": site}).status_code == status


def test_pages_of_others_log_nobody_in_or_out(start: Starter) -> None:
    server = start("--api-key", "k1")
    for path in ("/login", "/logout"):
        answer = server.client.post(path, data={"key": "k1"}, headers={"origin": "https://evil.example"})
        assert answer.status_code == 403


def test_without_keys_there_is_nothing_to_ask(server: Running) -> None:
    answer = server.client.get("/login", params={"next": "/docs"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/docs")
    assert log_in(server.client, "").status_code == 303
    assert server.client.get("/docs", headers=BROWSER).status_code == 200


def test_many_wrong_keys_have_to_wait_and_a_right_one_never_does(start: Starter) -> None:
    """Behind a proxy the address of a stranger may be everybody's."""
    server = start("--api-key", "k1")
    with browser(server) as client:
        assert [log_in(client, "no").status_code for _ in range(MOST_TRIES)] == [401] * MOST_TRIES
        answer = log_in(client, "no")
        assert answer.status_code == 429 and "Try again in" in answer.text
        assert 1 <= int(answer.headers["retry-after"]) <= 61
        key = {"authorization": "Bearer k2"}
        assert client.get("/docs", headers=key).status_code == 429, "they are counted whichever way they come"
        assert client.get("/docs", headers={"authorization": "Bearer k1"}).status_code == 200
        assert log_in(client).status_code == 303


def test_a_proxy_tells_its_clients_apart(start: Starter) -> None:
    """One on this machine is trusted to; what its clients say of themselves stands before what it says."""
    server = start("--api-key", "k1")

    def wrong(said: str) -> int:
        headers = {"x-forwarded-for": said}
        return server.client.post("/login", data={"key": "no"}, headers=headers).status_code

    found = [wrong(f"198.51.100.{i}, 192.0.2.7") for i in range(MOST_TRIES + 1)]
    assert found == [401] * MOST_TRIES + [429]
    assert wrong("192.0.2.8") == 401
    with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")) as stranger:
        stranger.post(f"{server.url}/login", data={"key": "no"}, headers={"x-forwarded-for": "192.0.2.9"})
    assert list(server.service.access.tries.of) == ["192.0.2.7", "192.0.2.8", "127.0.0.2"], "it is not known as a proxy"


def test_tries_at_the_same_time_count(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "DELAY_S", 0.3)
    server, found = start("--api-key", "k1"), list[int]()
    threads = [
        threading.Thread(target=lambda: found.append(httpx.post(f"{server.url}/login", data={"key": "x"}).status_code))
        for _ in range(MOST_TRIES + 3)
    ]
    began = time.monotonic()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert time.monotonic() - began >= 0.3
    assert sorted(found) == [401] * MOST_TRIES + [429] * 3


def test_the_page_needs_nothing_from_elsewhere(start: Starter) -> None:
    """Labels for who does not see it, no script, no address but its own, and a policy that says so."""
    answer = start("--api-key", "k1").client.get("/login", params={"next": '/"><script>alert(1)</script>'})
    assert "<script" not in answer.text
    assert not re.findall(r"https?:|//|url\(|@import", answer.text)
    seen: list[tuple[str, dict[str, str | None]]] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, pairs: seen.append((tag, dict(pairs)))  # type: ignore[method-assign]
    parser.feed(answer.text)
    (field,) = [marks for tag, marks in seen if tag == "input" and marks["type"] == "password"]
    assert {"for": field["id"]} in [marks for tag, marks in seen if tag == "label"]
    assert ("html", {"lang": "en"}) in seen and "prefers-color-scheme: dark" in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "form-action 'self'" in policy and "frame-ancestors 'none'" in policy
    assert answer.headers["referrer-policy"] == "same-origin"
