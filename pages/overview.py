"""Overview: what this atlas is, and per model what it leaves out and what it overdraws."""

import streamlit as st

from engine.figures.distribution import HISTOGRAM_HOW, delta_histogram
from engine.figures.tables import most_different, summarise
from pages.widgets import controls, html, session
from pages.widgets.plot import plot

KEYS = ("model", "estimator", "temperature", "low", "high")
CARDS = 6


def model_section(model: str, view: session.View) -> None:
    """One model: its numbers, its histogram, and its twelve most extreme concepts."""
    table, basis = session.table(view, model), session.basis(view, model)
    figure = delta_histogram(table.loc[~table["dead"], "delta"], model=model, basis=basis)
    st.header(html.plain(atlas.info.source(model).label or model), anchor=model, divider="gray")
    numbers, spread = st.columns([2, 3], gap="large", vertical_alignment="center")
    with numbers:
        summary = summarise(table, view.low, view.high)
        html.show("concepts.strip", key=f"strip_{model}", summary=summary, basis=basis.sentence(), how=HISTOGRAM_HOW)
    with spread:
        plot(figure, key=f"histogram_{model}")
    sides = {side: most_different(table, side, CARDS) for side in ("suppressed", "exaggerated")}
    html.show("concepts.extremes", key=f"cards_{model}", sides=sides, model=model)


atlas = session.atlas()
view = session.open_view("overview", KEYS)
title, settings = st.columns([5, 1], vertical_alignment="bottom")
title.title(html.plain(atlas.info.name or "Blindspot Atlas"), anchor=False)
with settings:
    controls.delta_settings(view)
html.show("overview.introduction", key="introduction", info=atlas.info)
for name in atlas.models:
    model_section(name, view)
