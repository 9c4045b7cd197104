"""Hosts and origins: names of this server, pages of ours, pages that are listed."""

from __future__ import annotations

import pytest

from engine.errors import UsageError
from sgdiff_app.options import ServerOptions
from sgdiff_app.server.origins import Origins, is_loopback, origins_of, split_host


def rules(**options: object) -> Origins:
    return origins_of(ServerOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ("localhost", ("localhost", "")),
        ("LocalHost:30000", ("localhost", "30000")),
        ("example.com.:80", ("example.com", "80")),
        ("[::1]:30000", ("::1", "30000")),
        ("[::1]", ("::1", "")),
        ("", ("", "")),
        ("a b", ("", "")),
        ("localhost:port", ("", "")),
        ("user@localhost", ("", "")),
        ("localhost/evil.example", ("", "")),
    ],
)
def test_host_headers_are_taken_apart(header: str, parts: tuple[str, str]) -> None:
    assert split_host(header) == parts


def test_what_loopback_is() -> None:
    assert all(is_loopback(name) for name in ("localhost", "127.0.0.1", "127.1.2.3", "::1"))
    assert not any(is_loopback(name) for name in ("0.0.0.0", "10.0.0.1", "localhost.evil.example", "", "::"))


def test_only_loopback_and_the_own_host_are_accepted() -> None:
    found = rules(host="box.lan")
    for host in ("localhost:1", "127.0.0.1", "[::1]:30000", "box.lan:30000", "BOX.LAN"):
        assert found.accepts(host)
    for host in ("evil.example", "localhost.evil.example", "10.0.0.5", "", "box.lan.evil.example"):
        assert not found.accepts(host)


def test_hosts_that_are_listed() -> None:
    found = rules(allowed_hosts=("api.example.com", "*.shop.example", "other.example:8080"))
    for host in ("api.example.com", "api.example.com:443", "a.shop.example", "other.example", "localhost"):
        assert found.accepts(host)
    for host in ("example.com", "shop.example", "x.api.example.com", "a.b.shop.example", "10.0.0.5"):
        assert not found.accepts(host)
    assert rules(allowed_hosts=("*",)).accepts("whatever.example")
    assert rules(public_base_url="https://pictures.example/api").accepts("pictures.example")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_bound_to_every_address_it_answers_to_every_address_but_to_no_name(host: str) -> None:
    found = rules(host=host)
    assert found.accepts("10.0.0.5:30000") and found.accepts("[fd00::1]:30000")
    assert not found.accepts("rebound.evil.example")
    assert not rules(host=host, allowed_hosts=("api.example.com",)).accepts("10.0.0.5")


def test_pages_of_this_server_are_trusted_and_others_are_not() -> None:
    found = rules()
    assert found.trusts("http://localhost:30000", "localhost:30000")
    assert found.trusts("https://localhost", "localhost"), "behind a proxy that does TLS"
    assert found.trusts("http://[::1]:30000", "[::1]:30000")
    for origin in ("null", "", "http://localhost:3000", "http://localhost", "http://evil.example:30000", "file://",
                   "http://localhost:30000.evil.example", "ftp://localhost:30000"):  # fmt: skip
        assert not found.trusts(origin, "localhost:30000")
        assert not found.shares(origin)


def test_origins_that_are_listed() -> None:
    found = rules(cors_origins=("https://App.example:443", "http://localhost:5173"))
    for origin in ("https://app.example", "http://localhost:5173"):
        assert found.trusts(origin, "localhost:30000") and found.shares(origin)
        assert dict(found.headers(origin))[b"access-control-allow-origin"] == origin.encode()
        assert dict(found.headers(origin))[b"access-control-allow-credentials"] == b"true"
        assert dict(found.headers(origin))[b"vary"] == b"origin"
    for origin in ("http://app.example", "https://app.example.evil.example", "https://app.example:8443", "null"):
        assert not found.trusts(origin, "localhost:30000") and not found.shares(origin)


def test_a_star_shares_with_everybody_and_never_with_credentials() -> None:
    found = rules(cors_origins=("*",))
    assert found.shares("https://any.example") and found.trusts("https://any.example", "localhost")
    headers = dict(found.headers("https://any.example"))
    assert headers[b"access-control-allow-origin"] == b"*"
    assert b"access-control-allow-credentials" not in headers


def test_the_public_url_is_an_origin_of_ours() -> None:
    found = rules(public_base_url="https://pictures.example/api")
    assert found.trusts("https://pictures.example", "localhost:30000")
    assert not found.trusts("http://pictures.example", "localhost:30000")
    assert not found.shares("https://pictures.example")


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "https://", "null", "https://a b"])
def test_an_origin_must_be_one(origin: str) -> None:
    with pytest.raises(UsageError, match="cors_origins: must be an origin such as"):
        rules(cors_origins=(origin,))


@pytest.mark.parametrize("host", ["https://app.example", "a b", ""])
def test_a_host_must_be_a_name(host: str) -> None:
    with pytest.raises(UsageError, match="allowed_hosts: must be a host name"):
        rules(allowed_hosts=(host,))
