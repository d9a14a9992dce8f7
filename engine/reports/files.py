"""Reports as files that say where they come from: CSV of a table; HTML, JSON, PNG or SVG of a figure."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import shutil
import tomllib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import jinja2
import pandas as pd
import plotly.graph_objects as go
import plotly.io
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from plotly.offline import get_plotlyjs

from engine.atlas import Atlas
from engine.errors import BlindspotError, printable
from engine.files import spreadsheet_safe
from engine.reports.base import Report

PROJECT = "blindspot-atlas"
FORMATS = ("html", "json", "png", "svg")
IMAGES = ("png", "svg")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SCRIPT = "plotly.min.js"
"""One copy lies beside the pages that use it, so that they need no network."""
WIDTH, SCALE = 1100, 2
"""Pixels of an image, and how much finer a PNG is."""
PAGE = jinja2.Environment(autoescape=True).from_string(
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{{ origin.title }}</title>'
    '{% for name, text in origin.items() %}<meta name="{{ name }}" content="{{ text }}">{% endfor %}'
    "<style>body{font:15px/1.5 sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem}</style></head>"
    '<body>{{ plot | safe }}<p>{{ origin["how to read"] }}</p></body></html>'
)


def atlas_origin(atlas: Atlas, what: str) -> dict[str, str]:
    """Return project and version, the atlas, and the fingerprints of its recipe and of its content.

    The recipe's is the SHA-256 of the fingerprints of all stages, equal for atlases of one recipe and its inputs; the
    content's that of the checksums of all files.
    """
    content = {rel: entry.sha256 for rel, entry in atlas.info.files.items()}
    return {
        "project": PROJECT,
        "version": _version(),
        "atlas": atlas.info.name,
        "what": what,
        "recipe fingerprint": recipe_fingerprint(atlas),
        "content fingerprint": _sha256(content),
    }


def recipe_fingerprint(atlas: Atlas) -> str:
    """Return the SHA-256 of the fingerprints of all stages: equal for atlases of the same recipe and inputs."""
    return _sha256(dict(atlas.info.stages))


def _sha256(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=1)
def _version() -> str:
    """The version of a checkout, else of what pip installed."""
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if project.is_file():
        return tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"]
    return importlib.metadata.version(PROJECT)


def report_origin(report: Report, atlas: Atlas, query: str) -> dict[str, str]:
    """Return where a report comes from, for the head of its file; `query` holds the parameters that are not default."""
    found = {"title": report.title}
    if report.figure is not None:
        layout = report.figure.layout
        found |= {"estimator": layout.title.subtitle.text or "", "how to read": layout.meta["how"]}
    return found | {
        "atlas": atlas.info.name,
        "view": query or "default",
        "recipe fingerprint": recipe_fingerprint(atlas),
    }


def csv_text(report: Report, origin: dict[str, str]) -> str:
    """Return the table as CSV below its origin in lines that start with ``#``: ``pd.read_csv(file, comment="#")``."""
    head = "".join(f"# {name}: {' '.join(text.split())}\n" for name, text in origin.items())
    return printable(head + safe_table(report.table).to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC))


def safe_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table in which a spreadsheet runs no text as a formula; numbers stay as they are."""
    text = table.select_dtypes(exclude=["number", "bool"]).columns
    return table.assign(**{name: table[name].map(spreadsheet_safe) for name in text}).rename(columns=spreadsheet_safe)


def parquet_bytes(report: Report, origin: dict[str, str]) -> bytes:
    """Return the table as a parquet file with its origin in the metadata, numbers and missing values as they are."""
    table = pa.Table.from_pandas(report.table, preserve_index=False)
    table = table.replace_schema_metadata({PROJECT: json.dumps(origin, sort_keys=True).encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def html_page(report: Report, origin: dict[str, str]) -> str:
    """Return the figure as one HTML page that needs no network, its origin in the page's metadata.

    Raises
    ------
    LookupError
        If the report has no figure.
    """
    if report.figure is None:
        raise LookupError(f"{report.title!r} has no figure.")
    return _page(_on_white(report.figure), origin, script=True)


def _page(figure: go.Figure, origin: dict[str, str], script: bool | str) -> str:
    plot = plotly.io.to_html(figure, include_plotlyjs=script, full_html=False)
    return PAGE.render(origin=origin, plot=plot)


def _on_white(figure: go.Figure) -> go.Figure:
    return go.Figure(figure).update_layout(
        template="plotly_white", paper_bgcolor="#ffffff", margin_t=84, title_x=0.01, updatemenus=()
    )


def check_formats(formats: Sequence[str]) -> None:
    """Raise `BlindspotError` if figures cannot be written as one of the formats on this machine."""
    for kind in formats:
        if kind not in FORMATS:
            raise BlindspotError(f"Figures cannot be exported as {kind!r}: choose from {', '.join(FORMATS)}.")
    if not set(formats) & set(IMAGES):
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
    """Write a figure on white ground in every format and return the files.

    HTML pages share the script of `write_script`; the origin is in their meta tags, in ``layout.meta.origin`` of JSON,
    in text chunks of PNG and in the metadata element of SVG.
    """
    title, how = figure.layout.title, figure.layout.meta["how"]
    origin = origin | {"title": title.text, "basis": title.subtitle.text or "", "how to read": how}
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = {kind: stem.with_name(f"{stem.name}.{kind}") for kind in formats}
    for kind, path in paths.items():
        path.write_bytes(_figure_bytes(_on_white(figure), kind, origin))
    return list(paths.values())


def _figure_bytes(figure: go.Figure, kind: str, origin: dict[str, str]) -> bytes:
    if kind == "html":
        return _page(figure, origin, script="directory").encode()
    if kind == "json":
        return figure.update_layout(meta={**figure.layout.meta, "origin": origin}).to_json().encode()
    image = figure.to_image(kind, width=WIDTH, height=figure.layout.height, scale=SCALE if kind == "png" else 1)
    return png_with_origin(image, origin) if kind == "png" else svg_with_origin(image, origin)


def write_script(folder: Path) -> None:
    """Write the plotly library that the HTML pages of a folder share."""
    (folder / SCRIPT).write_text(get_plotlyjs(), encoding="utf-8")


def png_with_origin(png: bytes, origin: dict[str, str]) -> bytes:
    """Return the same image with the origin in text chunks."""
    info, buffer = PngInfo(), io.BytesIO()
    for name, text in origin.items():
        info.add_itxt(name, text)
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def svg_with_origin(svg: bytes, origin: dict[str, str]) -> bytes:
    """Return the same drawing with the origin as JSON in a metadata element, the first child."""
    text = svg.decode()
    start = text.index(">", text.index("<svg")) + 1
    metadata = f"<metadata>{escape(json.dumps(origin, sort_keys=True, ensure_ascii=False))}</metadata>"
    return (text[:start] + metadata + text[start:]).encode()
