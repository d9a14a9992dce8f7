"""Concept map: one model's concepts as a map, the selection lit; a card opens beside it, its list stands below."""

from dataclasses import replace
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import streamlit as st

from engine.figures.map import HEIGHT, HOW, PLAIN_HOW
from engine.figures.tables import most_different
from engine.reports.selection import is_narrowed, select
from pages.widgets import activation, card, controls, generate, html, notes, selection, session, stress
from pages.widgets.plot import plot

KEYS = (*session.SETTINGS, "concept", "image", "colour", "side", "top", "job", "draw", "beside", *session.NARROWING)


@html.fragment
def explore() -> None:
    """Selection, map, card and list in one fragment, so that a click runs only this; the controls run the page."""
    view = session.open_view("concept_map", KEYS)
    selection.keep_controls(view)
    table, mask = session.table(view), select(session.atlas(), view)
    selection.show_bar(view)
    with html.explained():
        notes.show_selections(view)
    left, right = st.columns([11, 9], gap="large")
    with left, st.container(key="stage"):
        query = urlencode(session.write(view, session.known(), session.SETTINGS))
        plot(
            source=f"map.json?{query}", height=HEIGHT, key="map", concept=view.concept, colour=view.colour, zoom=True,
            mask=mask if is_narrowed(view) else None, base=mask_without_text(view), lasso=True,
        )  # fmt: skip
        how = PLAIN_HOW if session.atlas().info.published else HOW
        html.show("concepts.legend", key="legend", view=view, basis=session.basis(view).sentence(), how=how)
    with right:
        if view.concept is None:
            browse(view, table, mask)
        else:
            card.show_card(view, table)
            with html.explained():
                notes.show_concept(view)
            with html.explained():
                activation.show_activation(view)
            with html.explained():
                stress.show_stress(view)
            generate.generate(view)
            card.show_neighbours(view, table)
    if mask.any():
        st.header(selection.list_heading(view), anchor="list", divider="gray")
        selection.show_list(view)


def mask_without_text(view: session.View) -> np.ndarray | None:
    """Return what the other parts of the selection keep; None if there are none."""
    rest = replace(view, text="")
    return select(session.atlas(), rest) if is_narrowed(rest) else None


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
    selection.remember_controls(view)


def browse(view: session.View, table: pd.DataFrame, mask: np.ndarray) -> None:
    """The clearest differences within the selection as pictures, shown until a concept is chosen."""
    if not mask.any():
        return
    of = "these differ" if is_narrowed(view) else f"{html.plain(view.model)} differs"
    st.subheader(f"Where {of} most", anchor=False)
    controls.side_choice(view)
    html.show("concepts.top", key="top", rows=most_different(table[mask], view.side, view.top), view=view)


toolbar(session.open_view("concept_map", KEYS))
explore()
