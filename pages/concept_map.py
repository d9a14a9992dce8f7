"""Concept map: one model's concepts as a map; a click or a search opens the concept's card beside it."""

from urllib.parse import urlencode

import numpy as np
import pandas as pd
import streamlit as st

from engine.figures.map import HEIGHT, HOW, PLAIN_HOW
from engine.figures.tables import Filters, keep, most_different
from pages.widgets import card, controls, generate, html, session
from pages.widgets.plot import plot

KEYS = (
    "model", "concept", "image", "estimator", "temperature", "low", "high", "colour", "status", "frequency", "q",
    "text", "side", "top", "job",
)  # fmt: skip


@html.fragment
def explore() -> None:
    """Map and card in one fragment, so that a click runs only this; the controls above it run the page."""
    view = session.open_view("concept_map", KEYS)
    table = session.table(view)
    mask = keep(table, Filters(view.status, view.frequency, view.q), view.low, view.high)
    left, right = st.columns([11, 9], gap="large")
    with left, st.container(key="stage"):
        query = urlencode(session.write(view, session.known(), session.SETTINGS))
        bright = None if mask.sum() == (~table["dead"]).sum() else mask
        plot(
            source=f"map.json?{query}", height=HEIGHT, key="map", concept=view.concept, colour=view.colour, zoom=True,
            mask=bright,
        )  # fmt: skip
        how = PLAIN_HOW if session.atlas().info.published else HOW
        basis = session.basis(view).sentence()
        html.show("concepts.legend", key="legend", view=view, basis=basis, how=how, kept=int(mask.sum()))
    with right:
        if view.concept is None:
            browse(view, table, mask)
        else:
            card.show_card(view, table)
            generate.generate(view)
            card.show_neighbours(view, table)


def toolbar(view: session.View) -> None:
    """One row: which model, which colours, search, delta settings, filters."""
    choices = (
        controls.model_choice, controls.colour_choice, controls.search_box, controls.delta_settings, controls.filters
    )  # fmt: skip
    with st.container(key="toolbar"):
        columns = st.columns([3, 3, 3, 1.6, 1.6], vertical_alignment="bottom")
    for column, choice in zip(columns, choices, strict=True):
        with column:
            choice(view)


def browse(view: session.View, table: pd.DataFrame, mask: np.ndarray) -> None:
    """What was searched for, or the list of top differences, shown until a concept is chosen."""
    if view.text:
        st.subheader(f"Concepts that match “{html.plain(view.text)}”", anchor=False)
        found = table.loc[session.atlas().search(view.text, view.top)["concept"]]
        html.show("concepts.found", key="found", rows=found[~found["dead"]], view=view)
        return
    st.subheader(f"Where {html.plain(view.model)} differs most", anchor=False)
    controls.side_choice(view)
    html.show("concepts.top", key="top", rows=most_different(table[mask], view.side, view.top), view=view)


toolbar(session.open_view("concept_map", KEYS))
explore()
