"""The login page: a browser shows a key once and gets a cookie, with which the UI and its files open."""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape
from string import Template
from urllib.parse import parse_qs, urlencode

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from sgdiff_app.server.access import COOKIE, LOGIN_S, logins_of
from sgdiff_app.server.service import service_of

# A path of this server as a browser must not read it otherwise: two slashes, or a backslash, begin another host.
LOCAL = re.compile(r"/(?![/\\])[!-\[\]-~]*")
LONGEST = 8192  # bytes of a form

STYLE = """
:root { color-scheme: light dark; --ground: #f8fafc; --card: #fff; --text: #1e293b; --soft: #526077;
  --line: #cbd5e1; --accent: #4f46e5; --ring: #4f46e5; --wrong: #b42318 }
@media (prefers-color-scheme: dark) { :root { --ground: #0b0e14; --card: #12161f; --text: #e8eaee; --soft: #a3abba;
  --line: #2c3444; --ring: #818cf8; --wrong: #ff9c91 } }
* { box-sizing: border-box }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 16px; background: var(--ground);
  color: var(--text); font: 16px/1.5 system-ui, sans-serif }
main { width: 100%; max-width: 384px; padding: 32px; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px }
h1 { margin: 0 0 8px; font-size: 22px; line-height: 1.3 }
p { margin: 0 0 24px; color: var(--soft) }
p.wrong { margin: 8px 0 0; color: var(--wrong) }
label { display: block; margin-bottom: 8px; font-weight: 600 }
input, button { width: 100%; min-height: 44px; padding: 8px 12px; border-radius: 8px; font: inherit }
input { background: var(--ground); color: inherit; border: 1px solid var(--line) }
button { margin-top: 24px; border: 0; background: var(--accent); color: #fff; font-weight: 600;
  cursor: pointer }
input:focus-visible, button:focus-visible { outline: 3px solid var(--ring); outline-offset: 2px }
"""
PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Log in · sgdiff-app</title>
<link rel="icon" href="data:,">
<style>$style</style>
</head>
<body>
<main>
<h1>sgdiff-app</h1>
<p>This server asks for a key. It is the one that its API takes.</p>
<form method="post" action="$action">
<input type="hidden" name="next" value="$next">
<input type="text" name="username" value="sgdiff-app" autocomplete="username" hidden>
<label for="key">API key</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus$marks>
$wrong
<button type="submit">Log in</button>
</form>
</main>
</body>
</html>
""")
WRONG = '<p class="wrong" id="wrong" role="alert">{}</p>'
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "same-origin",  # with none at all, browsers would not say the origin of the form
    "x-content-type-options": "nosniff",
}


def add(app: FastAPI) -> None:
    """Give an application the page, and the ways in and out."""
    app.add_route("/login", show, methods=["GET"])
    app.add_route("/login", log_in, methods=["POST"])
    app.add_route("/logout", log_out, methods=["POST"])


def asks(root: str, target: str, query: str) -> Response:
    """Return the answer that sends a browser to the login page, and back to what it asked for afterwards.

    `root` is the prefix of a proxy, `target` the escaped path, with the prefix or without it.
    """
    inside = target.removeprefix(root) if f"{target}/".startswith(f"{root}/") else target
    wanted = local(f"{inside or '/'}?{query}" if query else inside or "/")
    after = "" if wanted == "/" else "?" + urlencode({"next": wanted})
    return _to(f"{root}/login{after}")


def local(target: str) -> str:
    """Return a path of this server with its query, without a proxy's prefix; "/" in place of what is none."""
    return target if LOCAL.fullmatch(target) and not target.startswith(("/login", "/logout")) else "/"


def page(action: str, target: str, wrong: str = "", status: int = 200, **headers: str) -> Response:
    """Return the login page; `wrong` says why it is shown again."""
    content = PAGE.substitute(
        style=STYLE,
        action=escape(action),
        next=escape(target),
        wrong=WRONG.format(escape(wrong)) if wrong else "",
        marks=' aria-invalid="true" aria-describedby="wrong"' if wrong else "",
    )
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return HTMLResponse(content, status, {**HEADERS, **more})


async def show(http: Request) -> Response:
    """Show the login page; whoever needs none goes on."""
    root, access = http.scope["root_path"], service_of(http).access
    target = local(http.query_params.get("next", "/"))
    if access.proof(target.partition("?")[0], dict(http.scope["headers"])) is not None:
        return _to(root + target)
    return page(f"{root}/login", target)


async def log_in(http: Request) -> Response:
    """Take a key, and give a cookie for it."""
    root, access = http.scope["root_path"], service_of(http).access
    form = await _form(http)
    target, key = local(form.get("next", "/")), form.get("key", "").strip().encode()
    if access.digests and not key:
        return page(f"{root}/login", target, "Enter a key.", 401, www_authenticate="Bearer")
    if access.digests and not access.knows(key):
        seconds = await access.tries.wrong(http.client.host if http.client is not None else "")
        if not seconds:
            wrong = "This key is not one of the server's. Look for blanks or missing characters."
            return page(f"{root}/login", target, wrong, 401, www_authenticate="Bearer")
        wait = str(int(seconds) + 1)
        wrong = f"That were too many wrong keys. Try again in {wait} seconds."
        return page(f"{root}/login", target, wrong, 429, retry_after=wait)
    answer = _to(root + target)
    _set(http, answer, access.log_in(), LOGIN_S)
    return answer


async def log_out(http: Request) -> Response:
    """End the login of a browser."""
    access = service_of(http).access
    for login in logins_of(dict(http.scope["headers"])):
        access.log_out(login)
    answer = _to(f"{http.scope['root_path']}/login")
    _set(http, answer, "", 0)
    return answer


async def _form(http: Request) -> dict[str, str]:
    """Return the first value of each field of a small form; nothing of a large one."""
    body = bytearray()
    async for part in http.stream():
        body += part
        if len(body) > LONGEST:
            return {}
    return {name: values[0] for name, values in parse_qs(body.decode("latin-1")).items()}


def _set(http: Request, answer: Response, value: str, seconds: int) -> None:
    """Set the cookie of this server. What a browser calls the origin is sure, also behind a proxy that does TLS."""
    secure = http.headers.get("origin", f"{http.url.scheme}://").startswith("https://")
    _, port = http.scope.get("server") or ("", 0)
    path = http.scope["root_path"] or "/"
    name = f"{COOKIE}_{port or 0}"
    answer.set_cookie(name, value, seconds, path=path, secure=secure, httponly=True, samesite="strict")


def _to(place: str) -> Response:
    """Return the answer that sends a browser to a place, which is escaped already."""
    return Response(status_code=303, headers={"location": place, "cache-control": "no-store"})
