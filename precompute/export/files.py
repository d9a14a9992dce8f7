"""A figure as HTML, JSON, PNG or SVG, each with its origin inside the file."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
from collections.abc import Sequence
from html import escape
from pathlib import Path

import plotly.graph_objects as go
import plotly.io
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from plotly.offline import get_plotlyjs

from engine.errors import BlindspotError

FORMATS = ("html", "json", "png", "svg")
PICTURES = ("png", "svg")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SCRIPT = "plotly.min.js"
"""One copy lies beside the pages that use it, so that they need no network."""
WIDTH, SCALE = 1100, 2
"""Pixels of a picture, and how much finer a PNG is."""
STYLE = "body{font:15px/1.5 sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem}"


def check_formats(formats: Sequence[str]) -> None:
    """Raise `BlindspotError` if figures cannot be written as one of the formats on this machine."""
    for kind in formats:
        if kind not in FORMATS:
            raise BlindspotError(f"Figures cannot be exported as {kind!r}: choose from {', '.join(FORMATS)}.")
    if not set(formats) & set(PICTURES):
        return
    if importlib.util.find_spec("kaleido") is None:
        raise BlindspotError(
            "PNG and SVG figures are drawn by kaleido, which is not installed: run `pip install kaleido`, or export "
            "them as html."
        )
    if not any(shutil.which(name) for name in BROWSERS):
        raise BlindspotError(
            "PNG and SVG figures are drawn by Chromium, which is not installed: install it, or export them as html."
        )


def write_figure(figure: go.Figure, stem: Path, formats: Sequence[str], origin: dict[str, str]) -> list[Path]:
    """Write a figure on white ground in every format and return the files."""
    figure = go.Figure(figure).update_layout(
        template="plotly_white", paper_bgcolor="#ffffff", margin_t=84, title_x=0.01
    )
    title, how = figure.layout.title, figure.layout.meta["how"]
    origin = origin | {"title": title.text, "basis": title.subtitle.text or "", "how to read": how}
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in dict.fromkeys(formats):
        path = stem.with_name(f"{stem.name}.{kind}")
        path.write_bytes(WRITERS[kind](figure, origin))
        written.append(path)
    return written


def write_script(folder: Path) -> None:
    """Write the plotly library that the HTML pages of a folder share."""
    (folder / SCRIPT).write_text(get_plotlyjs(), encoding="utf-8")


def html(figure: go.Figure, origin: dict[str, str]) -> bytes:
    """A page with the figure and how to read it; the origin is in meta tags."""
    plot = plotly.io.to_html(figure, include_plotlyjs="directory", full_html=False)
    metas = "".join(f'<meta name="{escape(name)}" content="{escape(text)}">' for name, text in origin.items())
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(origin["title"])}</title>{metas}'
        f"<style>{STYLE}</style></head><body>{plot}<p>{escape(origin['how to read'])}</p></body></html>"
    )
    return page.encode()


def document(figure: go.Figure, origin: dict[str, str]) -> bytes:
    """Plotly's JSON; the origin is in `layout.meta.origin`."""
    told = go.Figure(figure).update_layout(meta={**figure.layout.meta, "origin": origin})
    return told.to_json().encode()


def png(figure: go.Figure, origin: dict[str, str]) -> bytes:
    """A PNG with the origin in text chunks."""
    drawn = figure.to_image("png", width=WIDTH, height=figure.layout.height, scale=SCALE)
    return told_png(drawn, origin)


def told_png(drawn: bytes, origin: dict[str, str]) -> bytes:
    """The same picture with the origin in text chunks."""
    info, buffer = PngInfo(), io.BytesIO()
    for name, text in origin.items():
        info.add_itxt(name, text)
    with Image.open(io.BytesIO(drawn)) as picture:
        picture.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def svg(figure: go.Figure, origin: dict[str, str]) -> bytes:
    """An SVG with the origin as JSON in its metadata element."""
    return told_svg(figure.to_image("svg", width=WIDTH, height=figure.layout.height), origin)


def told_svg(drawn: bytes, origin: dict[str, str]) -> bytes:
    """The same drawing with the origin as JSON in a metadata element, the first child."""
    text = drawn.decode()
    start = text.index(">", text.index("<svg")) + 1
    metadata = f"<metadata>{escape(json.dumps(origin, sort_keys=True, ensure_ascii=False))}</metadata>"
    return (text[:start] + metadata + text[start:]).encode()


WRITERS = {"html": html, "json": document, "png": png, "svg": svg}
