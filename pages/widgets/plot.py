"""Shows a figure: in the browser it keeps its zoom, its chosen concept and its colouring.

Why not ``st.plotly_chart``: it draws anew, and loses zoom and selection, whenever a filter, a colouring or a chosen
concept changes. This component (``plot.js``) fetches a figure once by its URL and then only restyles it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import plotly
import plotly.graph_objects as go
import plotly.io
import streamlit as st

from engine.errors import BlindspotError
from pages.widgets import html, session

_component = st.components.v2.component(
    "blindspot_plot",
    html='<div class="ba-plot"><div class="ba-gd"></div><div class="ba-rings"></div>'
    '<div class="ba-tools" hidden></div><div class="ba-tip" hidden></div></div>',
    js=(Path(__file__).parent / "plot.js").read_text(encoding="utf-8"),
    isolate_styles=False,
)


def plot(
    figure: go.Figure | None = None,
    *,
    key: str,
    source: str | None = None,
    concept: int | None = None,
    mask: np.ndarray | None = None,
    base: np.ndarray | None = None,
    colour: str | None = None,
    zoom: bool = False,
    height: int | None = None,
    narrow_source: str | None = None,
    narrow_height: int | None = None,
    opens: str | None = None,
    lights: str | None = None,
    lasso: bool = False,
) -> None:
    """Show a figure and follow clicks on its concepts.

    Parameters
    ----------
    figure
        A small figure, sent with the page; or
    source
        the path of a large one below the atlas's routes (`pages.routes`), fetched once.
    key
        Name of this place on the page.
    concept
        The concept to mark with a ring.
    mask : bool array [concepts], optional
        Concepts to keep bright; the others are greyed.
    base : bool array [concepts], optional
        The same without what was searched for: among these, what someone types lights up.
    colour
        The colouring to show (a label of the figure's ``updatemenus``).
    zoom
        Scroll to zoom, and keep the zoom when the figure changes.
    height
        Pixels kept free while a `source` loads, so that nothing jumps: the figure's own height.
    narrow_source, narrow_height
        The figure and its height on a phone, if it is another one there.
    opens
        Address that a click on a concept leads to, CONCEPT in the place of its id; by default the concept becomes the
        view's.
    lights
        Address that a click on a bar or a cell leads to, RANGES in the place of the ranges of delta that it stands for.
    lasso
        Offer a box and a lasso that narrow the selection; the chosen concepts light up before the server is asked.
    """

    def follow() -> None:
        concept = picked(st.session_state[key].get("pick"))
        if concept is not None:
            session.change(concept=concept, image=None, job=None)

    def narrow() -> None:
        event = st.session_state[key].get("select")
        if event == "all":
            session.change(ids="")
        elif (chosen := picked_set(event, session.atlas().count)) is not None:
            try:
                session.choose(chosen, add=event.get("add") is True)
            except BlindspotError as error:
                st.toast(html.plain(error), icon=":material/error:")

    payload: dict[str, Any] = {
        "plotly": f"/atlas/v{plotly.__version__}/plotly.js",
        "facts": html.asset("facts.json"),
        "best": html.asset("best/CONCEPT.webp") if session.atlas().has_images else None,
        "opens": opens,
        "lights": lights,
        "lasso": lasso,
        "count": session.atlas().count,
        "theme": st.context.theme.type,
        "concept": concept,
        "mask": _bits(mask),
        "base": _bits(base),
        "colour": colour,
        "zoom": zoom,
        "keep": zoom,
        "height": height if figure is None else figure.layout.height,
        "narrow": {"url": html.asset(narrow_source), "height": narrow_height} if narrow_source else None,
    }
    payload |= {"url": html.asset(source)} if source else {"figure": plotly.io.to_json(figure, validate=False)}
    _component(key=key, data=payload, on_pick_change=follow, on_select_change=narrow)


def _bits(mask: np.ndarray | None) -> str | None:
    return None if mask is None else base64.b64encode(np.packbits(mask)).decode("ascii")


MOST_CONCEPTS = 10**9


def picked(event: Any) -> int | None:
    """Turn what a plot reports into a concept id; None for anything that is not one."""
    value = event.get("concept") if isinstance(event, Mapping) else event
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < MOST_CONCEPTS:
        return None
    return int(value)


def picked_set(event: Any, count: int) -> np.ndarray | None:
    """Turn the bits that a plot reports into a set of `count` concepts; None for anything that is not one."""
    bits = event.get("bits") if isinstance(event, Mapping) else None
    most = -(-count // 8)
    if not isinstance(bits, str) or len(bits) != 4 * -(-most // 3):
        return None
    try:
        mask = np.unpackbits(np.frombuffer(base64.b64decode(bits, validate=True), np.uint8))
    except ValueError:
        return None
    return mask[:count].astype(bool) if count <= len(mask) and mask[:count].any() else None


def show_figure(figure: go.Figure, *, key: str) -> None:
    """Show a small figure below its title, subtitle and reading line."""
    html.show("parts.of_figure", key=f"how_{key}", figure=figure)
    plot(figure, key=key)
