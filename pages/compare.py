"""Compare: two to four models' maps with linked zoom, delta against delta, and where they disagree most."""

from html import escape
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from engine.figures.compare import SCATTER_HEIGHT, SCATTER_HOW
from engine.figures.distribution import delta_intervals
from engine.figures.map import MAPS_HOW, maps_height
from engine.figures.tables import LEVEL, disagreement, pearson
from pages.widgets import card, controls, data, markup, state, url
from pages.widgets.live import asset, link, live
from pages.widgets.plot import caption, plot

KEYS = ("models", "concept", "estimator", "temperature", "low", "high")
FIGURE = ("models", "estimator", "temperature", "low", "high")
ROWS = 24
SURE = f"δ of every model; concepts that differ from reality with q < {LEVEL:g} in at least one of them come first."


@st.fragment
def explore() -> None:
    """Everything that a click changes."""
    view = url.current("compare", KEYS)
    choice, honest = st.columns([5, 1], vertical_alignment="bottom")
    with choice:
        controls.models_choice(view)
    with honest:
        controls.honest_delta(view)
    query = urlencode(state.write(view, data.known(data.atlas_path()), FIGURE))
    tables = {model: data.table(view, model) for model in view.models}
    plot(
        source=asset(f"maps.json?{query}"), height=maps_height(len(view.models)),
        narrow_source=asset(f"maps.json?{query}&columns=1"), narrow_height=maps_height(len(view.models), 1),
        key="maps", concept=view.concept, zoom=True, keep=True,
    )  # fmt: skip
    basis = data.basis(view, view.models[0]).sentence()
    live(f'<p class="ba-note">{MAPS_HOW} δ by {basis}.</p>', key="maps_how")
    left, right = st.columns(2, gap="large")
    with left:
        against(view, tables, query)
    with right:
        if view.concept is not None:
            chosen(view, tables)
        table_of_differences(view, tables)


def against(view: state.View, tables: dict[str, pd.DataFrame], query: str) -> None:
    """Delta of the first model against the second, and every pair's correlation."""
    st.subheader("Delta against delta", anchor=False)
    plot(source=asset(f"scatter.json?{query}"), height=SCATTER_HEIGHT, key="scatter", concept=view.concept)
    live(f'<p class="ba-note">{SCATTER_HOW}</p>{correlations(tables)}', key="correlations")


def correlations(tables: dict[str, pd.DataFrame]) -> str:
    """Return Pearson's r of every pair of models over live concepts, on delta and on the relative gap."""
    names = list(tables)
    live_rows = ~tables[names[0]]["dead"].to_numpy(bool)
    lines = []
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            r = [pearson(tables[a][kind][live_rows], tables[b][kind][live_rows]) for kind in ("delta", "relative")]
            values = f"<b>{markup.number(r[0], 2)}</b> δ, <b>{markup.number(r[1], 2)}</b> relative"
            lines.append(f"<span>{escape(a)} – {escape(b)}: {values}</span>")
    return f'<div class="ba-strip">{"".join(lines)}</div><p class="ba-note">Pearson r over live concepts.</p>'


def chosen(view: state.View, tables: dict[str, pd.DataFrame]) -> None:
    """The chosen concept in every compared model."""
    rows = pd.DataFrame({model: table.loc[view.concept] for model, table in tables.items()}).T
    figure = delta_intervals(rows, concept=view.concept, basis=data.basis(view, view.models[0]))
    first = tables[view.models[0]]
    name = markup.name_of(view.concept, first["label"].at[view.concept])
    images = [int(image) for image in data.current().exemplars("real", view.concept, 6)["image"]]
    tiles = "".join(markup.picture(asset(f"thumb/{image}.webp"), card.fit_of(image)) for image in images)
    go = {"model": view.models[0], "concept": view.concept}
    live(
        f'<h2>{link(go, name, page="concept_map", title="Open its card")}</h2><div class="ba-cards">{tiles}</div>',
        key="chosen",
    )
    live(caption(figure), key="forest_how")
    plot(figure, key="forest")


def table_of_differences(view: state.View, tables: dict[str, pd.DataFrame]) -> None:
    """The concepts on which the models differ most."""
    st.subheader("Where the models differ most", anchor=False)
    how = "" if data.current().info.published else f'<p class="ba-note">{SURE}</p>'
    ranked = disagreement(tables, ROWS)
    first = tables[view.models[0]]
    head = "".join(f"<th>{escape(model)}</th>" for model in view.models)
    body = "".join(
        f"<tr><td>{card.chip(int(concept), first)}</td>"
        + "".join(f"<td>{markup.dot(row[model])} {row[model]:.2f}</td>" for model in view.models)
        + f"<td>{row['spread']:.2f}</td></tr>"
        for concept, row in ranked.iterrows()
    )
    table = f'<table class="ba-table"><tr><th>Concept</th>{head}<th>range</th></tr>{body}</table>'
    live(f'{how}<div class="ba-scroll">{table}</div>', key="differences")


st.title("Compare", anchor=False)
if len(data.current().models) < 2:
    st.info("This atlas has one model: comparing needs two or more.")
else:
    explore()
