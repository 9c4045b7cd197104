"""URLs: what may be connected to and what not, the bounds of a download, and messages that give nothing away."""

from __future__ import annotations

import http.server
import io
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import fetch
from engine.errors import InputError, OutputError
from engine.fetch import Rules

PEM = Path(__file__).parent / "data" / "pictures.example.pem"
NAME = "pictures.example"
NO_CHECK_TIME = 0x200000  # of OpenSSL: the certificate of these tests does not grow old
Action = Callable[["Handler"], object]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the test says, and remembers what it was asked."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        self.server.actions[min(len(self.server.asked), len(self.server.actions)) - 1](self)

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """A web server on this machine."""

    daemon_threads = True

    def __init__(self, secure: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.bodies: list[bytes] = []
        self.actions: tuple[Action, ...] = (body(b"picture"),)
        self.stop = threading.Event()
        if secure:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(PEM)
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, *_: object) -> None:
        pass

    def url(self, path: str = "/a.png", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.server_address[1]}{path}"


def body(data: bytes, status: int = 200, length: int | None = -1, **headers: str) -> Action:
    """Answer with some bytes; `length` None declares none."""

    def act(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        if length is not None:
            handler.send_header("Content-Length", str(len(data) if length < 0 else length))
        handler.end_headers()
        handler.wfile.write(data)

    return act


def redirect(location: str, status: int = 302) -> Action:
    return body(b"", status, Location=location)


def drip(handler: Handler) -> None:
    """Send a byte now and then, forever."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.stop.wait(0.02):
        handler.wfile.write(b"x")


def serving(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    yield from serving(Server())


@pytest.fixture
def secure() -> Iterator[Server]:
    yield from serving(Server(secure=True))


def trust() -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(PEM))
    context.verify_flags |= NO_CHECK_TIME
    return context


HERE = Rules(allow_hosts=("127.0.0.1", "Other.Example."), pause_s=0.0, total_s=10.0, connect_s=5.0, trust=trust)


def names(**table: str) -> tuple[Callable[..., list[Any]], list[str]]:
    """Return a resolver of made-up names, and the list of what it was asked; several addresses are separated by `,`."""
    asked: list[str] = []

    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        if host.replace(".", "_") not in table:
            raise socket.gaierror(-2, "Name or service not known")
        entries = table[host.replace(".", "_")].split(",")
        families = [socket.AF_INET6 if ":" in entry else socket.AF_INET for entry in entries]
        return [
            (family, socket.SOCK_STREAM, 6, "", (entry, port)) for family, entry in zip(families, entries, strict=True)
        ]

    return look_up, asked


def refusal(url: str, rules: Rules = HERE, code: str = "image_fetch_failed") -> str:
    with pytest.raises(InputError) as caught:
        fetch.fetch(url, rules)
    assert (caught.value.code, caught.value.exit_status, caught.value.param) == (code, 2, "image_path")
    return caught.value.message


@pytest.fixture
def _no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("connected")

    monkeypatch.setattr(fetch.socket, "socket", refuse)


# --- which addresses


@pytest.mark.usefixtures("_no_connection")
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "169.254.169.254", "2130706433", "0x7f.1", "0177.0.0.1",
                                  "127.1", "localhost", "localhost.", "[::ffff:127.0.0.1]"])  # fmt: skip
def test_spellings_of_this_machine_are_refused_without_a_connection(host: str) -> None:
    expected = f"Failed to process image source: http://{host}/a.png: its host is not on the public internet"
    assert refusal(f"http://{host}/a.png", Rules()) == expected


@pytest.mark.usefixtures("_no_connection")
@pytest.mark.parametrize("addresses", ["10.1.2.3", "8.8.8.8,10.1.2.3", "2606:4700::1111,fd00::1", "::ffff:10.1.2.3"])
def test_one_private_address_of_a_name_is_enough(addresses: str) -> None:
    resolver, asked = names(pictures_example=addresses)
    message = refusal(f"https://{NAME}/a.png?token=secret", Rules(resolver=resolver))
    assert message == f"Failed to process image source: https://{NAME}/a.png: its host is not on the public internet"
    assert asked == [NAME]


@pytest.mark.usefixtures("_no_connection")
def test_other_ports_are_refused() -> None:
    resolver, asked = names(pictures_example="8.8.8.8")
    message = refusal(f"http://{NAME}:8080/", Rules(resolver=resolver))
    assert message.endswith(": only the ports 80 and 443 are allowed")
    assert asked == []


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver, asked = names(pictures_example="8.8.8.8,2606:4700::1111")
    made: list[Any] = []

    class Socket:
        def __init__(self, family: int, _: int) -> None:
            self.family = family

        def settimeout(self, seconds: float) -> None:
            made.append(seconds)

        def connect(self, address: Any) -> None:
            made.append((self.family, address))
            raise ConnectionRefusedError

        def close(self) -> None:
            pass

        def shutdown(self, *_: int) -> None:
            pass

    monkeypatch.setattr(fetch.socket, "socket", Socket)
    assert refusal(f"http://{NAME}/", Rules(resolver=resolver)).endswith(": the connection failed")
    expected = [(socket.AF_INET, ("8.8.8.8", 80)), (socket.AF_INET6, ("2606:4700::1111", 80))]
    assert made == [10.0, expected[0], 10.0, expected[1]]
    assert asked == [NAME]


def test_a_name_that_nobody_knows() -> None:
    resolver, _ = names()
    assert refusal(f"http://{NAME}/", Rules(resolver=resolver)).endswith(": its host cannot be found")


# --- URLs


@pytest.mark.usefixtures("_no_connection")
@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://host/a.png", "must be a file, an http(s) URL or a data URI of an image"),
        ("file://localhost/etc/passwd", "must be a file, an http(s) URL or a data URI of an image"),
        ("http://me:pass@host/a.png", "must not hold a user name or password"),
        ("http://me@host/a.png", "must not hold a user name or password"),
        ("http:///a.png", "names no host"),
        ("http://host:99999/a.png", "is no valid URL"),
        ("http://[::1/a.png", "is no valid URL"),
        ("http://[fe80::1%25eth0]/a.png", "names no host"),
        ("http://host/a b.png", "must not hold spaces, control characters or backslashes"),
        ("http://host/a\r\nX: y", "must not hold spaces, control characters or backslashes"),
        ("http://good\\@evil/", "must not hold spaces, control characters or backslashes"),
    ],
)
def test_what_is_no_url_of_ours(url: str, problem: str) -> None:
    message = refusal(url, Rules(), "invalid_url")
    assert message.startswith("image_path: ")
    assert message.endswith(f": {problem}")
    assert "pass" not in message.replace("password", "").replace("/passwd", "")


# --- downloads


def test_a_picture_comes_with_no_cookie_no_key_and_no_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetch.fetch(server.url("/ä.png?a=1"), HERE) == b"picture"
    path, headers = server.asked[0]
    assert path == "/%C3%A4.png?a=1"
    assert headers["host"] == server.url("").removeprefix("http://")
    assert headers.keys() == {"host", "accept", "accept-encoding", "user-agent", "connection"}


def test_a_host_is_exempt_by_name(server: Server) -> None:
    resolver, asked = names(other_example="127.0.0.1", pictures_example="127.0.0.1")
    rules = replace(HERE, resolver=resolver)
    assert fetch.fetch(server.url(host="OTHER.example"), rules) == b"picture"
    assert refusal(server.url(host=NAME), rules).endswith("only the ports 80 and 443 are allowed")
    assert asked == ["other.example"]


def test_redirects_are_followed_and_each_looked_up_once(server: Server) -> None:
    resolver, asked = names(**{"127_0_0_1": "127.0.0.1", "other_example": "127.0.0.1"})
    server.actions = (redirect(server.url("/b", "other.example")), redirect("c?d=e", 308), body(b"there"))
    assert fetch.fetch(server.url(), replace(HERE, resolver=resolver)) == b"there"
    assert [path for path, _ in server.asked] == ["/a.png", "/b", "/c?d=e"]
    assert asked == ["127.0.0.1", "other.example", "other.example"]


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("http://169.254.169.254/latest", "its host is not on the public internet"),
        ("http://localhost/", "its host is not on the public internet"),
        ("http://8.8.8.8:22/", "only the ports 80 and 443 are allowed"),
        ("file://localhost/etc/passwd", "is redirected to what is no http(s) URL"),
        ("http://a:b@127.0.0.1/", "is redirected to what is no http(s) URL"),
        ("http://[/", "is redirected to what is no http(s) URL"),
    ],
)
def test_a_redirect_is_checked_again_and_its_address_not_told(server: Server, location: str, problem: str) -> None:
    server.actions = (redirect(location),)
    assert refusal(server.url()) == f"Failed to process image source: {server.url()}: {problem}"
    assert len(server.asked) == 1


def test_three_redirects_are_followed_and_no_fourth(server: Server) -> None:
    server.actions = (redirect("/1"), redirect("/2"), redirect("/3"), body(b"end"))
    assert fetch.fetch(server.url(), HERE) == b"end"
    server.asked.clear()
    server.actions = (redirect("/again"),)
    assert refusal(server.url()).endswith("is redirected more than 3 times")
    assert len(server.asked) == 4


@pytest.mark.parametrize("length", [-1, None])
def test_the_download_stops_at_the_bound(server: Server, length: int | None) -> None:
    sent = threading.Event()

    def much(handler: Handler) -> None:
        body(b"" if length else b"x" * 40, length=1000 if length else None)(handler)  # what is declared is enough
        sent.set()
        handler.server.stop.wait(5)

    server.actions = (much,)
    assert refusal(server.url(), replace(HERE, max_bytes=30)).endswith("is larger than 3e-05 MB")
    assert sent.wait(5)
    server.actions = (body(b"x" * 30, length=length),)
    assert fetch.fetch(server.url(), replace(HERE, max_bytes=30)) == b"x" * 30


def test_the_bound_of_a_request_is_fifty_megabytes() -> None:
    assert (Rules().max_bytes, Rules().connect_s, Rules().total_s, Rules().redirects) == (50_000_000, 10.0, 30.0, 3)


def test_a_slow_drip_does_not_outlast_the_time_allowed(server: Server) -> None:
    server.actions = (drip,)
    assert refusal(server.url(), replace(HERE, total_s=0.3)).endswith("took longer than 0.3 s")


def test_a_name_server_that_does_not_answer_holds_nobody() -> None:
    ready = threading.Event()

    def silent(*_: Any, **__: Any) -> list[Any]:
        ready.wait(5)
        return []

    assert refusal(f"http://{NAME}/", Rules(resolver=silent, total_s=0.1)).endswith("took longer than 0.1 s")
    ready.set()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(server: Server, status: int) -> None:
    server.actions = (body(b"", status), body(b"", status), body(b"picture"))
    assert fetch.fetch(server.url(), HERE) == b"picture"
    server.asked.clear()
    server.actions = (body(b"", status),)
    assert refusal(server.url()).endswith(f"the server answered {status}")
    assert len(server.asked) == 3


def test_silence_is_tried_again(server: Server) -> None:
    server.actions = (lambda handler: handler.server.stop.wait(1), body(b"picture"))
    assert fetch.fetch(server.url(), replace(HERE, connect_s=0.2)) == b"picture"
    assert len(server.asked) == 2


@pytest.mark.parametrize("status", [204, 206, 304, 400, 404])
def test_other_answers_are_final(server: Server, status: int) -> None:
    server.actions = (body(b"", status),)
    assert refusal(server.url()).endswith(f"the server answered {status}")
    assert len(server.asked) == 1


def test_half_a_picture_is_none(server: Server) -> None:
    def half(handler: Handler) -> None:
        body(b"pict", length=7)(handler)
        handler.close_connection = True

    server.actions = (half,)
    assert refusal(server.url()).endswith("the connection was lost half way")
    assert len(server.asked) == 3


def test_what_speaks_no_http(server: Server) -> None:
    server.actions = (lambda handler: handler.wfile.write(b"SSH-2.0-x\r\n\r\n"),)
    assert refusal(server.url()).endswith("the connection failed")


def test_where_the_system_trusts_nobody_certifi_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fetch.ssl, "create_default_context", lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    for folder, count in ((None, True), (tmp_path, True), (PEM.parent, False)):
        paths = SimpleNamespace(capath=folder and str(folder))
        monkeypatch.setattr(fetch.ssl, "get_default_verify_paths", lambda paths=paths: paths)
        assert (fetch.trust().cert_store_stats()["x509_ca"] > 0) is count


def test_tls_is_checked_against_the_name(secure: Server) -> None:
    resolver, _ = names(pictures_example="127.0.0.1", other_example="127.0.0.1")
    rules = replace(HERE, allow_hosts=(NAME, "other.example"), resolver=resolver)
    assert fetch.fetch(secure.url(host=NAME, scheme="https"), rules) == b"picture"
    for url, given in (
        (secure.url(host="other.example", scheme="https"), rules),
        (secure.url(host=NAME, scheme="https"), replace(rules, trust=ssl.create_default_context)),
    ):
        assert refusal(url, given).endswith("its certificate is not one to trust for this host")
    assert len(secure.asked) == 1


def test_a_download_can_be_ended_while_it_waits_for_tls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        assert refusal(url, replace(HERE, total_s=0.2)).endswith("took longer than 0.2 s")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch") and _lives(thread)]


def _lives(thread: threading.Thread) -> bool:
    thread.join(2)
    return thread.is_alive()


def test_the_bytes_may_be_anything(server: Server) -> None:
    data = io.BytesIO(bytes(range(256)) * 4096).getvalue()
    server.actions = (body(data),)
    assert fetch.fetch(server.url(), HERE) == data


# --- what is sent


def unsent(url: str, rules: Rules = HERE) -> str:
    with pytest.raises(OutputError) as caught:
        fetch.post(url, b"body", {}, rules)
    return caught.value.message


@pytest.mark.parametrize("status", [200, 204, 404, 500])
def test_a_body_is_sent_once_and_the_status_told(server: Server, status: int) -> None:
    server.actions = (body(b"", status),)
    assert fetch.post(server.url("/in?a=1"), b"{}", {"Content-Type": "application/json", "Host": "x"}, HERE) == status
    assert server.bodies == [b"{}"]
    path, headers = server.asked[0]
    assert (path, headers["content-type"]) == ("/in?a=1", "application/json")
    assert headers["host"] == server.url("").removeprefix("http://")


def test_nothing_is_sent_on_to_where_an_answer_points(server: Server) -> None:
    server.actions = (redirect("/other", 307),)
    assert fetch.post(server.url(), b"{}", {}, HERE) == 307
    assert len(server.asked) == 1


@pytest.mark.usefixtures("_no_connection")
@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://127.0.0.1/in?key=secret", "http://127.0.0.1/in: its host is not on the public internet"),
        ("http://8.8.8.8:8080/", "http://8.8.8.8:8080/: only the ports 80 and 443 are allowed"),
        ("http://me:pass@host/", "http://host/: must not hold a user name or password"),
    ],
)
def test_nothing_is_sent_where_nothing_may_be_fetched(url: str, problem: str) -> None:
    assert unsent(url, Rules()) == problem


def test_who_does_not_answer_holds_nobody_who_sends(server: Server) -> None:
    server.actions = (lambda handler: handler.server.stop.wait(5),)
    assert unsent(server.url(), replace(HERE, total_s=0.2)).endswith(": took longer than 0.2 s")
