"""Overview: what this atlas is, where to look first, and per model what it leaves out and what it overdraws."""

import pandas as pd
import streamlit as st

from engine.figures.distribution import HISTOGRAM_HOW, delta_histogram
from engine.figures.tables import SIDES, Summary, most_different, summarise, where_to_start
from pages.widgets import controls, html, session
from pages.widgets.plot import plot

KEYS = ("model", "estimator", "temperature", "low", "high")
CARDS = 6


def model_section(model: str, table: pd.DataFrame, summary: Summary, view: session.View) -> None:
    """One model: its numbers, its histogram, and its twelve most extreme concepts."""
    basis = session.basis(view, model)
    alias = atlas.info.source(model).alias
    st.header(html.plain(f"{model} · {alias}" if alias else model), anchor=model, divider="gray")
    numbers, spread = st.columns([2, 3], gap="large", vertical_alignment="center")
    with numbers:
        html.show(
            "concepts.strip",
            key=f"strip_{model}",
            model=model,
            summary=summary,
            basis=basis.sentence(),
            how=HISTOGRAM_HOW,
        )
    with spread:
        dead = int(table["dead"].sum())
        plot(delta_histogram(table[~table["dead"]], model=model, basis=basis, dead=dead), key=f"histogram_{model}",
             lights=html.address({"model": model, "within": "RANGES"}, "concept_map"))  # fmt: skip
    sides = {side: most_different(table, side, CARDS) for side in SIDES}
    html.show("concepts.extremes", key=f"cards_{model}", sides=sides, model=model)


atlas = session.atlas()
view = session.open_view("overview", KEYS)
title, settings = st.columns([5, 1], vertical_alignment="bottom")
title.title(html.plain(atlas.info.name or "Blindspot Atlas"), anchor=False)
with settings:
    controls.delta_settings(view)
tables = {model: session.table(view, model) for model in atlas.models}
summaries = {model: summarise(table, view.low, view.high) for model, table in tables.items()}
starts = where_to_start(tables, view.low, view.high)
html.show("overview.introduction", key="introduction", info=atlas.info, starts=starts, models=atlas.models)
for name in sorted(atlas.models, key=lambda model: -(summaries[model].suppressed + summaries[model].exaggerated)):
    model_section(name, tables[name], summaries[name], view)
