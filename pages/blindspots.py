"""Blindspots: every model's deltas over all concepts, what each model misses most, and what models miss alike."""

import pandas as pd
import streamlit as st

from engine.figures.tables import summarise
from engine.reports.concepts import group_members, ranked_concepts, ranking_ends
from engine.reports.selection import select
from pages.widgets import controls, html, notes, selection, session
from pages.widgets.reports import find_report, show_report

KEYS = (*session.SETTINGS, "top", "quantity", "margin", *session.NARROWING)


@html.fragment
def one_model() -> None:
    """One model's ranking as pictures and as intervals, its selection as a list, and misalignment by frequency."""
    view = session.open_view("blindspots", KEYS)
    st.header("What one model misses and overdoes", anchor="ranking", divider="gray")
    model, search, filters = st.columns([6, 3, 1.6], vertical_alignment="bottom")
    with model:
        controls.model_choice(view)
    with search:
        controls.search_box(view)
    with filters:
        controls.filters(view)
    selection.show_bar(view)
    with html.explained():
        notes.show_selections(view)
    if not select(atlas, view).any():
        return
    pictures, intervals = st.columns([11, 9], gap="large")
    with pictures:
        sides, concepts = ranking_ends(atlas, view, view.top), len(ranked_concepts(atlas, view))
        html.show("blindspots.ranking", key="ranking", view=view, sides=sides, concepts=concepts)
    with intervals:
        show_report("delta-ranking", view)
    st.subheader(selection.list_heading(view), anchor="list")
    selection.show_list(view, page="concept_map")
    show_report("frequency", view)


@html.fragment
def together() -> None:
    """Blindspots of all models at once, and those of one model alone."""
    view = session.open_view("blindspots", KEYS)
    st.header("Shared by all, or one model's own", anchor="shared", divider="gray")
    with st.columns([9, 11])[0]:
        controls.margin_choice(view)
    found = find_report("shared-blindspots", view)
    groups = [group("Every model", found.report.table, "universal", models)]
    groups += [group(f"Only {model}", found.report.table, f"specific to {model}", [model]) for model in models]
    html.show("blindspots.shared", key="shared", found=found, view=view, models=models, groups=groups)


def group(title: str, rows: pd.DataFrame, column: str, of: list[str]) -> dict:
    """Return the suppressed and the exaggerated blindspots that `of` have in common, as the template wants them."""
    sides = {}
    for name, sign in (("suppressed", -1), ("exaggerated", 1)):
        nearly = int((rows[f"nearly {column}"] == sign).sum()) if column != "universal" else 0
        sides[name] = (group_members(rows, column, sign, of).to_dict("records"), nearly)
    return {"title": title, "model": of[0], "sides": sides}


@html.fragment
def agreement() -> None:
    """How alike models are in what they miss."""
    view = session.open_view("blindspots", KEYS)
    st.header("How alike the models are", anchor="agreement", divider="gray")
    controls.quantity_choice(view)
    heats, matrix = st.columns([9, 11], gap="large")
    with heats:
        show_report("correlation-pearson", view)
        show_report("correlation-spearman", view)
    with matrix:
        show_report("scatter-matrix", view)


view = session.open_view("blindspots", KEYS)
atlas = session.atlas()
models = atlas.models
title, settings = st.columns([5, 1], vertical_alignment="bottom")
title.title("Blindspots", anchor=False)
with settings:
    controls.delta_settings(view)
spread, numbers = st.columns([11, 9], gap="large")
with spread:
    show_report("delta-densities", view)
with numbers:
    found, basis = find_report("delta-summary", view), session.basis(view).sentence()
    counts = {model: summarise(session.table(view, model), view.low, view.high) for model in models}
    html.show("blindspots.summary", key="summary", found=found, view=view, basis=basis, counts=counts)
one_model()
if len(models) > 1:
    together()
    agreement()
