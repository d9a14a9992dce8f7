"""Shows an exhibit: title, estimator, n and reading line, files to take along, and the figure, fetched by its URL."""

from __future__ import annotations

from html import escape

import streamlit as st

from engine.errors import BlindspotError
from pages.exhibits import Named, named
from pages.widgets.live import address, asset, live
from pages.widgets.plot import caption, plot
from pages.widgets.state import View


def show(name: str, view: View) -> None:
    """Show the figure of an exhibit, or why there is none; a click on one of its concepts opens the concept's card."""
    if missing(name, view):
        return
    found = named(name, view)
    live(takeaway(found) + caption(found.exhibit.figure), key=f"how_{name}")
    plot(
        source=asset(found.path("json")), height=found.exhibit.figure.layout.height, key=name,
        opens=address({"model": view.model, "concept": "CONCEPT"}, "concept_map"),
    )  # fmt: skip


def missing(name: str, view: View) -> bool:
    """Return whether an exhibit cannot be shown, and if so say why in one sentence."""
    try:
        named(name, view)
    except BlindspotError as error:
        st.info(str(error))
        return True
    return False


def takeaway(found: Named) -> str:
    """Return the links that download an exhibit."""
    suffixes = ("csv",) if found.exhibit.figure is None else ("csv", "html")
    links = (
        f'<a href="{escape(asset(found.path(suffix)))}" download="{found.name}.{suffix}" '
        f'title="Download: {escape(found.exhibit.title)}">{suffix.upper()}</a>'
        for suffix in suffixes
    )
    return f'<div class="ba-take">{"".join(links)}</div>'
