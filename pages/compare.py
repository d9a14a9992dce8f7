"""Compare: two to four models' maps with linked zoom and selection, delta against delta, and where they disagree."""

from dataclasses import replace
from itertools import combinations
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from engine.figures.compare import SCATTER_HEIGHT, SCATTER_HOW
from engine.figures.distribution import delta_intervals
from engine.figures.map import MAPS_HOW, maps_height
from engine.figures.tables import pearson
from engine.reports.selection import is_narrowed, select
from pages.widgets import controls, html, notes, selection, session
from pages.widgets.plot import plot, show_figure

KEYS = ("models", "concept", *session.SETTINGS, *session.NARROWING)


@html.fragment
def explore() -> None:
    """Everything that a click changes."""
    view = session.open_view("compare", KEYS)
    if "models" not in st.query_params and view.model not in view.models:  # the other pages' model is compared, too
        view = replace(view, models=(view.model, view.models[0]))
        session.put(view, KEYS)
    with st.container(key="toolbar"):
        choice, search, settings, filters = st.columns([5, 3, 1.6, 1.6], vertical_alignment="bottom")
    with choice:
        controls.models_choice(view)
    with search:
        controls.search_box(view)
    with settings:
        controls.delta_settings(view)
    with filters:
        controls.filters(view)
    selection.show_bar(view, view.models)
    with html.explained():
        notes.show_selections(view)
    query = urlencode(session.write(view, session.known(), ("models", *session.SETTINGS)))
    tables = {model: session.table(view, model) for model in view.models}
    mask = select(session.atlas(), view) if is_narrowed(view) else None
    plot(
        source=f"maps.json?{query}", height=maps_height(len(view.models)), key="maps", concept=view.concept, mask=mask,
        narrow_source=f"maps.json?{query}&columns=1", narrow_height=maps_height(len(view.models), 1), zoom=True,
        lasso=True,
    )  # fmt: skip
    basis = session.basis(view, view.models[0]).sentence()
    html.show("parts.note", key="maps_how", text=f"{MAPS_HOW} δ by {basis}.")
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Delta against delta", anchor=False)
        plot(
            source=f"scatter.json?{query}", height=SCATTER_HEIGHT, key="scatter", concept=view.concept, mask=mask,
            lasso=True,
        )  # fmt: skip
    with right:
        if view.concept is not None:
            chosen(view, tables)
        st.subheader("How alike they are", anchor=False)
        html.show("compare.correlations", key="correlations", rows=correlations(tables), how=SCATTER_HOW)
    st.header("Where the models differ most", anchor="list", divider="gray")
    selection.show_list(view, compared=True)


def correlations(tables: dict[str, pd.DataFrame]) -> list[tuple[str, str, list[float]]]:
    """Return every pair of models with Pearson's r over live concepts, on delta and on the relative gap."""
    alive = {model: table[~table["dead"]] for model, table in tables.items()}
    return [
        (a, b, [pearson(alive[a][column], alive[b][column]) for column in ("delta", "relative")])
        for a, b in combinations(alive, 2)
    ]


def chosen(view: session.View, tables: dict[str, pd.DataFrame]) -> None:
    """The chosen concept in every compared model."""
    rows = pd.DataFrame({model: table.loc[view.concept] for model, table in tables.items()}).T
    images = [int(image) for image in session.atlas().exemplars("real", view.concept, 6)["image"]]
    html.show("compare.chosen", key="chosen", view=view, label=rows["label"].iloc[0], images=images)
    show_figure(delta_intervals(rows, concept=view.concept, basis=session.basis(view, view.models[0])), key="forest")


st.title("Compare", anchor=False)
if len(session.atlas().models) < 2:
    st.info("This atlas has one model: comparing needs two or more.")
else:
    explore()
