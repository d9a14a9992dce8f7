"""Shows a figure of `engine.figures`: in the browser it keeps its zoom, its chosen concept and its colouring.

Why not ``st.plotly_chart``: it draws anew, and loses zoom and selection, whenever a filter, a colouring or a chosen
concept changes. This component fetches a figure once by its URL and then only restyles it.
"""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import plotly
import plotly.graph_objects as go
import plotly.io
import streamlit as st

from pages.widgets import data, url
from pages.widgets.live import asset
from pages.widgets.state import picked

HERE = Path(__file__).parent

_component = st.components.v2.component(
    "blindspot_plot",
    html=(HERE / "plot.html").read_text(encoding="utf-8"),
    js=(HERE / "plot.js").read_text(encoding="utf-8"),
    isolate_styles=False,
)


def plot(
    figure: go.Figure | None = None,
    *,
    key: str,
    source: str | None = None,
    concept: int | None = None,
    mask: np.ndarray | None = None,
    colour: str | None = None,
    zoom: bool = False,
    keep: bool = False,
    height: int | None = None,
    narrow_source: str | None = None,
    narrow_height: int | None = None,
    opens: str | None = None,
) -> None:
    """Show a figure and follow clicks on its concepts.

    Parameters
    ----------
    figure
        A small figure, sent with the page; or
    source
        the path of a large one, fetched once (see `pages.routes`).
    key
        Name of this place on the page.
    concept
        The concept to mark with a ring.
    mask : bool array [concepts], optional
        Concepts to keep bright; the others are greyed.
    colour
        The colouring to show (a label of the figure's ``updatemenus``).
    zoom, keep
        Scroll to zoom; keep the zoom when the figure changes.
    height
        Pixels kept free while a `source` loads, so that nothing jumps: the figure's own height.
    narrow_source, narrow_height
        The figure and its height on a phone, if it is another one there.
    opens
        Address that a click on a concept leads to, CONCEPT in the place of its id; by default the concept becomes the
        view's.
    """

    def follow() -> None:
        concept = picked(st.session_state[key].get("pick"))
        if concept is not None:
            url.change(concept=concept, image=None, job=None)

    payload: dict[str, Any] = {
        "plotly": f"/atlas/v{plotly.__version__}/plotly.js",
        "facts": asset("facts.json"),
        "best": asset("best/CONCEPT.webp") if data.current().has_images else None,
        "opens": opens,
        "theme": st.context.theme.type,
        "concept": concept,
        "mask": None if mask is None else base64.b64encode(np.packbits(mask)).decode("ascii"),
        "colour": colour,
        "zoom": zoom,
        "keep": keep,
        "height": height if figure is None else figure.layout.height,
        "narrow": {"url": narrow_source, "height": narrow_height} if narrow_source else None,
    }
    payload |= {"url": source} if source else {"figure": plotly.io.to_json(figure, validate=False)}
    _component(key=key, data=payload, on_pick_change=follow)


def caption(figure: go.Figure) -> str:
    """Return a figure's title, subtitle and reading line as HTML that wraps; the component leaves them out."""
    title = figure.layout.title
    return (
        f'<div class="ba-caption"><b>{escape(title.text or "")}</b> <span>{escape(title.subtitle.text or "")}</span>'
        f'<div class="ba-note">{escape(figure.layout.meta["how"])}</div></div>'
    )
