"""Keys and signed links: each is accepted once and refused once."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import UsageError
from sgdiff_app.options import ServerOptions
from sgdiff_app.server import access
from sgdiff_app.server.access import OPEN, Access, keys_of

PATH = "/v1/videos/video_1/content"


def bearer(key: str) -> dict[bytes, bytes]:
    return {b"authorization": key.encode()}


def test_without_a_key_everybody_is_let_in() -> None:
    assert Access().allows("/v1/models", {})
    assert Access().allows("/v1/models", bearer("Bearer sk-proj-1234567890"))


def test_any_of_the_keys_is_accepted_and_nothing_else() -> None:
    keys = Access(["first", "second"])
    for header in ("Bearer first", "bearer second", "Bearer  first"):
        assert keys.allows("/v1/models", bearer(header))
    for header in (
        "",
        "Bearer",
        "Bearer ",
        "Bearer third",
        "Bearer firs",
        "Basic first",
        "first",
        "Bearer first second",
    ):
        assert not keys.allows("/v1/models", bearer(header))
    assert not keys.allows("/v1/models", {})


def test_probes_need_no_key() -> None:
    keys = Access(["first"])
    assert all(keys.allows(path, {}) for path in OPEN)
    for path in ("/health/x", "//health", "/healthy", "/metrics", "/docs", "/openapi.json", "/", "/models"):
        assert not keys.allows(path, {})


def test_a_signed_link_opens_one_content_path_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Access(["first"])
    token = keys.sign(PATH, 60)
    query = f"variant=thumbnail&token={token}".encode()
    assert keys.allows(PATH, {}, query)
    assert not keys.allows(PATH.replace("video_1", "video_2"), {}, query)
    assert not keys.allows("/v1/models", {}, f"token={keys.sign('/v1/models', 60)}".encode())
    expires, _, signature = token.partition(".")
    for wrong in (
        f"{int(expires) + 1}.{signature}",
        f"{expires}.{'0' * 64}",
        expires,
        "",
        "x.y",
        f"{expires}.{signature}0",
    ):
        assert not keys.allows(PATH, {}, f"token={wrong}".encode())
    assert not Access(["first"]).allows(PATH, {}, query), "the secret is of one process"
    now = access.wall()
    monkeypatch.setattr(access, "wall", lambda: now + 61)
    assert not keys.allows(PATH, {}, query)


def test_keys_come_from_the_setting_and_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("one\n\n  two \n")
    assert keys_of(ServerOptions()) == ()
    assert keys_of(ServerOptions(api_key=("zero", "one"), api_key_file=str(path))) == ("zero", "one", "two")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), ("\n \n", "holds no key"), ("a b\n", "without spaces"), ("schlüssel", "printable ASCII")],
)
def test_a_file_without_keys_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=message) as found:
        keys_of(ServerOptions(api_key_file=str(path)))
    assert not content or not content.strip() or content.strip() not in found.value.message
