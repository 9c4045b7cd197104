"""Keys, logins and signed links: each is accepted once and refused once."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import UsageError
from sgdiff_app.options import ServerOptions
from sgdiff_app.server import access
from sgdiff_app.server.access import COOKIE, LOGIN_S, OPEN, PUBLIC, Access, keys_of

PATH = "/v1/videos/video_1/content"


def bearer(key: str) -> dict[bytes, bytes]:
    return {b"authorization": key.encode()}


def test_without_a_key_everybody_is_let_in() -> None:
    assert Access().proof("/v1/models", {})
    assert Access().proof("/v1/models", bearer("Bearer sk-proj-1234567890"))


def test_any_of_the_keys_is_accepted_and_nothing_else() -> None:
    keys = Access(["first", "second"])
    for header in ("Bearer first", "bearer second", "Bearer  first"):
        assert keys.proof("/v1/models", bearer(header))
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
        assert not keys.proof("/v1/models", bearer(header))
    assert not keys.proof("/v1/models", {})


def test_probes_need_no_key() -> None:
    keys = Access(["first"])
    assert all(keys.proof(path, {}) == "open" for path in (*OPEN, *PUBLIC))
    for path in ("/health/x", "//health", "/healthy", "/metrics", "/docs", "/openapi.json", "/", "/models", "/login/"):
        assert not keys.proof(path, {})


def test_a_signed_link_opens_one_content_path_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Access(["first"])
    token = keys.sign(PATH, 60)
    query = f"variant=thumbnail&token={token}".encode()
    assert keys.proof(PATH, {}, query)
    assert not keys.proof(PATH.replace("video_1", "video_2"), {}, query)
    assert not keys.proof("/v1/models", {}, f"token={keys.sign('/v1/models', 60)}".encode())
    expires, _, signature = token.partition(".")
    for wrong in (
        f"{int(expires) + 1}.{signature}",
        f"{expires}.{'0' * 64}",
        expires,
        "",
        "x.y",
        f"{expires}.{signature}0",
    ):
        assert not keys.proof(PATH, {}, f"token={wrong}".encode())
    assert not Access(["first"]).proof(PATH, {}, query), "the secret is of one process"
    now = access.wall()
    monkeypatch.setattr(access, "wall", lambda: now + 61)
    assert not keys.proof(PATH, {}, query)


def cookie(value: str, name: str = f"{COOKIE}_30000") -> dict[bytes, bytes]:
    return {b"cookie": f"theme=dark; {name}={value}; x".encode()}


def test_a_login_opens_everything_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Access(["first"])
    login, other = keys.log_in(), keys.log_in()
    assert login != other and "first" not in login
    for path in ("/", "/config", "/gradio_api/queue/join", "/v1/models", PATH):
        assert keys.proof(path, cookie(login)) == "cookie"
    name, expires, signature = login.split(".")
    wrong = ("", "first", f"{name}0.{expires}.{signature}", f"{name}.{int(expires) + 1}.{signature}",
             f"{name}.{expires}.{'0' * 64}", keys.sign("/", 60), f".{keys.sign(PATH, 60)}")  # fmt: skip
    assert not [value for value in wrong if keys.proof("/", cookie(value))]
    assert keys.proof("/", cookie(login, "other")) is None
    assert Access(["first"]).proof("/", cookie(login)) is None, "the secret is of one process"
    assert keys.proof(PATH, {}, f"token={expires}.{signature}".encode()) is None, "a login is no link"
    keys.log_out(login)
    assert keys.proof("/", cookie(login)) is None
    assert keys.proof("/", cookie(other)) == "cookie"
    now = access.wall()
    monkeypatch.setattr(access, "wall", lambda: now + LOGIN_S + 1)
    assert keys.proof("/", cookie(other)) is None
    keys.log_out(other)
    assert other not in keys.ended, "what has ended by itself is not kept"


def test_a_key_counts_before_the_cookie() -> None:
    keys = Access(["first"])
    assert keys.proof("/", bearer("Bearer first") | cookie(keys.log_in())) == "key"


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
