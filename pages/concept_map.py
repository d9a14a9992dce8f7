"""Concept map: one model's concepts as a map; a click or a search opens the concept's card beside it."""

from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from engine.figures.distribution import delta_intervals
from engine.figures.map import HEIGHT, HOW, PLAIN_HOW
from engine.figures.tables import Filters, keep, most_different
from pages.widgets import card, controls, data, generate, linked, lists, state, url
from pages.widgets.live import asset, live
from pages.widgets.plot import caption, plot

KEYS = (
    "model", "concept", "image", "estimator", "temperature", "low", "high", "colour", "status", "frequency", "q",
    "text", "side", "top", "job",
)  # fmt: skip
FIGURE = ("model", "estimator", "temperature", "low", "high")


@st.fragment
def explore() -> None:
    """Map and card in one fragment, so that a click runs only this; the controls above it run the page."""
    view = url.current("concept_map", KEYS)
    table = data.table(view)
    mask = keep(table, Filters(view.status, view.frequency, view.q), view.low, view.high)
    left, right = st.columns([11, 9], gap="large")
    with left, st.container(key="stage"):
        source = asset(f"map.json?{urlencode(state.write(view, data.known(data.atlas_path()), FIGURE))}")
        plot(
            source=source, height=HEIGHT, key="map", concept=view.concept, colour=view.colour, zoom=True, keep=True,
            mask=None if mask.sum() == (~table["dead"]).sum() else mask,
        )  # fmt: skip
        how = PLAIN_HOW if data.current().info.published else HOW
        live(lists.legend(view, data.basis(view).sentence(), how, int(mask.sum())), key="legend")
    with right:
        if view.concept is None:
            browse(view, table, mask)
        else:
            concept(view, table)


def toolbar(view: state.View) -> None:
    """One row: which model, which colours, search, honesty, filters."""
    with st.container(key="toolbar"):
        model, colour, search, honest, some = st.columns([3, 3, 3, 1.6, 1.6], vertical_alignment="bottom")
    with model:
        controls.model_choice(view)
    with colour:
        controls.colour_choice(view)
    with search:
        controls.search_box(view)
    with honest:
        controls.honest_delta(view)
    with some:
        controls.filters(view)


def browse(view: state.View, table: pd.DataFrame, mask: object) -> None:
    """What was searched for, or the list of top differences, shown until a concept is chosen."""
    if view.text:
        st.subheader(f"Concepts that match “{view.text}”", anchor=False)
        found = data.current().search(view.text, view.top)["concept"]
        live(lists.found(table.loc[[concept for concept in found if not table["dead"].at[concept]]], view), key="found")
        return
    st.subheader(f"Where {view.model} differs most", anchor=False)
    controls.side_choice(view)
    shown = most_different(table[mask], view.side, view.top)
    live(lists.grid(shown, view), key="top")


def concept(view: state.View, table: pd.DataFrame) -> None:
    """The concept card, its deltas in every model, Generate, and its neighbours."""
    live(card.card_html(view, table), key="card")
    if data.current().info.published:
        linked.images(view)
    rows = pd.DataFrame({model: data.table(view, model).loc[view.concept] for model in data.current().models}).T
    figure = delta_intervals(rows, concept=view.concept, basis=data.basis(view))
    live(caption(figure), key="forest_how")
    plot(figure, key="forest")
    generate.generate(view)
    live(card.neighbours_html(view, table), key="neighbours")


toolbar(url.current("concept_map", KEYS))
explore()
