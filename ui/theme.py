"""How the page looks and behaves in the browser: theme, style sheet, keys, dark mode, dropped files."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

HERE = Path(__file__).parent / "static"
ICON = HERE / "icon.png"  # 512 px; smaller ones are made of it
FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
ACCENT = gr.themes.Color(
    c50="#eef2ff", c100="#e0e7ff", c200="#c7d2fe", c300="#a5b4fc", c400="#818cf8", c500="#6366f1",
    c600="#4f46e5", c700="#4338ca", c800="#3730a3", c900="#312e81", c950="#1e1b4b",
)  # fmt: skip
MUTED = "#5b6880"  # on every light ground of the page more than 4.5 to 1


def theme() -> gr.themes.Base:
    """Return the one theme: an accent, greys, the fonts of the system; nothing is fetched."""
    fonts = [gr.themes.Font(name) for name in FONT]
    mono = [gr.themes.Font(name) for name in MONO]
    base = gr.themes.Base(
        primary_hue=ACCENT,
        secondary_hue=ACCENT,
        neutral_hue=gr.themes.colors.slate,
        spacing_size=gr.themes.sizes.spacing_md,
        radius_size=gr.themes.sizes.radius_md,
        font=fonts,
        font_mono=mono,
    )
    return base.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="#0b0e14",
        background_fill_primary="white",
        background_fill_primary_dark="#12161f",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="#0f131b",
        block_background_fill="white",
        block_background_fill_dark="#12161f",
        block_border_width="1px",
        block_border_color="*neutral_200",
        block_border_color_dark="#232936",
        border_color_primary="*neutral_200",
        border_color_primary_dark="#232936",
        block_shadow="none",
        body_text_color_subdued=MUTED,
        body_text_color_subdued_dark="*neutral_400",
        input_placeholder_color=MUTED,
        input_placeholder_color_dark="*neutral_400",
        color_accent="*primary_600",
        link_text_color_dark="*primary_400",
        link_text_color_active_dark="*primary_400",
        link_text_color_visited_dark="*primary_400",
        link_text_color_hover_dark="*primary_300",
        block_label_background_fill="*block_background_fill",
        block_label_background_fill_dark="*block_background_fill",
        block_label_border_width="0px",
        block_title_text_weight="500",
        block_title_text_size="*text_sm",
        block_info_text_size="*text_xs",
        input_background_fill="*neutral_50",
        input_background_fill_dark="#0f131b",
        input_border_color="*neutral_300",
        input_border_color_dark="#2c3444",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="#1a202c",
        button_secondary_background_fill_hover_dark="#232936",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="#2c3444",
    )


def css() -> str:
    """Return the style sheet."""
    return (HERE / "page.css").read_text(encoding="utf-8")


def head() -> str:
    """Return what stands in the head of the page: what the keys and dropped files do, what is kept."""
    script = "".join((HERE / name).read_text(encoding="utf-8") for name in ("page.js", "kept.js"))
    return (
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<link rel="icon" type="image/png" href="./favicon.ico">'  # below a prefix, browsers would look at the root
        f"<script>{script}</script>"
    )
