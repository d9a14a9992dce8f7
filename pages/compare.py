"""Compare: up to four models' maps against one reference, delta against delta, and where they disagree."""

from dataclasses import replace
from itertools import combinations
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from engine.atlas.schema import REAL
from engine.figures.compare import SCATTER_HEIGHT, SCATTER_HOW
from engine.figures.distribution import delta_intervals
from engine.figures.map import MAPS_HOW, maps_height
from engine.figures.tables import pearson
from engine.reports.selection import against, is_narrowed, select
from pages.widgets import controls, html, notes, selection, session
from pages.widgets.plot import plot, show_figure

NAME = "compare"
KEYS = ("models", "reference", "axes", "concept", *session.SETTINGS, *session.NARROWING)
SHOWN = 6  # images of each source for the chosen concept; a string below it would show on the page


def opened(entered: bool) -> session.View:
    """Return the view with models that can be compared with its reference, and one of them as its model.

    On entering, the model that other pages showed is compared, too, unless the link names the models.
    """
    named = "models" in st.query_params
    view = session.open_view(NAME, KEYS)
    if entered and not named and view.model not in (*view.models, view.reference):
        view = replace(view, models=(view.model, *view.models)[: max(2, len(view.models))])
        session.put(view, KEYS)
    possible = against(session.atlas(), view)
    models = tuple(model for model in view.models if model != view.reference) or tuple(possible[:1])
    axes = view.axes if set(view.axes) <= set(models) else ()
    model, sort = view.model if view.model in models else models[0], view.sort
    if sort.endswith(f":{view.reference}"):
        sort = ""
    return replace(view, models=models, model=model, sort=sort, axes=axes or models[:2])


@html.fragment
def explore() -> None:
    """Everything that a click changes."""
    view = opened(st.session_state.get(session.PAGE) != NAME)
    with st.container(key="toolbar"):
        choice, source, search, settings, filters = st.columns([4, 2, 2.6, 1.7, 1.4], vertical_alignment="bottom")
    with choice:
        controls.models_choice(view)
    with source:
        controls.reference_choice(view)
    with search:
        controls.search_box(view)
    with settings:
        controls.delta_settings(view)
    with filters:
        controls.filters(view)
    selection.show_bar(view, view.models)
    with html.explained():
        notes.show_selections(view)
    tables = {model: session.table(view, model) for model in view.models}
    mask = select(session.atlas(), view) if is_narrowed(view) else None
    maps = _query(view)
    plot(
        source=f"maps.json?{maps}", height=maps_height(len(view.models)), key="maps", concept=view.concept, mask=mask,
        narrow_source=f"maps.json?{maps}&columns=1", narrow_height=maps_height(len(view.models), 1), zoom=True,
        lasso=True,
    )  # fmt: skip
    basis = session.basis(view, view.models[0]).sentence()
    how = MAPS_HOW if view.reference == REAL else MAPS_HOW.replace("reality", view.reference)
    html.show("parts.note", key="maps_how", text=f"{how} δ by {basis}.")
    if view.reference != REAL:
        html.show("compare.reading", key="reading", view=view, paired=bool(tables[view.model]["paired"].iloc[0]))
    if view.concept is not None:
        chosen(view, tables)
    if len(view.models) > 1:
        left, right = st.columns(2, gap="large")
        with left:
            st.subheader("Delta against delta", anchor=False)
            plot(
                source=f"scatter.json?{_query(replace(view, models=view.axes))}", height=SCATTER_HEIGHT, key="scatter",
                concept=view.concept, mask=mask, lasso=True,
            )  # fmt: skip
        with right:
            st.subheader("How alike they are", anchor=False)
            html.show("compare.correlations", key="correlations", rows=correlations(tables), how=SCATTER_HOW,
                      axes=view.axes)  # fmt: skip
        st.header("Where the models differ most", anchor="list", divider="gray")
    else:
        source = "real images" if view.reference == REAL else html.plain(view.reference)
        st.header(f"Where {html.plain(view.model)} differs from {source}", anchor="list", divider="gray")
    selection.show_list(view, compared=True)


def _query(view: session.View) -> str:
    return urlencode(session.write(view, session.known(), ("models", "reference", *session.SETTINGS)))


def correlations(tables: dict[str, pd.DataFrame]) -> list[tuple[str, str, list[float]]]:
    """Return every pair of models with Pearson's r over live concepts, on delta and on the relative gap."""
    alive = {model: table[~table["dead"]] for model, table in tables.items()}
    return [
        (a, b, [pearson(alive[a][column], alive[b][column]) for column in ("delta", "relative")])
        for a, b in combinations(alive, 2)
    ]


def chosen(view: session.View, tables: dict[str, pd.DataFrame]) -> None:
    """The chosen concept: its delta in every compared model, and each source's own images of it."""
    rows = pd.DataFrame({model: table.loc[view.concept] for model, table in tables.items()}).T
    atlas = session.atlas()
    sources = dict.fromkeys((REAL, *([] if view.reference == REAL else [view.reference]), *view.models))
    drawn = {
        source: [int(image) for image in atlas.exemplars(source, view.concept, SHOWN)["image"]] for source in sources
    }
    with st.container(key="chosen_concept"):
        images, intervals = st.columns([11, 9], gap="large")
    with images:
        html.show("compare.chosen", key="chosen", view=view, label=rows["label"].iloc[0], drawn=drawn, rows=rows)
    with intervals:
        basis = session.basis(view, view.models[0])
        show_figure(delta_intervals(rows, concept=view.concept, basis=basis), key="forest")


st.title("Compare", anchor=False)
if len(session.atlas().models) < 2:
    st.info("This atlas has one model: comparing needs two or more.")
else:
    explore()
