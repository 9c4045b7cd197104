"""The page /docs: the routes of the API as one table, with nothing from elsewhere in it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em }}
td {{ padding: .3em 1em .3em 0; vertical-align: top }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>Fields and answers of each route: <a href='{source}'>{source}</a></p>
<table>
{rows}
</table>
</body>
</html>
"""
ROW = "<tr><td>{method}</td><td><code>{path}</code></td><td>{summary}</td></tr>"


def page(document: Mapping[str, Any], prefix: str = "") -> str:
    """Return a page that lists what a description of the API has, and links to it."""
    rows = (
        ROW.format(method=method.upper(), path=escape(prefix + path), summary=escape(told["summary"]))
        for path, methods in document["paths"].items()
        for method, told in methods.items()
    )
    info = document["info"]
    title = escape(f"{info['title']} {info['version']}")
    return PAGE.format(title=title, source=escape(f"{prefix}/openapi.json"), rows="\n".join(rows))
