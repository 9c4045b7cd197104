"""The looks: nothing is fetched from anywhere, light and dark, scripts and styles that travel with the program."""

from __future__ import annotations

import re

from ui import theme


def test_nothing_is_fetched_from_anywhere() -> None:
    built = theme.theme()
    assert not built._stylesheets
    fetched = re.compile(r"https?:|@import|url\((?!['\"]?data:)")
    for text in (theme.css(), theme.head(), *built._font_css):
        assert not fetched.search(text.replace("xmlns='http://www.w3.org/2000/svg'", ""))  # a name, not a place


def test_light_and_dark_are_both_there() -> None:
    css = theme.theme()._get_theme_css()
    assert ".dark" in css and "--body-background-fill: #0b0e14" in css


def test_a_finger_finds_every_button_on_a_phone() -> None:
    assert "min-height: 40px" in theme.css() and "@media (max-width: 768px)" in theme.css()
