"""URLs and addresses: what is refused, how a URL is taken apart, and what of it is shown."""

from __future__ import annotations

import pytest

from engine import urls
from engine.urls import InvalidURLError, Target

PRIVATE = [
    "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1",
    "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "::8.8.8.8", "2002:7f00:1::", "2002:a9fe:a9fe::1",
    "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::8.8.8.8", "2001::1", "2001:db8::1", "3fff::1", "100::1",
    "5f00::1", "nonsense", "",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public(address: str) -> None:
    assert not urls.is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "151.101.1.1", "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]
)
def test_what_is_public(address: str) -> None:
    assert urls.is_public(address)


def test_urls_are_taken_apart() -> None:
    assert urls.parse("HTTPS://Bücher.Example./ä?q=ü#x") == Target(
        "https", "xn--bcher-kva.example", 443, "/%C3%A4?q=%C3%BC"
    )
    assert urls.parse("http://[2606:4700::1111]:80").url == "http://[2606:4700::1111]/"
    assert [urls.is_url(text) for text in ("HTTP://a", "s3://a", "a/b.png", "data:image/png;base64,", "C:/x")] == [
        True, True, False, False, False,
    ]  # fmt: skip


def test_a_url_is_shown_without_what_may_be_secret() -> None:
    assert urls.shown("https://me:pass@host/a.png?sig=1#x") == "https://host/a.png"
    assert len(urls.shown("https://host/" + "a" * 999)) == 200
    assert urls.shown("https://host/\x1b[31m") == "https://host/?[31m"


@pytest.mark.parametrize(
    "url", ["http://a/b c", "http://a\\@b/", "mailto:a@b", "http://a:b@c/", "http:///x", "http://a:0x1/"]
)
def test_what_two_programs_could_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(InvalidURLError):
        urls.parse(url)
