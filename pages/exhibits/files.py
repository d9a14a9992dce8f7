"""Exhibits as files to take along: CSV of the table, HTML of the figure, both saying which atlas they come from."""

from __future__ import annotations

import csv
import hashlib
import json
from html import escape

import plotly.graph_objects as go
import plotly.io

from engine.atlas import Atlas
from pages.exhibits.base import Exhibit


def fingerprint(atlas: Atlas) -> str:
    """Return the SHA-256 of the fingerprints of all stages: equal for atlases of the same recipe and inputs."""
    return hashlib.sha256(json.dumps(dict(atlas.info.stages), sort_keys=True).encode()).hexdigest()


def provenance(exhibit: Exhibit, atlas: Atlas, query: str) -> dict[str, str]:
    """Return where an exhibit comes from, for the head of its file."""
    found = {"title": exhibit.title}
    if exhibit.figure is not None:
        layout = exhibit.figure.layout
        found |= {"estimator": layout.title.subtitle.text or "", "how to read": layout.meta["how"]}
    return found | {"atlas": atlas.info.name, "view": query or "default", "recipe fingerprint": fingerprint(atlas)}


def csv_text(exhibit: Exhibit, origin: dict[str, str]) -> str:
    """Return the table as CSV below its origin in lines that start with ``#``: ``pd.read_csv(file, comment="#")``."""
    head = "".join(f"# {name}: {' '.join(text.split())}\n" for name, text in origin.items())
    return head + exhibit.table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)


def html_page(exhibit: Exhibit, origin: dict[str, str]) -> str:
    """Return the figure as one HTML page that needs no network, its origin in the page's metadata.

    Raises
    ------
    LookupError
        If the exhibit has no figure.
    """
    if exhibit.figure is None:
        raise LookupError(f"{exhibit.title!r} has no figure.")
    figure = go.Figure(exhibit.figure).update_layout(template="plotly_white", paper_bgcolor="#ffffff", margin_t=84)
    plot = plotly.io.to_html(figure, include_plotlyjs=True, full_html=False)
    metas = "".join(f'<meta name="{escape(name)}" content="{escape(text)}">' for name, text in origin.items())
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(exhibit.title)}</title>{metas}'
        "<style>body{font:15px/1.5 sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem}</style></head>"
        f"<body>{plot}<p>{escape(origin['how to read'])}</p></body></html>"
    )
